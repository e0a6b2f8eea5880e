"""A fresh copy of the tiny model and its data for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cli import Workspace, make_workspace


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("model")).folder


@pytest.fixture
def work(_made: Path, tmp_path: Path) -> Workspace:
    """A folder of its own with model.onnx, data.npz and calib.npz."""
    shutil.copytree(_made, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path)
