"""Is INT8 faster than FP32 on this CPU, and do its INT8 kernels saturate? Measured, not read from a name."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeq.calibration.types import Array
from edgeq.targets.onnxruntime.session import open_session, session_options

# Below this ratio to FP32 INT8 is not worth its loss of accuracy.
_PAYS = 1.1
_CONV = (64, 28)  # channels, height and width of a 3x3 convolution in the middle of a CNN
_PRODUCT = (128, 512, 512)  # M, K, N of a transformer's layer
_SECONDS = 0.12


@dataclass(frozen=True)
class Probe:
    """``conv_speedup`` and ``matmul_speedup``: time in FP32 / time in INT8 of the same shape, one thread.

    ``saturates``: products of u8 activations and s8 weights overflow an int16 and are clipped.
    """

    conv_speedup: float
    matmul_speedup: float
    saturates: bool

    @property
    def pays(self) -> bool:
        """Whether INT8 is clearly faster for both."""
        return min(self.conv_speedup, self.matmul_speedup) >= _PAYS

    @property
    def sentence(self) -> str:
        """What a user should know before shipping INT8 to such a CPU."""
        speed = (
            f"INT8 against FP32 on this CPU, measured: convolution {self.conv_speedup:.1f}x, "
            f"matrix product {self.matmul_speedup:.1f}x."
        )
        if not self.pays:
            speed += " INT8 may be slower here."
        if self.saturates:
            speed += " Its INT8 kernels saturate (no VNNI or dot product): keep saturation-safe weights."
        return speed


def probe() -> Probe:
    """Time one convolution and one matrix product in FP32 and INT8, about half a second in all.

    Raises:
        TargetError: ONNX Runtime cannot run the probe's models.
    """
    rng = np.random.default_rng(0)
    return Probe(_speedup(*_conv_models(rng)), _speedup(*_matmul_models(rng)), saturates())


def saturates() -> bool:
    """Multiply 255 by 127 four times and add up: 129,540, less where pairs are clipped at 32,767."""
    codes = np.full((4, 4), 127, np.int8)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    model = _model([node], ("x", TensorProto.UINT8, [4, 4]), ("y", TensorProto.INT32, [4, 4]), {"w": codes})
    x = np.full((4, 4), 255, np.uint8)
    found = _session(model).run(None, {"x": x})[0]
    return bool((found != x.astype(np.int32) @ codes.astype(np.int32)).any())


def _conv_models(rng: np.random.Generator) -> tuple[bytes, bytes, Array, Array]:
    channels, side = _CONV
    shape = [1, channels, side, side]
    weights = rng.integers(-64, 64, (channels, channels, 3, 3), dtype=np.int8)
    pads: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    real = helper.make_node("Conv", ["x", "w"], ["y"], **pads)
    quantized = helper.make_node("QLinearConv", ["x", "s", "z", "w", "s", "o", "t", "z"], ["y"], **pads)
    x = rng.integers(0, 255, shape, dtype=np.uint8)
    return (*_pair(real, quantized, weights, shape, shape), x.astype(np.float32), x)


def _matmul_models(rng: np.random.Generator) -> tuple[bytes, bytes, Array, Array]:
    m, k, n = _PRODUCT
    weights = rng.integers(-64, 64, (k, n), dtype=np.int8)
    real = helper.make_node("MatMul", ["x", "w"], ["y"])
    quantized = helper.make_node("QLinearMatMul", ["x", "s", "z", "w", "s", "o", "t", "z"], ["y"])
    x = rng.integers(0, 255, (m, k), dtype=np.uint8)
    return (*_pair(real, quantized, weights, [m, k], [m, n]), x.astype(np.float32), x)


def _pair(
    real: onnx.NodeProto, quantized: onnx.NodeProto, weights: Array, shape: list[int], result: list[int]
) -> tuple[bytes, bytes]:
    floats = {"w": weights.astype(np.float32)}
    codes = {
        "w": weights,
        "s": np.array(0.01, np.float32),
        "t": np.array(10.0, np.float32),
        "z": np.array(128, np.uint8),
        "o": np.array(0, np.int8),
    }
    real_type, int8_type = TensorProto.FLOAT, TensorProto.UINT8
    return (
        _model([real], ("x", real_type, shape), ("y", real_type, result), floats),
        _model([quantized], ("x", int8_type, shape), ("y", int8_type, result), codes),
    )


def _model(
    nodes: list[onnx.NodeProto],
    given: tuple[str, int, list[int]],
    result: tuple[str, int, list[int]],
    constants: dict[str, Array],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info(*result)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


def _session(model: bytes) -> Any:
    return open_session(model, session_options(1), name="the probe")


def _speedup(real: bytes, quantized: bytes, x: Array, codes: Array) -> float:
    """Best time of each, alternating, so that a busy machine slows both."""
    runs = [(_session(real), x), (_session(quantized), codes)]
    best = [float("inf"), float("inf")]
    for session, array in runs:
        session.run(None, {"x": array})
    end = time.perf_counter() + 2 * _SECONDS
    while time.perf_counter() < end:
        for index, (session, array) in enumerate(runs):
            start = time.perf_counter()
            session.run(None, {"x": array})
            best[index] = min(best[index], time.perf_counter() - start)
    return best[0] / best[1]
