"""What gets installed: every package is listed, the wheel holds every module, nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import edgeq

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("compiler", "calibration", "targets", "benchmarks")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Compares with other tools from a checkout; not installed.
NOT_INSTALLED = ROOT / "benchmarks" / "peers"


def _packages() -> dict[str, Path]:
    """Every folder with an ``__init__.py``: package name → folder."""
    found = {"edgeq": ROOT / "src" / "edgeq"}
    bases = [("edgeq.", ROOT / "src" / "edgeq")] + [(f"edgeq.{name}", ROOT / name) for name in FOLDERS]
    for prefix, base in bases:
        for init in base.rglob("__init__.py"):
            if _below_a_link(init, base) or init.is_relative_to(NOT_INSTALLED):
                continue
            parts = init.parent.relative_to(base).parts
            name = ".".join([prefix.rstrip("."), *parts])
            found[name] = init.parent
    return found


def _below_a_link(path: Path, base: Path) -> bool:
    return any(
        parent.is_symlink() for parent in path.parents if parent.is_relative_to(base) and parent != base
    )


def test_every_package_is_listed_with_its_folder() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    packages = _packages()
    assert sorted(setuptools["packages"]) == sorted(packages)
    for name, folder in setuptools["package-dir"].items():
        assert (ROOT / folder).resolve() == packages[name]
    assert sorted(setuptools["package-dir"]) == sorted(packages)


def test_the_links_for_type_checkers_are_there() -> None:
    for name in FOLDERS:
        link = ROOT / "src" / "edgeq" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name


def test_one_version() -> None:
    assert PROJECT["project"]["version"] == edgeq.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(edgeq.__version__)}\]", changelog, re.MULTILINE)


def test_the_pinned_set_names_every_core_dependency_and_fits_it() -> None:
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    for requirement in PROJECT["project"]["dependencies"]:
        name = re.split(r"[<>=\[]", requirement)[0]
        assert name in pins, f"{name} is not pinned"


def test_the_wheel_holds_every_module_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    _build_wheel(tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(tmp_path / "site")
    expected = {"edgeq/py.typed"}
    for package, folder in _packages().items():
        inside = package.replace(".", "/")
        expected |= {f"{inside}/{module.name}" for module in folder.glob("*.py")}
    assert names == expected
    _assert_imports(tmp_path / "site")


def _build_wheel(out: Path) -> None:
    """Build from a copy of the tracked sources: setuptools writes its build folders beside them."""
    copy = out / "source"
    ignored = [
        ".git",
        ".venv",
        "build",
        "dist",
        "*.egg-info",
        "tests",
        "__pycache__",
        ".*_cache",
        ".hypothesis",
    ]
    import shutil

    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*ignored))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    run = subprocess.run(
        [*command, "--wheel-dir", str(out), str(copy)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr


def _assert_imports(site: Path) -> None:
    """The unpacked wheel works without the checkout."""
    code = (
        "import sys\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        "import edgeq, edgeq.api, edgeq.cli.app, edgeq.targets.onnxruntime.target\n"
        f"assert edgeq.__file__.startswith({str(site)!r}), edgeq.__file__\n"
        f"assert edgeq.building.load.__code__.co_filename.startswith({str(site)!r})\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=site, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
