"""The quantized layers of an artefact's graph, read back from its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgeq.calibration.types import Array
from edgeq.compiler.quantize.blocks import unpack
from edgeq.compiler.weights.spec import Floats, QuantizedWeight, WeightSpec
from edgeq.errors import ModelError
from edgeq.targets.onnxruntime_genai.files import MODEL_FILE


class StoredGraph:
    """The graph in ``folder``; its weights stay in the file until they are asked for."""

    def __init__(self, folder: Path, file: str = MODEL_FILE) -> None:
        """Read the graph.

        Raises:
            ModelError: it is missing or damaged.
        """
        self._path = folder / file
        try:
            self.model = ir.load(self._path)
        except Exception as error:  # protobuf's and onnx_ir's own exceptions
            raise self._damaged(str(error)) from error
        self._products = {node.name or "": node for node in self.model.graph if node.op_type == "MatMulNBits"}

    @property
    def layers(self) -> list[str]:
        """The quantized layers, in the order of the graph."""
        return list(self._products)

    def weight(self, layer: str) -> QuantizedWeight:
        """Codes, scales and zero points of a quantized layer.

        Raises:
            ModelError: the graph has no such layer, or its tensors are damaged.
        """
        node = self._products.get(layer)
        if node is None:
            raise self._damaged(f"it has no MatMulNBits {layer!r}")
        bits, group = node.attributes.get_int("bits", 4), node.attributes.get_int("block_size", 0)
        inputs = node.attributes.get_int("K", 0)
        try:
            codes = self._array(node.inputs[1])
            scales = self._array(node.inputs[2]).astype(np.float32)
            zeros = self._array(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else None
            outputs, blocks, _ = codes.shape
            spec = WeightSpec(bits, group, zeros is None)
            return QuantizedWeight(
                spec,
                unpack(codes, bits, group).reshape(outputs, -1)[:, :inputs],
                scales,
                None if zeros is None else unpack(zeros, bits, blocks),
            )
        except (OSError, ValueError, IndexError, AttributeError) as error:
            raise self._damaged(f"{layer}: {error}") from error

    def values(self, layer: str) -> Floats:
        """float32 [N, K] of a quantized layer; raises ModelError."""
        return self.weight(layer).dequantize()

    def set_accuracy_level(self, level: int) -> None:
        """Let all products of quantized weights round activations (4) or not (0)."""
        for node in self._products.values():
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", level)

    def _array(self, value: ir.Value | None) -> Array:
        """An initializer, behind the Cast that makes it float32."""
        producer = None if value is None else value.producer()
        if producer is not None:
            value = producer.inputs[0]
        if value is None or value.const_value is None:
            raise self._damaged("a weight is no constant")
        return value.const_value.numpy()

    def _damaged(self, why: str) -> ModelError:
        return ModelError(f"{self._path} cannot be read: {why}.", fix="Compile the model again.")
