"""Two builds of one model give one engine, wherever it lies."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeq.targets.tensorrt.backend.build import build_engine
from tests.support.tensorrt import needs_rtx, request, sizes, stored

_ADDR_NO_RANDOMIZE = 0x0040000


def _addresses_can_be_fixed() -> bool:
    """Whether the system lets a process choose; asked in a child, so that this one stays as it is."""
    code = f"import ctypes; raise SystemExit(ctypes.CDLL(None).personality({_ADDR_NO_RANDOMIZE}) < 0)"
    return sys.platform == "linux" and subprocess.run([sys.executable, "-c", code]).returncode == 0


def _quantized_net() -> onnx.ModelProto:
    """INT8 convolutions of a dynamic batch: without fixed addresses, any two builds of it differ."""
    rng = np.random.default_rng(0)
    nodes, value, channels = [], "x", 4
    weights = [numpy_helper.from_array(np.array([-1, 128]), "shape")]

    def constant(name: str, array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    for i, (width, stride) in enumerate([(32, 1), (32, 1), (64, 2), (64, 1), (128, 2)]):
        rounding = [constant(f"scale{i}", np.float32(0.05)), constant(f"zero{i}", np.int8(0))]
        kernel = rng.integers(-127, 127, (width, channels, 3, 3)).astype(np.int8)
        stored_as = [constant(f"w{i}", kernel), constant(f"ws{i}", np.full(width, 0.01, np.float32))]
        nodes += [
            helper.make_node("QuantizeLinear", [value, *rounding], [f"q{i}"], name=f"q{i}"),
            helper.make_node("DequantizeLinear", [f"q{i}", *rounding], [f"d{i}"], name=f"d{i}"),
            helper.make_node("DequantizeLinear", stored_as, [f"wd{i}"], name=f"wd{i}", axis=0),
            helper.make_node(
                "Conv", [f"d{i}", f"wd{i}"], [f"c{i}"], name=f"c{i}", pads=[1] * 4, strides=[stride] * 2
            ),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"r{i}"),
        ]
        value, channels = f"r{i}", width
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["mean"], name="mean"))
    nodes.append(helper.make_node("Reshape", ["mean", "shape"], ["y"], name="flat"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 128])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def _engine(folder: Path) -> str:
    """The digest of an engine built in ``folder``."""
    folder.mkdir()
    path = stored(_quantized_net(), folder / "model.onnx")
    profile = {"x": sizes((1, 4, 16, 16), (1, 4, 16, 16), (8, 4, 16, 16))}
    build_engine(request(path, engine=folder / "model.engine", profiles=(profile,)))
    return hashlib.sha256((folder / "model.engine").read_bytes()).hexdigest()


@needs_rtx
def test_folder_process_and_environment_leave_no_trace_in_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not _addresses_can_be_fixed():
        pytest.skip("the system does not let a process fix its addresses")
    first = _engine(tmp_path / "a")
    assert _engine(tmp_path / "a-much-longer-name-of-a-folder") == first
    # Python keeps both in its heap, which comes before the compiler's: variables, and lists of files.
    monkeypatch.setenv("EDGEQ_TEST", "x" * 3000)
    many = tmp_path / "many"
    many.mkdir()
    for i in range(200):
        (many / f"file{i}.txt").touch()
    monkeypatch.syspath_prepend(many)
    assert _engine(tmp_path / "b") == first


def test_this_process_keeps_its_own_addresses() -> None:
    """Importing the module changes nothing; only the worker starts over."""
    if sys.platform != "linux":
        pytest.skip("Linux only")
    before = ctypes.CDLL(None).personality(0xFFFFFFFF)
    import edgeq.targets.tensorrt.backend.addresses  # noqa: F401

    assert ctypes.CDLL(None).personality(0xFFFFFFFF) == before
