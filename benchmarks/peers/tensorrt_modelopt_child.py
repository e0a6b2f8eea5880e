"""NVIDIA Model Optimizer's ONNX PTQ in this process, which is one of its own virtual environment.

    /path/to/modelopt/bin/python benchmarks/peers/tensorrt_modelopt_child.py MODEL DATA.npz MODE METHOD OUTPUT

Prints one JSON line: wall seconds of quantizing (imports and loading of data excluded), peak memory above
what the process had then, and of the whole process.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from fresh import peak_mib


def main() -> None:
    """Quantize one model with its defaults for a CPU."""
    from modelopt.onnx.quantization import quantize

    model, data, mode, method, output = sys.argv[1:]
    calibration = dict(np.load(data))
    before, start = peak_mib(), time.perf_counter()
    quantize(
        model,
        quantize_mode=mode,
        calibration_data=calibration,
        calibration_method=method,
        calibration_eps=["cpu"],
        high_precision_dtype="fp16",
        log_level="ERROR",
        output_path=output,
    )
    seconds, peak = time.perf_counter() - start, peak_mib()
    print(json.dumps({"seconds": seconds, "peak_mib": peak - before, "process_mib": peak}))


if __name__ == "__main__":
    main()
