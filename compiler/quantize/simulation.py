"""Sessions of ONNX Runtime that compute what a target would, while a model is being quantized."""

from __future__ import annotations

import onnxruntime as ort


def session_options(threads: int | None, *, in_float: bool) -> ort.SessionOptions:
    """Quiet sessions; ``in_float`` keeps the roundings of a QDQ graph as they are, with float ops between.

    Otherwise ONNX Runtime puts its integer kernels in their place, whose int16 sums saturate on some CPUs:
    right for artefacts that it runs itself, wrong for those of another runtime (measured on a CPU without
    VNNI: 24 to 40 dB from what symmetric s8 models compute).
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if in_float:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options
