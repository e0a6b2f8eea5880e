"""Weights that are no numbers, or beyond what a format holds, are refused before anything is made of them.

Rounding would hide them: it clips what its scales do not reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from edgeq.calibration.types import Array
from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.compiler.plan import Plan
from edgeq.compiler.weights.floats import rules_of_model, stored_floats
from edgeq.errors import ModelError, TargetError
from edgeq.progress import Progress
from edgeq.targets.capabilities import WeightRules

# Values that are looked at at a time.
_AT_ONCE = 1 << 24


_FLOATS = ("fp32", "fp16", "bf16")
_NARROW: Mapping[str, Any] = {"float16": np.float16, "half7": np.float16, "bfloat16": ml_dtypes.bfloat16}


def largest_values(checkpoint: Checkpoint, progress: Progress) -> dict[str, float]:
    """The largest magnitude of every float tensor, for which all are read once.

    Pages are mapped, and those of one part are in memory.

    Raises:
        ModelError: a tensor has NaN or infinite values.
    """
    found = {}
    with progress.task("Checking the weights", len(checkpoint.tensors)) as advance:
        for name, stored in checkpoint.tensors.items():
            values = stored.array()
            if values.dtype.kind not in "iub":
                found[name] = _largest(values)
            if not np.isfinite(found.get(name, 0)):
                raise ModelError(
                    f"The tensor {name!r} in {stored.file} has values that are NaN or infinite.",
                    fix="Download or save the model again; training may have diverged.",
                )
            advance(1)
    return found


def _largest(values: Array) -> float:
    """The largest magnitude; NaN where there is one."""
    flat = values.reshape(-1)
    parts = (flat[at : at + _AT_ONCE] for at in range(0, len(flat), _AT_ONCE))
    # The ends are a pass each without a copy; those of NaN are NaN.
    return float(np.max([max(abs(float(part.max())), abs(float(part.min()))) for part in parts], initial=0))


def refuse_beyond(
    checkpoint: Checkpoint, largest: Mapping[str, float], plan: Plan, rules: WeightRules, target: str
) -> None:
    """Refuse tensors with values that the format's scales or floats cannot hold.

    ``largest``: magnitudes by tensor (:func:`largest_values`).

    Raises:
        TargetError: naming the first tensor, its value, and what to do.
    """
    quantized = {f"{name}.weight" for name, node in plan.nodes.items() if node.precision not in _FLOATS}
    floats = stored_floats(checkpoint).name if rules.half_floats else "float32"
    scales = rules_of_model(rules, checkpoint).scale_dtype
    for name, value in largest.items():
        # What is scaled is stored in float where engines dequantize it, so both bound it.
        kinds = (scales, floats) if name in quantized else (floats,)
        narrow = next((kind for kind in kinds if _beyond(value, kind)), None)
        if narrow is not None:
            raise _too_large(name, value, _NARROW[narrow], target, rules)


def _beyond(value: float, kind: str) -> bool:
    with np.errstate(over="ignore"):
        return kind in _NARROW and not np.isfinite(np.float32(np.asarray(value).astype(_NARROW[kind])))


def _too_large(name: str, value: float, kind: Any, target: str, rules: WeightRules) -> TargetError:
    limits = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]  # ml_dtypes is not typed here
    fix = f"Keep it in float: --override '{name.removesuffix('.weight')}=fp16'."
    if rules.half_floats:
        fix = "Save the model in bfloat16 first: model.to(torch.bfloat16).save_pretrained(folder)."
    return TargetError(
        f"The tensor {name!r} has a value of {value:.4g}, and target {target!r} stores it with numbers of "
        f"{limits.dtype}, which end at {float(limits.max):.5g}.",
        fix=fix,
    )
