"""INT8 and INT4 for TensorRT: edgeq beside NVIDIA Model Optimizer's ONNX PTQ on a CPU, as a Markdown table.

    EDGEQ_DATA=../shared/data EDGEQ_MODELOPT=/path/to/modelopt/bin/python \\
        python benchmarks/peers/tensorrt_modelopt.py [--models vww,…] [--methods edgeq,…] [--json OUT.jsonl]

Model Optimizer has a virtual environment of its own (its dependencies are pinned otherwise than edgeq's):

    python -m venv /path/to/modelopt
    /path/to/modelopt/bin/pip install torch==2.13.0
    /path/to/modelopt/bin/pip install 'nvidia-modelopt[onnx]==0.47.0'

Both have the same calibration arrays and their defaults, with the rest of the model in FP16.
"""

from __future__ import annotations

from tensorrt_compare import main

INT8 = ("edgeq-fp16", "edgeq", "modelopt-int8-entropy", "modelopt-int8-max")
INT4 = ("edgeq-int4-128", "edgeq-int4-64", "modelopt-int4-awq_clip", "modelopt-int4-rtn_dq")
METHODS = {
    "squeezenet-ts11": INT8,
    "resnet20": INT8,
    "vww": INT8,
    "minilm-sst2": (*INT8, *INT4),
}

if __name__ == "__main__":
    main(__doc__, METHODS)
