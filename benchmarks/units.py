"""Numbers with units: how budgets write them and how reports show them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

Unit = Literal["bytes", "s", "x", "tokens/s", "fraction", "share", "dB", ""]

# Decimal and binary multiples, IEC 80000-13.
BYTES: Mapping[str, float] = {
    "B": 1,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
SECONDS: Mapping[str, float] = {"us": 1e-6, "ms": 1e-3, "s": 1}
RATIO: Mapping[str, float] = {"x": 1}
THROUGHPUT: Mapping[str, float] = {"tokens/s": 1}
DECIBEL: Mapping[str, float] = {"dB": 1}
# A share of a whole: here percent is no comparison with a baseline.
SHARE: Mapping[str, float] = {"%": 0.01}
FACTORS: Mapping[str, float] = {**BYTES, **SECONDS, **RATIO, **THROUGHPUT, **DECIBEL, **SHARE}

_ALLOWED: Mapping[str, Mapping[str, float]] = {
    "bytes": BYTES,
    "s": SECONDS,
    "x": RATIO,
    "tokens/s": THROUGHPUT,
    "dB": DECIBEL,
    "fraction": {},
    "share": SHARE,
    "": {},
}
_CANONICAL = {name.lower(): name for name in FACTORS} | {"µs": "us", "μs": "us"}


def canonical_unit(text: str) -> str | None:
    """The unit as this page spells it, whatever case it was written in; None when there is no such unit."""
    return _CANONICAL.get(text.lower())


def units_of(kind: str) -> list[str]:
    """The units in which a quantity of this kind may be written, smallest first."""
    return list(_ALLOWED[kind])


def format_value(value: float, kind: str) -> str:
    """The value as people read it: ``4.85 MB``, ``12.3 ms``, ``1.62x``, ``73.69 %``, ``41.2 dB``."""
    if not math.isfinite(value):
        return str(value)
    if kind == "bytes":
        return _scaled(value, (("GB", 1e9), ("MB", 1e6), ("KB", 1e3), ("B", 1.0)))
    if kind == "s":
        return _scaled(value, (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)))
    if kind == "x":
        return f"{value:.2f}x"
    if kind in ("fraction", "share"):
        return f"{100 * value:.2f} %"
    return f"{_plain(value)} {kind}".rstrip()


def format_difference(value: float, kind: str) -> str:
    """A difference with its sign: ``+0.31``, ``-0.46 points`` (of a fraction: percentage points)."""
    if not math.isfinite(value):
        return str(value)
    if kind == "fraction":
        return f"{100 * value:+.2f} points"
    sign = "-" if value < 0 else "+"
    return sign + format_value(abs(value), kind)


def difference_number(value: float, kind: str) -> str:
    """Like :func:`format_difference`, without ``points``: for the lower end of a span."""
    return format_difference(value, kind).removesuffix(" points")


def _scaled(value: float, steps: tuple[tuple[str, float], ...]) -> str:
    for unit, factor in steps:
        if abs(value) >= factor:
            return f"{_plain(value / factor)} {unit}"
    unit, factor = steps[-1]
    return f"{_plain(value / factor)} {unit}"


def _plain(value: float) -> str:
    """Three to four significant digits, never an exponent for everyday sizes."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.4g}"
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3 if size >= 1 else 4
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
