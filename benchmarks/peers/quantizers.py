"""One quantizer run in this process: INT8 static by edgeq or by a peer, with its defaults.

    python benchmarks/peers/quantizers.py METHOD SET OUTPUT.onnx

Prints one JSON line: wall seconds of quantizing (imports and loading of data excluded), peak memory above
what the process had then, and of the whole process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fresh import peak_mib
from labelled import SETS, LabelledSet

# ONNX Runtime's histogram calibrators keep every activation: chunks keep 24 GB machines alive.
CHUNK = 32
Method = Callable[[LabelledSet, Path], Callable[[], None]]
Choose = Callable[[Path], dict[str, Any]]


def u8_s8(_prepared: Path) -> dict[str, Any]:
    """Options of ``quantize_static`` for x86 CPUs, which are its defaults."""
    from onnxruntime.quantization import QuantType

    return {
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "extra_options": {"CalibMaxIntermediateOutputs": CHUNK},
    }


def _samples(data: LabelledSet) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    count = len(next(iter(data.calibration.values())))
    for index in range(count):
        yield {name: values[index : index + 1] for name, values in data.calibration.items()}


def onnxruntime(
    method: str, data: LabelledSet, output: Path, *, choose: Choose = u8_s8
) -> Callable[[], None]:
    """``quantize_static`` after ``quant_pre_process``; ``choose`` gives the options for the prepared file."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = _samples(data)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.samples, None)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            prepared = Path(folder) / "prepared.onnx"
            upgraded = _at_least_opset_13(data.model, Path(folder))
            # Its symbolic shape inference gives up on the transformer.
            skip = data.name.startswith("minilm")
            quant_pre_process(str(upgraded), str(prepared), skip_symbolic_shape=skip)
            quantize_static(
                str(prepared),
                str(output),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                calibrate_method=getattr(CalibrationMethod, method),
                **choose(prepared),
            )

    return run


def _at_least_opset_13(path: Path, folder: Path) -> Path:
    """ONNX Runtime's quantizer writes invalid per-channel models below opset 13."""
    import onnx
    from onnx import version_converter

    model = onnx.load(path)
    if model.opset_import[0].version >= 13:
        return path.resolve()
    upgraded = folder / "upgraded.onnx"
    onnx.save(version_converter.convert_version(model, 13), upgraded)
    return upgraded


def _nncf(full: bool, data: LabelledSet, output: Path) -> Callable[[], None]:
    import nncf
    import onnx

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            model = onnx.load(_at_least_opset_13(data.model, Path(folder)))
        extra = {"model_type": nncf.ModelType.TRANSFORMER} if data.name.startswith("minilm") else {}
        samples = list(_samples(data))
        quantized = nncf.quantize(
            model,
            nncf.Dataset(samples),
            subset_size=len(samples),
            fast_bias_correction=not full,
            **extra,
        )
        onnx.save(quantized, output)

    return run


def _nncf_openvino(data: LabelledSet, output: Path) -> Callable[[], None]:
    """Full bias correction on OpenVINO's IR: NNCF's ONNX backend raises on most of these models."""
    import nncf
    import openvino

    def run() -> None:
        model = openvino.convert_model(data.model)
        extra = {"model_type": nncf.ModelType.TRANSFORMER} if data.name.startswith("minilm") else {}
        samples = list(_samples(data))
        quantized = nncf.quantize(
            model, nncf.Dataset(samples), subset_size=len(samples), fast_bias_correction=False, **extra
        )
        openvino.save_model(quantized, output.with_suffix(".xml"), compress_to_fp16=False)

    return run


def _edgeq(data: LabelledSet, output: Path) -> Callable[[], None]:
    import edgeq

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            result = edgeq.compile(
                data.model,
                scheme="int8-static",
                calibration=data.calibration,
                output=Path(folder) / "out",
                bench=None,
            )
            shutil.copy(result.folder / "model.onnx", output)

    return run


METHODS: dict[str, Method] = {
    "edgeq": _edgeq,
    "ort-minmax": lambda data, output: onnxruntime("MinMax", data, output),
    "ort-percentile": lambda data, output: onnxruntime("Percentile", data, output),
    "ort-entropy": lambda data, output: onnxruntime("Entropy", data, output),
    "nncf": lambda data, output: _nncf(False, data, output),
    "nncf-full": lambda data, output: _nncf(True, data, output),
    "nncf-full-openvino": _nncf_openvino,
}


def main(methods: Mapping[str, Method] = METHODS) -> None:
    """Run one quantizer on one labelled set."""
    method, name, output = sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve()
    logging.disable(logging.WARNING)
    data = SETS[name]()
    run = methods[method](data, output)
    before = peak_mib()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    peak = peak_mib()
    print(json.dumps({"seconds": seconds, "peak_mib": peak - before, "process_mib": peak}))


if __name__ == "__main__":
    main()
