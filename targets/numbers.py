"""Comparing what an artefact computes with what its ONNX model computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeq.calibration.types import Array
from edgeq.targets.base import Check

# Float sums in another order: differences of the last bits, relative to the largest value of the tensor.
FLOAT32_TOLERANCE = 1e-5
# Deep nets with logarithms or divisions amplify such differences: 85 dB and more were left between two
# programs of one computation (basic_pitch amplifies most). float16 weights leave 65 dB, a wrong operation
# far less.
FLOAT32_SQNR = 80.0
# Rounding every operation to float16 leaves a float net 45 dB and more.
FLOAT16_SQNR = 35.0
# Where activations are rounded to integers, float16 lets a few percent of them fall one step aside in every
# layer. That noise is of the size of the quantization's own: 28 to 58 dB on the measured nets, where the task
# metric does not move (docs/coreml.md). A wrong operation or scale lies far below this.
FLOAT16_SQNR_ROUNDED = 20.0
# float16's smallest step: results that differ by a few of them only (probabilities near 0) have no SQNR.
FLOAT16_STEP = 2.0**-24
_STEPS = 16
# Where a model has no float outputs: the share of its integers that float16 leaves as they are.
FLOAT16_AGREEMENT = 0.9


@dataclass(frozen=True)
class Distance:
    """How far results are from the reference: over all samples and floating outputs.

    ``largest`` is the largest difference, ``relative`` the same relative to the largest value of that output,
    ``sqnr`` in dB (infinite when equal). ``wrong`` names integer outputs that differ, and those that have
    other shapes, or are not finite where the reference is. ``agreement`` is the share of equal integers
    where there are no floating outputs.
    """

    largest: float
    relative: float
    sqnr: float
    wrong: tuple[str, ...] = ()
    agreement: float | None = None

    @property
    def tolerable(self) -> bool:
        """Whether float32 sums in another order explain it by themselves."""
        return not self.wrong and self.relative <= FLOAT32_TOLERANCE

    @property
    def exact(self) -> bool:
        """Whether every number is the same."""
        return self.largest == 0.0 and not self.wrong


def distance(
    wanted: Sequence[Mapping[str, Array]], got: Sequence[Mapping[str, Array]], floats_only: bool = False
) -> Distance:
    """The distance between two lists of results; SQNR is that of the worst output.

    ``floats_only`` leaves integer outputs out (an argmax may fall differently under float16).
    """
    largest, relative, sqnr = 0.0, 0.0, np.inf
    wrong: list[str] = []
    integers: list[tuple[Array, Array]] = []
    has_floats = False
    for name in wanted[0]:
        ours = [np.asarray(results[name]) for results in got]
        theirs = [np.asarray(results[name]) for results in wanted]
        is_float = theirs[0].dtype.kind == "f"
        has_floats |= is_float
        if [array.shape for array in ours] != [array.shape for array in theirs]:
            wrong.append(name)
            continue
        a, b = _flat(theirs), _flat(ours)
        if not is_float:
            integers.append((a, b))
            if not floats_only and not np.array_equal(a, b):
                wrong.append(name)
            continue
        finite = np.isfinite(a)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(b[finite]).all():
            wrong.append(name)
            continue
        noise = np.where(finite, b - np.where(finite, a, 0), 0)
        signal = np.where(finite, a, 0)
        peak = float(np.abs(signal).max(initial=0))
        difference = float(np.abs(noise).max(initial=0))
        largest = max(largest, difference)
        relative = max(relative, difference / peak if peak else difference)
        sqnr = min(sqnr, _decibel(signal, noise))
    agreement = None if has_floats else _agreement(integers)
    return Distance(largest, relative, float(sqnr), tuple(wrong), agreement)


def _agreement(integers: Sequence[tuple[Array, Array]]) -> float:
    equal = sum(int(np.count_nonzero(a == b)) for a, b in integers)
    count = sum(a.size for a, _ in integers)
    return equal / count if count else 1.0


def _flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([array.astype(np.float64).reshape(-1) for array in arrays])


def _decibel(signal: Array, noise: Array) -> float:
    power = float(np.square(noise).sum())
    if power == 0:
        return float("inf")
    level = float(np.square(signal).sum())
    return -float("inf") if level == 0 else 10 * float(np.log10(level / power))


def reordered_sums(found: Distance) -> str:
    """What explains differences beyond the last bits, for :func:`exact_check`; empty where it does not."""
    if found.wrong or found.sqnr < FLOAT32_SQNR:
        return ""
    return f"{found.sqnr:.0f} dB, as float sums in another order leave"


def exact_check(
    found: Distance, why: tuple[str, str], samples: str, reference: str = "ONNX Runtime"
) -> Check:
    """The FLOAT32 build: the same numbers, or float sums whose last bits differ.

    ``why``: what explains a larger difference, and else where it begins. ``reference``: whose numbers.
    """
    explained, culprit = why
    wanted = f"the numbers of {reference}"
    if found.wrong:
        text = f"the output {found.wrong[0]!r} is another; {culprit}".removesuffix("; ")
        return Check("float32 numbers", False, text, wanted)
    if found.exact:
        return Check("float32 numbers", True, f"largest difference 0.0 to {reference} on {samples}", wanted)
    text = f"largest difference {found.largest:.2g} ({found.relative:.1g} of the output) on {samples}"
    if found.tolerable:
        return Check("float32 numbers", True, text, wanted)
    why_not = culprit or "rounding does not explain it"
    return Check("float32 numbers", bool(explained), f"{text}; {explained or why_not}", wanted)


def rounded_check(found: Distance, samples: str, reference: str = "the model in ONNX Runtime") -> Check:
    """INT8 models: sums in another order let single values fall to the next step, and no more.

    A wrong operation, scale or saturating kernel lies far below the limit. ``reference``: whose numbers the
    distance is to.
    """
    name, wanted = "int8 numbers", f"at least {FLOAT16_SQNR_ROUNDED:.0f} dB to {reference}"
    if found.wrong:
        return Check(
            name, False, f"the output {found.wrong[0]!r} is not finite, or has another shape", wanted
        )
    if found.agreement is not None:
        text = f"{found.agreement:.1%} of the integers on {samples} are those of {reference}"
        wanted = f"at least {FLOAT16_AGREEMENT:.0%} of the integers as in {reference}"
        return Check(name, found.agreement >= FLOAT16_AGREEMENT, text, wanted)
    passed = found.sqnr >= FLOAT16_SQNR_ROUNDED
    return Check(name, passed, f"{_text(found.sqnr)} to {reference} on {samples}", wanted)


def half_check(found: Distance, samples: str, *, rounded: bool) -> Check:
    """What computes in float16 is as close as its roundings allow; ``rounded``: activations are too."""
    limit = FLOAT16_SQNR_ROUNDED if rounded else FLOAT16_SQNR
    wanted = f"at least {limit:.0f} dB to ONNX Runtime in float32"
    if found.wrong:
        text = f"the output {found.wrong[0]!r} is not finite, or has another shape"
        return Check("float16 numbers", False, text, wanted)
    if found.agreement is not None:
        text = f"{found.agreement:.1%} of the integers on {samples} are those of ONNX Runtime in float32"
        wanted = f"at least {FLOAT16_AGREEMENT:.0%} of the integers as in ONNX Runtime in float32"
        return Check("float16 numbers", found.agreement >= FLOAT16_AGREEMENT, text, wanted)
    text = f"{_text(found.sqnr)} to ONNX Runtime in float32 on {samples}"
    if found.sqnr < limit and found.largest <= _STEPS * FLOAT16_STEP:
        return Check("float16 numbers", True, f"{text}; the results are as small as float16's steps", wanted)
    if limit <= found.sqnr < FLOAT16_SQNR:
        text += "; roundings to integers fall aside in float16: judge it by the task's metric"
    return Check("float16 numbers", found.sqnr >= limit, text, wanted)


def _text(sqnr: float) -> str:
    return "exact" if np.isinf(sqnr) and sqnr > 0 else f"{sqnr:.1f} dB"
