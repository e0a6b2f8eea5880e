"""What a target can do, as data: the planner, the gates and the refusals read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edgeq.calibration.affine import ScaleDtype

if TYPE_CHECKING:
    from edgeq.compiler.recipe import Recipe, Scheme, WeightMethod


# The precisions of a plan that store weights, or weights and activations, in fewer than 16 bits.
QUANTIZED = ("int8", "fp8", "int4", "int3", "int2", "nf4", "pal6", "pal4")


Unpacked = Literal["single-block", "odd-outputs", "behind-attention"]


@dataclass(frozen=True)
class OpRule:
    """What a target's INT8 kernel of one op type wants.

    ``activations``: input indices that are quantized per tensor. ``weights``: input index → allowed axis
    (None = per-tensor only; a negative one counts for matrices, stacks of them are per-tensor).
    ``bias``: index of an INT32 bias. ``quantized_output``: the kernel writes INT8.
    ``same_range``: inputs and outputs share one scale and zero point.

    ``role`` says when INT8 pays: ``compute`` always (the op holds the arithmetic), ``join`` only between INT8
    neighbours (elementwise ops, pooling), ``move`` follows its neighbours (values are only moved), ``absorb``
    disappears into the QuantizeLinear after it (Relu, Clip), ``lookup`` reads rows of a constant table,
    ``read`` never asks for INT8: the op computes in float, but where another op needs an input of it in INT8
    it reads that form too, so that the tensor is stored once, in one byte.
    ``float_output``: the kernel can also write float, so a float consumer costs no rounding.
    ``transposed_by``: attribute that, when set, swaps the last two axes of the weights.
    ``attributes``: attribute → values that the kernel takes. ``ranks``: of input 0, empty = any.
    ``inputs``: how many the kernel takes, 0 = any number.
    ``joined``: elementwise INT8 ops after it pay, although its ``float_output`` could feed them in float.
    ``scales_result``: the kernel multiplies by one scale; those of the channels are a Mul behind it.
    ``of_weights``: without a constant operand the op stays in float by choice, unless an override asks.
    """

    activations: tuple[int, ...] = ()
    variadic: bool = False
    weights: Mapping[int, int | None] = field(default_factory=dict)
    bias: int | None = None
    quantized_output: bool = True
    same_range: bool = False
    fixed_output: tuple[float, int] | None = None
    note: str = ""
    role: Literal["compute", "join", "move", "absorb", "lookup", "read"] = "compute"
    float_output: bool = False
    transposed_by: str = ""
    attributes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    ranks: tuple[int, ...] = ()
    inputs: int = 0
    joined: bool = False
    scales_result: bool = False
    of_weights: bool = False


@dataclass(frozen=True)
class WeightRules:
    """What a format of language models stores, as data.

    ``bits`` of integer weights; ``group_sizes``: inputs that share a scale, -1 a whole output channel, and
    ``group_size`` the one that is best where the recipe names none. ``symmetric``: which of both kinds.
    ``scale_dtype`` holds every scale. ``lowest_zero_point``: of asymmetric weights. ``mixed``: layers may
    differ in bits. ``head`` and ``embeddings``: may be quantized too. ``uneven``: the last group of a row may
    be smaller. ``always_symmetric``: bits that have no asymmetric kind. ``outputs_multiple``: what the number
    of outputs must be a multiple of. ``keeps_bfloat16``: where a model is stored in bfloat16, its floats stay
    so and scales are of it too, in place of ``scale_dtype``. ``half_floats``: engines compute in 16 bits,
    and what is not quantized is stored so whatever its values. ``joined_alike``: q, k and v have one
    spec, and so have gate and up, as engines join them. ``methods`` are of schemes of weights alone,
    ``integer_methods`` of int8-dynamic.
    """

    bits: tuple[int, ...]
    group_sizes: tuple[int, ...]
    group_size: int = 128
    symmetric: tuple[bool, ...] = (True, False)
    methods: tuple[WeightMethod, ...] = ("rtn", "gptq", "awq")
    integer_methods: tuple[WeightMethod, ...] = ()
    scale_dtype: ScaleDtype = "float16"
    negative_scales: bool = False
    lowest_zero_point: int = 0
    mixed: bool = False
    head: bool = False
    embeddings: bool = False
    uneven: bool = False
    always_symmetric: tuple[int, ...] = ()
    outputs_multiple: int = 1
    keeps_bfloat16: bool = False
    half_floats: bool = False
    joined_alike: bool = False


@dataclass(frozen=True)
class Capabilities:
    """What a target can do, as data. The shared planner reads it; targets hold no planning code.

    ``int8_static``: op type → rule. ``int8_dynamic`` / ``weight_only``: op types with such a kernel.
    ``fp16_unsafe``: op types kept in FP32 by the ``fp16`` scheme, with ``fp16_reasons`` of their own where
    it is not range or accuracy. ``float_reasons``: op type → why the
    target leaves it in float (shown in the report).

    ``int8_form``: what a node that is planned in INT8 has, in words.
    ``unsigned_positive``: symmetric activations that are never negative are uint8 with the zero point 0.
    ``scheme_reasons``: scheme that it has not → why, and what to take instead. ``unused_options``: field of
    the recipe that would do nothing here → why.
    ``saturates``: INT8 kernels of some CPUs add up products in a saturating int16. ``pairs_in_position``:
    convolutions without groups add up neighbours of one kernel position only, padded with a zero.
    ``simulate_in_float``: what QDQ models compute is judged with float arithmetic between the roundings, not
    by ONNX Runtime's integer kernels.
    ``keeps_absorbed``: ops of the role ``absorb`` are computed, in float, before the result is rounded (where
    they are not, the rounding itself must do what they do).
    ``float_bias``: biases of INT8 layers stay float.
    ``scale_dtype``: type that holds every scale exactly; the runtime's arithmetic may have no wider one.
    ``negative_scales``: scales of weights in blocks may be negative, which lets -8 stand for the largest one.
    ``weight_form``: how weight-only INT8 is written: ``expanded`` by Cast and Mul, which a runtime folds when
    it loads, or ``dequantize``: a DequantizeLinear of the initializer, embedding tables included.
    ``misreads_transposed``: pointwise convolutions of such weights are computed wrongly before a Transpose to
    another order than channels last.
    ``weight_note``: what a node with such weights has, in words. ``weight_reasons``: op type → why the
    schemes of weights alone leave it in float.
    ``block_form``: how weights in blocks of 4 bits are written: ``nbits``, as ONNX Runtime's MatMulNBits and
    GatherBlockQuantized, or ``dequantize``, a DequantizeLinear of whole blocks.
    ``unpacks``: products whose weights in blocks a kernel of their own would widen on every run: that read a
    ``single-block``, write ``odd-outputs``, or stand right ``behind-attention``.
    ``block_size``: of a block where the recipe names none; ``block_sizes`` are those that have a kernel.
    ``fuses_elementwise``: elementwise ops cost nothing beside what makes or reads a value, and attention is
    one kernel as long as nothing but moves stands between its products and the rounding behind them.
    ``rounds_itself``: the target's build turns float32 models into float16 ones.
    ``learns_weights``: schemes of weights alone may look at calibration data, whatever the recipe's method.
    ``graph_methods``: scheme → how the weights of a graph's matrix products may be rounded there.
    ``weights``: the target stores language models as checkpoints, by these rules; None: it compiles graphs.
    """

    target: str
    schemes: tuple[Scheme, ...]
    activation_dtype: Literal["uint8", "int8"] = "uint8"
    symmetric_activations: bool = False
    unsigned_positive: bool = False
    int8_form: str = "INT8 kernel"
    int8_static: Mapping[str, OpRule] = field(default_factory=dict)
    int8_dynamic: frozenset[str] = frozenset()
    weight_only: frozenset[str] = frozenset()
    weight_note: str = "int8 weights in the file, expanded to float when the model loads"
    weight_reasons: Mapping[str, str] = field(default_factory=dict)
    block_form: Literal["nbits", "dequantize"] = "nbits"
    unpacks: frozenset[Unpacked] = frozenset()
    block_size: int = 32
    block_sizes: tuple[int, ...] = ()
    fp16_unsafe: frozenset[str] = frozenset()
    fp16_reasons: Mapping[str, str] = field(default_factory=dict)
    float_reasons: Mapping[str, str] = field(default_factory=dict)
    scheme_reasons: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unused_options: Mapping[str, str] = field(default_factory=dict)
    saturates: bool = True
    pairs_in_position: bool = False
    simulate_in_float: bool = False
    keeps_absorbed: bool = False
    float_bias: bool = False
    scale_dtype: ScaleDtype = "float32"
    negative_scales: bool = True
    weight_form: Literal["expanded", "dequantize"] = "expanded"
    misreads_transposed: bool = False
    fuses_elementwise: bool = False
    rounds_itself: bool = False
    learns_weights: bool = False
    graph_methods: Mapping[Scheme, tuple[WeightMethod, ...]] = field(default_factory=dict)
    weights: WeightRules | None = None

    def blocks_of(self, recipe: Recipe) -> int:
        """Weights per block: what the recipe says, else what is best here."""
        return recipe.block_size or self.block_size
