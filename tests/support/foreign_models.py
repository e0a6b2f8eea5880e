"""The tiny model of the command-line tests, quantized by ONNX Runtime's own tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

_INT8: dict[str, Any] = {
    "activation_type": QuantType.QInt8,
    "weight_type": QuantType.QInt8,
    "per_channel": True,
    "op_types_to_quantize": ["Conv", "Gemm"],
}
_SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}

# Name → arguments of quantize_static.
STATIC: dict[str, dict[str, Any]] = {
    "default": {},
    "operators": {"quant_format": QuantFormat.QOperator},
    "asymmetric": {**_INT8},
    "integer-bias": {**_INT8, "extra_options": _SYMMETRIC},
    "symmetric": {**_INT8, "extra_options": {**_SYMMETRIC, "QuantizeBias": False}},
    "int16": {**_INT8, "activation_type": QuantType.QInt16, "extra_options": _SYMMETRIC},
}


class _Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._samples = iter([{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(4)])

    def get_next(self) -> Any:
        return next(self._samples, None)


def quantize_foreign(model: Path) -> dict[str, Path]:
    """Write each form beside ``model``: those of :data:`STATIC`, and ``dynamic``."""
    paths = {name: model.with_name(f"{name}.onnx") for name in (*STATIC, "dynamic")}
    for name, arguments in STATIC.items():
        quantize_static(model, paths[name], _Calibration(), **arguments)
    quantize_dynamic(model, paths["dynamic"])
    return paths
