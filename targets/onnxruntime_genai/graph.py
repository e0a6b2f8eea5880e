"""The ONNX graph of a decoder: attention with a key-value cache, weights in blocks, logits of every token.

Inputs, outputs and kernels are those that onnxruntime-genai's own builder writes for CPUs: MatMulNBits,
SkipSimplifiedLayerNormalization, and GroupQueryAttention, which rotates queries and keys itself. Nodes are
named after the layers of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from edgeq.errors import TargetError
from edgeq.targets.onnxruntime_genai.architecture import DecoderSpec
from edgeq.targets.onnxruntime_genai.tensors import StoredTensors

_MICROSOFT = "com.microsoft"
_OPSETS = {"": 21, _MICROSOFT: 1}
_FLOAT, _INT32, _INT64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64
_Shape: TypeAlias = "Sequence[int | str]"
PAST, PRESENT = "past_key_values.{}.{}", "present.{}.{}"


def decoder_model(decoder: DecoderSpec, tensors: StoredTensors) -> ir.Model:
    """The graph, whose initializers are read when it is saved; products have the accuracy level 0.

    Raises:
        TargetError: the checkpoint has tensors that the architecture does not explain.
        ModelError: it lacks some.
    """
    writer = _Writer(decoder, tensors)
    writer.write()
    unused = tensors.unused()
    if unused:
        raise TargetError(
            f"The graph of {decoder.family.kind} models has no place for the tensor {unused[0]!r}.",
            fix="Choose another format: gguf, hf-gptq, hf-awq or vllm.",
        )
    return ir.Model(writer.graph, ir_version=10, producer_name="edgeq")


@dataclass
class _Attention:
    """Values that all layers share."""

    lengths: ir.Value
    total: ir.Value
    cosines: ir.Value
    sines: ir.Value


@dataclass
class _Writer:
    decoder: DecoderSpec
    tensors: StoredTensors
    graph: ir.Graph = field(init=False)

    def __post_init__(self) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports=_OPSETS, name="decoder")

    def write(self) -> None:
        decoder = self.decoder
        ids = self._input("input_ids", _INT64, ["batch_size", "sequence_length"])
        mask = self._input("attention_mask", _INT64, ["batch_size", "total_sequence_length"])
        past = [self._past(layer) for layer in range(decoder.layers)]
        shared = self._shared(mask)
        residual, x = self._embedding(ids), None
        present: list[ir.Value] = []
        for number in range(decoder.layers):
            name = f"model.layers.{number}"
            residual, normed = self._norm(residual, x, f"{name}.input_layernorm")
            attended, *cache = self._attention(normed, number, past[number], shared)
            present += cache
            residual, normed = self._norm(residual, attended, f"{name}.post_attention_layernorm")
            x = self._mlp(normed, f"{name}.mlp")
        _, normed = self._norm(residual, x, "model.norm")
        logits = self._head(normed)
        logits.name = "logits"
        _typed(logits, _FLOAT, ["batch_size", "sequence_length", decoder.vocabulary])
        self.graph.outputs.extend([logits, *present])

    def _past(self, layer: int) -> tuple[ir.Value, ir.Value]:
        decoder = self.decoder
        shape: _Shape = ["batch_size", decoder.kv_heads, "past_sequence_length", decoder.head_size]
        key, value = (self._input(PAST.format(layer, part), _FLOAT, shape) for part in ("key", "value"))
        return key, value

    def _shared(self, mask: ir.Value) -> _Attention:
        """GroupQueryAttention wants the number of tokens in each row less 1, and the length of the rows."""
        one = self._constant("one", np.array([1], np.int64))
        count = self._node("ReduceSum", [mask, one], "attention_mask.tokens", keepdims=0)
        last = self._node("Sub", [count, one], "attention_mask.last")
        lengths = self._node("Cast", [last], "attention_mask.lengths", to=_INT32)
        shape = self._node("Shape", [mask], "attention_mask.shape")
        index = self._constant("index", np.array(1, np.int64))
        total = self._node("Gather", [shape, index], "attention_mask.total", axis=0)
        total = self._node("Cast", [total], "attention_mask.total_int32", to=_INT32)
        cosines = self._constant("rotary.cosines", self.decoder.cosines)
        sines = self._constant("rotary.sines", self.decoder.sines)
        return _Attention(lengths, total, cosines, sines)

    def _embedding(self, ids: ir.Value) -> ir.Value:
        table = self._initializer(self.tensors.matrix("model.embed_tokens.weight", transposed=False))
        rows = self._floating(
            self._node("Gather", [table, ids], "model.embed_tokens"), table, "model.embed_tokens"
        )
        if self.decoder.embedding_scale == 1.0:
            return rows
        scale = self._constant("embedding_scale", np.array(self.decoder.embedding_scale, np.float32))
        return self._node("Mul", [rows, scale], "model.embed_tokens.scaled")

    def _norm(self, residual: ir.Value, x: ir.Value | None, name: str) -> tuple[ir.Value, ir.Value]:
        """The sum of both, which is the next residual, and its norm."""
        decoder = self.decoder
        weight = self._initializer(self.tensors.vector(f"{name}.weight", decoder.family.norm_offset))
        if x is None:
            normed = self._node(
                "SimplifiedLayerNormalization",
                [residual, weight],
                name,
                axis=-1,
                epsilon=decoder.epsilon,
                stash_type=1,
            )
            return residual, normed
        normed, _, _, total = self._nodes(
            "SkipSimplifiedLayerNormalization",
            [residual, x, weight],
            name,
            4,
            domain=_MICROSOFT,
            epsilon=decoder.epsilon,
        )
        return total, normed

    def _attention(
        self, x: ir.Value, number: int, past: tuple[ir.Value, ir.Value], shared: _Attention
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        decoder, name = self.decoder, f"model.layers.{number}.self_attn"
        query, key, value = (self._linear(x, f"{name}.{part}_proj") for part in "qkv")
        if self.tensors.has(f"{name}.q_norm.weight"):
            query = self._head_norm(query, f"{name}.q_norm", decoder.heads)
            key = self._head_norm(key, f"{name}.k_norm", decoder.kv_heads)
        window = decoder.windows[number]
        attended, *present = self._nodes(
            "GroupQueryAttention",
            [query, key, value, *past, shared.lengths, shared.total, shared.cosines, shared.sines],
            name,
            3,
            domain=_MICROSOFT,
            num_heads=decoder.heads,
            kv_num_heads=decoder.kv_heads,
            scale=decoder.head_size**-0.5,
            do_rotary=1,
            rotary_interleaved=0,
            local_window_size=window,
        )
        for part, cache in zip(("key", "value"), present, strict=True):
            cache.name = PRESENT.format(number, part)
            shape: _Shape = ["batch_size", decoder.kv_heads, "total_sequence_length", decoder.head_size]
            _typed(cache, _FLOAT, shape)
        return self._linear(attended, f"{name}.o_proj"), present[0], present[1]

    def _head_norm(self, x: ir.Value, name: str, heads: int) -> ir.Value:
        """A norm of each head by itself (Qwen3)."""
        decoder = self.decoder
        weight = self._initializer(self.tensors.vector(f"{name}.weight", decoder.family.norm_offset))
        apart = self._constant(f"{name}.apart", np.array([0, -1, decoder.head_size], np.int64))
        together = self._constant(f"{name}.together", np.array([0, -1, heads * decoder.head_size], np.int64))
        single = self._node("Reshape", [x, apart], f"{name}.heads")
        normed = self._node(
            "SimplifiedLayerNormalization",
            [single, weight],
            name,
            axis=-1,
            epsilon=decoder.epsilon,
            stash_type=1,
        )
        return self._node("Reshape", [normed, together], f"{name}.rows")

    def _mlp(self, x: ir.Value, name: str) -> ir.Value:
        gate = self._linear(x, f"{name}.gate_proj")
        up = self._linear(x, f"{name}.up_proj")
        product = self._node("Mul", [self._activated(gate, name), up], f"{name}.product")
        return self._linear(product, f"{name}.down_proj")

    def _activated(self, x: ir.Value, name: str) -> ir.Value:
        if self.decoder.activation == "silu":
            sigmoid = self._node("Sigmoid", [x], f"{name}.sigmoid")
            return self._node("Mul", [x, sigmoid], f"{name}.act_fn")
        approximate = "tanh" if self.decoder.activation == "gelu_tanh" else "none"
        return self._node("Gelu", [x], f"{name}.act_fn", approximate=approximate)

    def _head(self, x: ir.Value) -> ir.Value:
        if self.tensors.has("lm_head.weight") or not self.decoder.tied:
            return self._linear(x, "lm_head")
        table = self.graph.initializers["model.embed_tokens.weight"]
        weight = self._node("Transpose", [table], "lm_head.transposed", perm=[1, 0])
        return self._node("MatMul", [x, self._floating(weight, table, "lm_head")], "lm_head")

    def _linear(self, x: ir.Value, name: str) -> ir.Value:
        biased = self.tensors.has(f"{name}.bias")
        bias = self._initializer(self.tensors.vector(f"{name}.bias")) if biased else None
        if self.tensors.store.spec(name) is not None:
            return self._blocked(x, name, bias)
        weight = self._initializer(self.tensors.matrix(f"{name}.weight", transposed=True))
        product = self._node("MatMul", [x, self._floating(weight, weight, name)], name)
        return product if bias is None else self._node("Add", [product, bias], f"{name}.biased")

    def _blocked(self, x: ir.Value, name: str, bias: ir.Value | None) -> ir.Value:
        spec = self.tensors.store.spec(name)
        assert spec is not None
        codes, scales, zeros = (
            None if tensor is None else self._initializer(tensor) for tensor in self.tensors.blocks(name)
        )
        outputs, inputs = self.tensors.shape(f"{name}.weight")
        assert scales is not None
        arguments = [x, codes, self._floating(scales, scales, f"{name}.scales"), zeros, None, bias]
        while arguments[-1] is None:
            arguments.pop()
        return self._node(
            "MatMulNBits",
            arguments,
            name,
            domain=_MICROSOFT,
            K=inputs,
            N=outputs,
            bits=spec.bits,
            block_size=spec.group_size,
            accuracy_level=0,
        )

    def _floating(self, value: ir.Value, stored: ir.Value, name: str) -> ir.Value:
        """``value`` in float32, where ``stored``, which it is made of, is float16.

        Of constants ONNX Runtime does it once, when it loads the model.
        """
        if stored.dtype == _FLOAT:
            return value
        return self._node("Cast", [value], f"{name}.float32", to=_FLOAT)

    def _input(self, name: str, dtype: ir.DataType, shape: _Shape) -> ir.Value:
        value = _typed(ir.Value(name=name), dtype, shape)
        self.graph.inputs.append(value)
        return value

    def _constant(self, name: str, array: Any) -> ir.Value:
        return self._initializer(ir.Tensor(array, name=name))

    def _initializer(self, tensor: ir.LazyTensor | ir.Tensor[Any]) -> ir.Value:
        name = tensor.name or ""
        found = self.graph.initializers.get(name)
        if found is not None:
            return found
        value = ir.Value(
            name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape)
        )
        self.graph.register_initializer(value)
        return value

    def _node(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, **attributes: Any
    ) -> ir.Value:
        return self._nodes(op_type, inputs, name, 1, **attributes)[0]

    def _nodes(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        outputs: int,
        domain: str = "",
        **attributes: Any,
    ) -> list[ir.Value]:
        values = [ir.Value(name=f"{name}:{index}") for index in range(outputs)]
        node = ir.node(op_type, inputs, attributes, domain=domain, outputs=values, name=name)
        self.graph.append(node)
        return values


def _typed(value: ir.Value, dtype: ir.DataType, shape: _Shape) -> ir.Value:
    value.type = ir.TensorType(dtype)
    value.shape = ir.Shape(shape)
    return value
