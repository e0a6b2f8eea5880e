"""One quantizer for TensorRT run in this process: edgeq, or ONNX Runtime as its BERT example does it.

    python benchmarks/peers/tensorrt_quantizers.py METHOD SET OUTPUT.onnx

Prints what ``quantizers.py`` prints. edgeq's file is the one that its engine is built from: loaded,
normalized, quantized, with the rest in FP16.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from labelled import LabelledSet
from quantizers import Method, main, onnxruntime


def _edgeq(recipe: dict[str, Any], data: LabelledSet, output: Path) -> Callable[[], None]:
    from edgeq.calibration.data import open_data
    from edgeq.compiler.load import load
    from edgeq.compiler.model import save
    from edgeq.compiler.normalize import normalize
    from edgeq.compiler.quantize.dispatch import Request, quantize
    from edgeq.compiler.recipe import Recipe
    from edgeq.progress import SilentProgress
    from edgeq.targets.registry import get_target
    from edgeq.targets.tensorrt.precision import cast_rest

    target, chosen = get_target("tensorrt"), Recipe(**recipe)

    def run() -> None:
        model = normalize(load(data.model)).model
        options = target.options({}, chosen)
        source = open_data(data.calibration, model.inputs)
        quantized = quantize(
            Request(model, target.capabilities(options), chosen, source, None, SilentProgress())
        )
        save(cast_rest(quantized.model, quantized.plan, options.precision)[0], output)

    return run


def _bert_example(prepared: Path) -> dict[str, Any]:
    """The options of ONNX Runtime's BERT example for TensorRT.

    https://github.com/microsoft/onnxruntime-inference-examples/tree/main/quantization/nlp/bert/trt
    Its graphs spell layer normalization as ReduceMean and so on; here it is one operator as well.
    """
    from onnxruntime.quantization import QuantType

    quantized = ["MatMul", "Add"]
    return {
        "op_types_to_quantize": quantized,
        "nodes_to_exclude": _adds_without_normalization(prepared),
        "activation_type": QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "extra_options": {
            "ActivationSymmetric": True,
            "AddQDQPairToWeight": True,
            "OpTypesToExcludeOutputQuantization": quantized,
            "DedicatedQDQPair": True,
            "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
        },
    }


def _adds_without_normalization(path: Path) -> list[str]:
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    normalized = {n.input[0] for n in nodes if n.op_type in ("ReduceMean", "LayerNormalization")}
    return [n.name for n in nodes if n.op_type == "Add" and n.output[0] not in normalized]


def _bert(method: str) -> Method:
    return lambda data, output: onnxruntime(method, data, output, choose=_bert_example)


METHODS: dict[str, Method] = {
    "edgeq": partial(_edgeq, {"scheme": "int8-static"}),
    "edgeq-fp16": partial(_edgeq, {"scheme": "fp16"}),
    "edgeq-int4-128": partial(_edgeq, {"scheme": "int4-weight", "block_size": 128}),
    "edgeq-int4-64": partial(_edgeq, {"scheme": "int4-weight", "block_size": 64}),
    "ort-bert-minmax": _bert("MinMax"),
    "ort-bert-percentile": _bert("Percentile"),
    "ort-bert-entropy": _bert("Entropy"),
}


if __name__ == "__main__":
    main(METHODS)
