"""The graph passes that a program goes through: only those that keep its numbers and bring something.

coremltools' own pipelines run 107 passes. These are left out, because the results would not be the model's:

- ``mil_backend::fuse_pow2_sqrt`` makes ``sqrt(x * x)`` the identity, for negative ``x`` too;
- ``common::add_int16_cast`` narrows every integer tensor that a gather or topk reads to 16 bits;
- ``common::select_optimization`` makes ``where(mask, inf, x)`` an addition, which is NaN where ``x`` is -inf;
- ``common::divide_to_multiply``, ``common::fuse_conv_scale``, ``common::fuse_conv_batchnorm`` and
  ``common::fuse_elementwise_to_batchnorm`` round constants again; normalizing has folded what is exact;
- ``common::int_op_canonicalization``, ``common::nullify_redundant_quantization_zero_point``,
  ``common::dequantize_quantize_pair_elimination`` and
  ``common::distributive_quantized_binary_op_scale_normalization`` rewrite the scales that the plan chose.

These find nothing in a lowered ONNX model: complex numbers, list and state ops, loops, 1-D convolutions and
dilations spelled in TensorFlow's way, NHWC images, one-hot products, compression patterns of PyTorch.
``common::guard_negative_gather_indices`` is the frontend's work: ONNX defines negative indices.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from edgeq.targets.coreml.package.half import cast_to_half
from edgeq.targets.coreml.toolkit import builder, coremltools

_CLEAN = (
    "common::const_elimination",
    "common::noop_elimination",
    "common::dead_code_elimination",
)

# Fewer and cheaper operations on the device, with the same real-valued result.
_FUSE = (
    "common::add_conv_transpose_output_shape",
    "common::fuse_matmul_weight_bias",
    "common::fuse_linear_bias",
    "common::fuse_gelu_tanh_approximation",
    "common::fuse_gelu_exact",
    "common::fuse_leaky_relu",
    "common::rank0_expand_dims_swap",
    "common::fuse_squeeze_expand_dims",
    "common::merge_consecutive_paddings",
    "common::fuse_pad_conv",
    "common::reduce_transposes",
    "common::fuse_conv_bias",
    "common::fuse_layernorm_or_instancenorm",
    "common::fuse_prelu",
    "common::prelu_to_lrelu",
    "common::merge_consecutive_relus",
    "common::merge_consecutive_reshapes",
    "common::merge_consecutive_transposes",
    "common::fuse_transpose_matmul",
    "common::expand_high_rank_reshape_and_transpose",
    "common::reduce_transposes",
    "mil_backend::fuse_activation_silu",
    "common::remove_redundant_ops",
)

_IMAGES = ("mil_backend::insert_image_preprocessing_ops",)

# the cast to float16 caches by name, so names are made unique first
_BEFORE_HALF = (*_CLEAN, *_FUSE, *_IMAGES, "common::dedup_op_and_var_names")

_FINISH = (
    "common::cast_optimization",
    "common::const_elimination",
    "common::cast_optimization",
    "common::dead_code_elimination",
    # int8 constants move through transposes, so that convolutions and linears read the weight itself
    "common::merge_affine_dequantize_with_consecutive_ops",
    "common::expand_dynamic_linear",
    "common::fuse_transpose_matmul",
    "common::noop_elimination",
    "common::const_elimination",
    "common::const_deduplication",
    "common::dead_code_elimination",
    "mil_backend::sanitize_name_strings",
    "common::dedup_op_and_var_names",
    "nn_backend::handle_unused_inputs",
)


PASSES = (*_BEFORE_HALF, *_FINISH)


def run_passes(program: Any, *, half: bool, keep: Collection[str] = ()) -> None:
    """Change the MIL ``program`` in place; ``half`` computes in float16, but for the values ``keep``."""
    _run(program, _BEFORE_HALF)
    if half:
        cast_to_half(program, keep)
    _run(program, _FINISH)
    program.validate(check_essential_scope=True)


def _run(program: Any, names: tuple[str, ...]) -> None:
    coremltools()
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    function = program.functions["main"]
    outputs = [variable.name for variable in function.outputs]
    for name in names:
        if name == "common::const_elimination":
            _give_dtypes(function)
        PASS_REGISTRY[name](program)
        _keep_outputs(function, outputs)


def _give_dtypes(function: Any) -> None:
    """Parts of sizes of which others are symbolic are known as objects: a const of them has no dtype."""
    from coremltools.converters.mil.mil.types import nptype_from_builtin

    for operation in function.operations:
        for output in operation.outputs:
            if isinstance(output.val, np.ndarray) and output.val.dtype == object:
                output._sym_val.val = output.val.astype(nptype_from_builtin(output.dtype))


def _keep_outputs(function: Any, names: Sequence[str]) -> None:
    """Outputs that a pass found to be one value (``reduce_transposes`` renames it) are several again."""
    if [variable.name for variable in function.outputs] == list(names):
        return
    with function:
        function.set_outputs(
            [
                variable if variable.name == name else builder().identity(x=variable, name=name)
                for variable, name in zip(function.outputs, names, strict=True)
            ]
        )


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep coremltools from printing, warning and logging."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
