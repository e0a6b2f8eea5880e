"""Float32 to float16 or bfloat16, node by node: copies of constants, Casts where the types meet."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeq.compiler.quantize.rewriter import Editor

FLOAT = ir.DataType.FLOAT
SUFFIXES = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}
_LARGEST = {ir.DataType.FLOAT16: 65504.0, ir.DataType.BFLOAT16: (2 - 2.0**-7) * 2.0**127}
# Smaller float32 numbers become 0: half of the smallest subnormal.
_SMALLEST = {ir.DataType.FLOAT16: 2.0**-25, ir.DataType.BFLOAT16: 2.0**-134}


class NarrowConstants:
    """Copies of float32 constants in ``dtype``: made once each, checked for overflow and underflow."""

    def __init__(self, state: Editor, dtype: ir.DataType = ir.DataType.FLOAT16) -> None:
        self._state = state
        self._dtype = dtype
        self._made: dict[ir.Value, ir.Value | None] = {}
        self.largest = _LARGEST[dtype]
        self.smallest = _SMALLEST[dtype]
        self.large: list[str] = []
        self.lost = 0
        self.total = 0

    def narrow(self, value: ir.Value) -> ir.Value | None:
        """The copy of a constant, None when ``value`` is no float32 constant or does not fit."""
        if value not in self._made:
            self._made[value] = self._convert(value)
        return self._made[value]

    def too_large(self, value: ir.Value) -> bool:
        return is_float_constant(value) and self.narrow(value) is None

    def _convert(self, value: ir.Value) -> ir.Value | None:
        if not is_float_constant(value):
            return None
        tensor = ir.convenience.get_const_tensor(value)
        assert tensor is not None
        array = np.asarray(tensor.numpy())
        finite = np.isfinite(array)
        if (np.abs(array[finite]) > self.largest).any():
            self.large.append(value.name or "")
            return None
        self.total += array.size
        self.lost += int(np.count_nonzero((array != 0) & (np.abs(array) < self.smallest)))
        name = f"{value.name}_{SUFFIXES[self._dtype]}"
        return self._state.initializer(name, array.astype(self._dtype.numpy()))


def is_float_constant(value: ir.Value) -> bool:
    """Whether ``value`` is a float32 constant that no caller can override."""
    if value.is_graph_input():
        return False
    tensor = ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.dtype == FLOAT


class Caster:
    """Gives nodes their precision and puts one Cast behind every value that is read in another one.

    ``shrink``: large constants of float32 nodes are stored narrow as well, with a Cast behind them.
    """

    def __init__(
        self,
        state: Editor,
        constants: NarrowConstants,
        dtype: ir.DataType = ir.DataType.FLOAT16,
        *,
        shrink: bool = False,
    ) -> None:
        self._state = state
        self._constants = constants
        self._dtype = dtype
        self._shrink = shrink

    def convert(self, node: ir.Node, narrow: bool) -> None:
        """Let ``node`` read, and if ``narrow`` write, its floats in the wanted precision."""
        for index, value in enumerate(node.inputs):
            if value is None or (value.dtype not in (FLOAT, self._dtype) and not is_float_constant(value)):
                continue
            node.replace_input_with(index, self._as(value, narrow))
        if not narrow:
            return
        for output in node.outputs:
            if output.dtype == FLOAT:
                output.type = ir.TensorType(self._dtype)  # values may share their type objects

    def restore_outputs(self, graph: ir.Graph) -> None:
        """Cast outputs of ``graph`` that became narrow back to float32, under their own names."""
        for index, output in enumerate(graph.outputs):
            if output is None or output.dtype != self._dtype or output.producer() is None:
                continue
            name, shape = output.name, output.shape
            output.name = self._state.free_name(f"{name}_{SUFFIXES[self._dtype]}")
            made = self._cast(output, FLOAT, f"{name}_to_float")
            assert made.outputs[0] is not None
            made.outputs[0].shape = shape
            graph.append(made)
            graph.outputs[index] = made.outputs[0]
            made.outputs[0].name = name

    def _as(self, value: ir.Value, narrow: bool) -> ir.Value:
        """``value`` in the wanted precision; constants come from their narrow copy where there is one."""
        stored = self._constants.narrow(value) if narrow or (self._shrink and _pays(value)) else None
        source = value if stored is None else stored
        wanted = self._dtype if narrow else FLOAT
        if source.dtype == wanted or (stored is None and is_float_constant(value)):
            return source
        key = ("cast", source, wanted)
        if key not in self._state.cache:
            cast = self._cast(source, wanted, f"{source.name}_to_{wanted.name.lower()}")
            self._insert_after(source, cast)
            self._state.cache[key] = cast.outputs[0]
        made: ir.Value = self._state.cache[key]
        return made

    def _cast(self, source: ir.Value, wanted: ir.DataType, name: str) -> ir.Node:
        cast = self._state.node("Cast", [source], name, attributes={"to": int(wanted)})
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(wanted), source.shape
        return cast

    def _insert_after(self, source: ir.Value, cast: ir.Node) -> None:
        """Right after the producer, so that every reader in every subgraph comes later."""
        producer = source.producer()
        if producer is None or producer.graph is None:
            graph = source.graph or self._state.model.graph
            graph.insert_before(graph[0], [cast])
            return
        producer.graph.insert_after(producer, [cast])


def _pays(value: ir.Value) -> bool:
    """Whether storing a constant of a float32 node narrow saves more than the Cast costs."""
    tensor = ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.size > 64
