"""The layers of an engine as TensorRT's ``IEngineInspector`` writes them in JSON.

Format: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-tools.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.layers.metadata import node_names
from edgeq.targets.tensorrt.layers.table import Layer, LayerTable, LayerTensor

# Words of a format description ("Thirty-two wide channel vectorized row major Int8 format") → its type.
_DTYPES: Mapping[str, str] = {
    "int8": "Int8", "uint8": "UInt8", "int4": "Int4", "int32": "Int32", "int64": "Int64", "bool": "Bool",
    "fp8": "FP8", "fp4": "FP4E2M1", "fp16": "Half", "half": "Half", "fp32": "Float", "float": "Float",
    "bf16": "BFloat16", "bfloat16": "BFloat16",
}  # fmt: skip
# Parameters of a layer that hold its weights: {"Type": "Int8", "Count": 131072}.
_WEIGHTS = ("Weights", "Bias")


def parse_inspector(text: str, sm: int) -> LayerTable:
    """The layers of ``text``, the inspector's answer about a whole engine.

    Raises:
        TargetError: it is no such JSON, or holds names only because the engine was built without details.
    """
    try:
        layers = json.loads(text)["Layers"]
        return LayerTable(sm=sm, layers=tuple(_layer(layer) for layer in layers))
    except (ValueError, TypeError, KeyError) as error:
        raise TargetError(
            f"TensorRT's engine inspector wrote what cannot be read ({type(error).__name__}: {error}).",
            fix="Report it together with the version of TensorRT; without the table nothing can be proved.",
        ) from error


def _layer(fields: Any) -> Layer:
    if isinstance(fields, str):
        raise TargetError(
            f"The engine knows only the names of its layers, {fields!r} and others.",
            fix="Build it with the profiling verbosity DETAILED.",
        )
    weights = [_weights(key, fields[key]) for key in _WEIGHTS if isinstance(fields.get(key), dict)]
    return Layer(
        name=fields["Name"],
        kind=fields["LayerType"],
        inputs=_tensors(fields["Inputs"]),
        constants=(*_tensors(fields.get("Constants", [])), *weights),
        outputs=_tensors(fields["Outputs"]),
        nodes=node_names(fields.get("Metadata", "")),
        tactic=fields.get("TacticName", ""),
    )


def _tensors(tensors: list[dict[str, Any]]) -> tuple[LayerTensor, ...]:
    return tuple(
        LayerTensor(name=t["Name"], dtype=_dtype(t), shape=tuple(int(size) for size in t["Dimensions"]))
        for t in tensors
    )


def _dtype(tensor: Mapping[str, Any]) -> str:
    described = tensor.get("Datatype") or tensor["Format/Datatype"]
    words = re.findall(r"[A-Za-z]+\d*", described)
    found = [_DTYPES[word.lower()] for word in words if word.lower() in _DTYPES]
    return found[0] if found else str(described)


def _weights(key: str, fields: Mapping[str, Any]) -> LayerTensor:
    return LayerTensor(name=key, dtype=_dtype({"Datatype": fields["Type"]}), shape=(int(fields["Count"]),))
