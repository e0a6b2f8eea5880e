"""A BERT-like encoder in INT8 for TensorRT: edgeq beside ONNX Runtime's own example, as a Markdown table.

    EDGEQ_DATA=../shared/data python benchmarks/peers/tensorrt_bert.py [--methods edgeq,…] [--json OUT.jsonl]

The example (https://github.com/microsoft/onnxruntime-inference-examples, quantization/nlp/bert/trt) loses
6 % of F1 with BERT base on SQuAD (88.26 to 82.99). Here its recipe quantizes MiniLM, with each of the range
methods that it names, on the same calibration sentences as edgeq.
"""

from __future__ import annotations

from tensorrt_compare import main

METHODS = {
    "minilm-sst2": ("edgeq-fp16", "edgeq", "ort-bert-percentile", "ort-bert-minmax", "ort-bert-entropy"),
}

if __name__ == "__main__":
    main(__doc__, METHODS)
