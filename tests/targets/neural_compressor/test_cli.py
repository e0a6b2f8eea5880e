"""The target through the real command: compile, verify, and two builds of one model."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeq.manifest import Manifest
from edgeq.targets.neural_compressor.files import MODEL, NODES
from tests.support.cli import Workspace
from tests.support.neural_compressor import Artefact, layers_inputs

FACTORY = """\
import torch
from tests.support.neural_compressor import Layers, layers_inputs, seeded


def layers():
    return seeded(Layers), (torch.from_numpy(layers_inputs()["x"][:2]),)
"""
PLACE = "out-neural-compressor"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The two layers in int8-dynamic, measured."""
    workspace = Workspace(tmp_path_factory.mktemp("cli"))
    workspace.write("factory.py", FACTORY)
    np.savez(workspace.folder / "data.npz", **layers_inputs(32))
    ended = workspace.edgeq(
        "compile", "factory:layers", "--target", "neural-compressor", "--scheme", "int8-dynamic",
        "--evaluation", "data.npz", "--output", "out", "--threads", "1", "--strict", "--quick",
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "warning" not in ended.stderr.lower()
    return workspace


def test_the_artefact_is_measured_and_proved(compiled: Workspace) -> None:
    manifest = Manifest.read(compiled.folder / PLACE)
    assert [node.actual for node in manifest.nodes if node.op_type == "linear"] == ["int8", "int8"]
    assert {check.name for check in manifest.checks} >= {"int8 numbers", "int8 kernels", "fresh process"}
    assert all(check.passed for check in manifest.checks)
    assert {"size", "latency_p50", "load_time"} <= {one.metric for one in manifest.measured.measurements}


def test_two_builds_give_the_same_bytes(compiled: Workspace, dynamic: Artefact) -> None:
    for name in (MODEL, NODES):
        assert (compiled.folder / PLACE / name).read_bytes() == (dynamic.folder / name).read_bytes(), name


def test_the_package_holds_no_paths_and_no_sources(dynamic: Artefact) -> None:
    data = (dynamic.folder / MODEL).read_bytes()
    for text in (b"edgeq-aot", b"site-packages", bytes(ROOT)):
        assert text not in data, text
    with zipfile.ZipFile(dynamic.folder / MODEL) as archive:
        assert [name for name in archive.namelist() if name.endswith((".cpp", ".S", ".o"))] == []


def test_nothing_is_left_behind(compiled: Workspace) -> None:
    assert compiled.leftovers() == []
    assert {path.name for path in compiled.folder.iterdir()} <= {
        "factory.py",
        "data.npz",
        PLACE,
        "__pycache__",
    }


def test_verify_proves_it_again_and_finds_what_was_changed(compiled: Workspace) -> None:
    ended = compiled.edgeq("verify", PLACE, env={"PYTHONPATH": str(ROOT)})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    nodes = compiled.folder / PLACE / NODES
    before = nodes.read_text(encoding="utf-8")
    found = json.loads(before)
    nodes.write_text(json.dumps(found | {"layers": 3}), encoding="utf-8")
    ended = compiled.edgeq("verify", PLACE, env={"PYTHONPATH": str(ROOT)})
    nodes.write_text(before, encoding="utf-8")
    assert ended.returncode != 0
