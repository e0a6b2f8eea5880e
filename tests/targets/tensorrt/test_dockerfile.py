from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import pytest

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend import choose
from edgeq.targets.tensorrt.options import TensorRTOptions

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "Dockerfile.trt"
TEXT = DOCKERFILE.read_text(encoding="utf-8")
# Continued lines put together, comments left out.
LINES = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
DOCS = ROOT / "docs" / "tensorrt.md"


def instructions(name: str) -> list[str]:
    return [line.partition(" ")[2] for line in LINES if line.startswith(f"{name} ")]


def final_stage() -> list[str]:
    last = max(i for i, line in enumerate(LINES) if line.startswith("FROM "))
    return [line for line in LINES[last + 1 :] if line]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_hadolint_has_no_complaint() -> None:
    ended = subprocess.run([str(HADOLINT), DOCKERFILE], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_the_tag_is_an_argument_with_a_fixed_default() -> None:
    (tag,) = [arg for arg in instructions("ARG") if "=" in arg]
    assert re.fullmatch(r"TENSORRT_TAG=\d\d\.\d\d-py3", tag)
    bases = instructions("FROM")
    assert len(bases) == 2
    assert all(base.split()[0] == "nvcr.io/nvidia/tensorrt:${TENSORRT_TAG}" for base in bases)
    assert "latest" not in TEXT


def test_both_tags_are_documented_with_their_version() -> None:
    page = DOCS.read_text(encoding="utf-8")
    default = re.search(r"^ARG TENSORRT_TAG=(\S+)", TEXT, re.MULTILINE)
    assert default is not None
    rows = dict(re.findall(r"^\| `(\d\d\.\d\d-py3)`[^|]*\| (\d+)\.", page, re.MULTILINE))
    assert rows[default[1]] == "10"
    assert set(rows.values()) == {"10", "11"}
    assert set(re.findall(r"\d\d\.\d\d-py3", TEXT)) == set(rows)


def test_nothing_is_installed_or_built_in_the_final_stage() -> None:
    for line in final_stage():
        assert not re.search(r"\b(pip|apt|apt-get|curl|wget|make|gcc)\b", line), line
    copies = [line for line in final_stage() if line.startswith("COPY")]
    assert copies == ["COPY --from=build /opt/edgeq /opt/edgeq"]


def test_it_runs_edgeq_as_a_user_that_is_not_root() -> None:
    stage = final_stage()
    (user,) = [line for line in stage if line.startswith("USER")]
    assert int(user.split()[1]) > 0
    assert stage[-1] == 'ENTRYPOINT ["edgeq"]'
    assert stage.index(user) > max(i for i, line in enumerate(stage) if line.startswith("RUN"))


def test_pip_installs_the_extra_pinned_and_keeps_no_cache() -> None:
    (run,) = [line for line in instructions("RUN") if "pip" in line]
    assert "--no-cache-dir" in run
    assert "--constraint /source/constraints.txt" in run
    assert '"/source[tensorrt]"' in run
    # The image has TensorRT itself: the extra brings what is missing beside it, and no other TensorRT.
    (needed,) = PROJECT["project"]["optional-dependencies"]["tensorrt"]
    assert needed.startswith("cuda-bindings")


@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_a_container_without_its_gpu_is_told_what_to_do(
    backend: Literal["auto", "tensorrt"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "importable", lambda name: name == "tensorrt")
    monkeypatch.setattr(choose, "_own_sm", lambda: None)
    with pytest.raises(TargetError) as refused:
        choose.choose(TensorRTOptions(backend=backend))
    message = f"error: {refused.value.what}\nfix:   {refused.value.fix}"
    assert " ".join(message.split()) in " ".join(DOCS.read_text(encoding="utf-8").split())


def _sent(path: str) -> bool:
    """Whether the build context holds a file, by the kinds of rules in .dockerignore: the last one wins."""
    sent = True
    for rule in (ROOT / ".dockerignore").read_text().splitlines():
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        prefixes = {"/".join(parts[: i + 1]) for i in range(len(parts))}
        names = set(parts) if "**/" in rule else prefixes
        if any(fnmatch(name, pattern) for name in names):
            sent = rule.startswith("!")
    return sent


def test_the_build_context_holds_what_is_installed_and_no_more() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    sent = {path for path in tracked.stdout.splitlines() if _sent(path)}
    folders = {"benchmarks", "calibration", "compiler", "src", "targets"}
    assert {path.split("/")[0] for path in sent} - folders == {
        "LICENSE", "README.md", "constraints.txt", "pyproject.toml"
    }  # fmt: skip
    for name in PROJECT["tool"]["setuptools"]["package-dir"].values():
        assert any(path.startswith(f"{name}/") for path in sent), name
    assert not any(path.startswith("benchmarks/peers/") for path in sent)
    assert not _sent(".venv/bin/python")
    assert not _sent("src/edgeq/__pycache__/x.pyc")
    assert not _sent(".git/config")
