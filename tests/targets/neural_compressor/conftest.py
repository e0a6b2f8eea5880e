"""Artefacts that several test files share: compiling one takes long."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from edgeq.result import CompileResult
from tests.support.neural_compressor import Grid, Layers, build, grid_inputs, layers_inputs, seeded

# Without them nothing of this target can be compiled.
MISSING = importlib.util.find_spec("neural_compressor") is None or shutil.which("g++") is None
collect_ignore_glob = ["test_*.py"] if MISSING else []


@pytest.fixture(scope="session")
def static(tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    """One layer of each kind in int8-static."""
    return build(seeded(Grid), grid_inputs(), "int8-static", tmp_path_factory.mktemp("static"))


@pytest.fixture(scope="session")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    """Two fully connected layers in int8-dynamic."""
    return build(seeded(Layers), layers_inputs(), "int8-dynamic", tmp_path_factory.mktemp("dynamic"))


@pytest.fixture
def damaged(dynamic: CompileResult, tmp_path: Path) -> Path:
    """A copy of an artefact, to be changed."""
    return Path(shutil.copytree(dynamic.folder, tmp_path / "damaged"))
