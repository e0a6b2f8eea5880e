"""Artefacts that several test files share: compiling one takes long."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from tests.support.neural_compressor import Artefact, Grid, Layers, build, grid_inputs, layers_inputs, seeded
from tests.support.shared import made_once

# Without them nothing of this target can be compiled.
MISSING = importlib.util.find_spec("neural_compressor") is None or shutil.which("g++") is None
collect_ignore_glob = ["test_*.py"] if MISSING else []


@pytest.fixture(scope="session")
def static(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """One layer of each kind in int8-static."""

    def make(folder: Path) -> None:
        build(seeded(Grid), grid_inputs(), "int8-static", folder)

    return Artefact.read(made_once(tmp_path_factory, "static", make))


@pytest.fixture(scope="session")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """Two fully connected layers in int8-dynamic."""

    def make(folder: Path) -> None:
        build(seeded(Layers), layers_inputs(), "int8-dynamic", folder)

    return Artefact.read(made_once(tmp_path_factory, "dynamic", make))


@pytest.fixture
def damaged(dynamic: Artefact, tmp_path: Path) -> Path:
    """A copy of an artefact, to be changed."""
    return Path(shutil.copytree(dynamic.folder, tmp_path / "damaged"))
