"""Generated and quoted documentation says what the program does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from edgeq.benchmarks.budgets import parse_budget
from edgeq.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("generate_cli.py", "cli.md"),
        ("generate_coreml_ops.py", "coreml-ops.md"),
        ("generate_tensorrt_lint.py", "tensorrt-lint.md"),
    ],
)
def test_generated_pages_are_up_to_date(script: str, name: str) -> None:
    spec = importlib.util.spec_from_file_location(script.removesuffix(".py"), ROOT / "docs" / script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == module.page(), "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quoted_budgets_are_budgets(page: Path) -> None:
    for text in re.findall(r"--budget (?:\"([^\"]+)\"|'([^']+)')", page.read_text(encoding="utf-8")):
        parse_budget("".join(text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_quoted_configurations_are_valid(page: Path, tmp_path: Path) -> None:
    for text in re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        if "[[targets]]" in text:
            (tmp_path / "edgeq.toml").write_text(text, encoding="utf-8")
            load_config(tmp_path / "edgeq.toml")


def test_the_demo_configuration_is_valid() -> None:
    config = load_config(ROOT / "examples" / "digits" / "edgeq.toml")
    assert [(entry.target, entry.name) for entry in config.targets] == [
        ("onnxruntime", "int8-static"),
        ("onnxruntime", "int8-dynamic"),
        ("onnxruntime", "int4-weight"),
        ("coreml", "fp16"),
        ("coreml", "ane-w8a8"),
        ("coreml", "ane-pal4"),
        ("tensorrt", "rtx-fp16"),
        ("tensorrt", "rtx-int8"),
        ("openvino", "ov-int8"),
        ("neural-compressor", "inc-int8"),
    ]
