"""Budgets: one small grammar for the command line, TOML and Python.

::

    budget     = metric ("<=" | ">=") bound
    bound      = number unit      absolute:    size <= 100MB, latency_p95 <= 20ms, top1 >= 0.70
               | number "%"       relative:    percent of the FP32 baseline of the same run, f1 >= 95%
               | sign number unit difference:  from the FP32 baseline of the same run, perplexity <= +0.5
    unit       = B KB MB GB KiB MiB GiB | us ms s | x | tokens/s | dB | (none)

White space does not matter. Three rules keep a budget from meaning two things:

- ``%`` is relative: ``top1 >= 70%`` asks for 70 % of the baseline's top1, ``top1 >= 0.70`` for 0.70. Only
  shares of a whole (``ane_share >= 90%``, ``top1_agreement >= 97%``), which have no baseline, are themselves
  in percent.
- a number with an explicit ``+`` or ``-`` is *always* a difference: ``top1 >= -0.005`` lets top1 fall by
  half a point. A sign and ``%`` together are refused, since that could be points or a share.
- the operator must agree with the metric: what is better when lower takes ``<=``, the others ``>=``.

Differences are for qualities (top1, perplexity); a cost (size, latency) takes an absolute bound or percent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NoReturn

from edgeq.benchmarks.metric_info import MetricInfo, metric_info
from edgeq.benchmarks.units import FACTORS, canonical_unit, units_of
from edgeq.errors import ConfigError

Operator = Literal["<=", ">="]
Kind = Literal["absolute", "relative", "difference"]

EXAMPLES = "size <= 100MB, f1 >= 95%, top1 >= 0.70, perplexity <= +0.5, speedup >= 1.5x"

_SHAPE = re.compile(r"\s*(?P<metric>[^\s<>=≤≥]+)\s*(?P<operator>[<>=≤≥!]+)\s*(?P<bound>.*?)\s*", re.DOTALL)
_NUMBER = re.compile(r"(?P<sign>[+-]?)\s*(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>\D*)")


@dataclass(frozen=True)
class Budget:
    """What one metric must keep.

    Attributes:
        metric: the name of a metric.
        operator: ``<=`` or ``>=``.
        kind: ``absolute``; ``relative``: percent of the baseline; ``difference`` from the baseline.
        number: as written, in ``unit``; a difference carries its sign.
        unit: as in :mod:`edgeq.benchmarks.units`, ``%`` or empty.
    """

    metric: str
    operator: Operator
    kind: Kind
    number: float
    unit: str = ""

    @property
    def bound(self) -> float:
        """The number in base units: bytes, seconds, a ratio; ``95%`` is 0.95."""
        if self.kind == "relative":
            return self.number / 100
        return self.number * FACTORS.get(self.unit, 1.0)

    @property
    def needs_baseline(self) -> bool:
        """Whether it can only be judged beside the FP32 baseline."""
        return self.kind != "absolute"

    def __str__(self) -> str:
        """The canonical text; :func:`parse_budget` gives the same budget back."""
        number = _text(self.number)
        if self.kind == "difference" and not number.startswith("-"):
            number = "+" + number
        return f"{self.metric} {self.operator} {number}{self.unit}"


def parse_budgets(texts: Iterable[str]) -> list[Budget]:
    """Parse several budgets.

    Raises:
        ConfigError: one of them is not a budget; see :func:`parse_budget`.
    """
    return [parse_budget(text) for text in texts]


def parse_budget(text: str) -> Budget:
    """Parse one budget.

    Raises:
        ConfigError: not a budget, unknown metric, an operator in the wrong direction, or a bound that the
            metric cannot have; the message says what to write instead.
    """
    if not isinstance(text, str):
        raise ConfigError(f"A budget is text, not {type(text).__name__}: {text!r}.", fix=f"Write {EXAMPLES}.")
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise ConfigError(f"{text!r} is no budget.", fix=f"Write metric, <= or >=, and a bound: {EXAMPLES}.")
    info = metric_info(shape["metric"])
    operator = _operator(text, shape["operator"], shape.start("operator"))
    if info is not None:
        _check_direction(text, info, operator)
    return _Bound(text, shape["metric"], info, operator).parse(shape["bound"], shape.start("bound"))


@dataclass(frozen=True)
class _Bound:
    """Parses what stands after the operator, for a metric of which ``info`` is known."""

    text: str
    metric: str
    info: MetricInfo | None
    operator: Operator

    def parse(self, bound: str, position: int) -> Budget:
        match = _NUMBER.fullmatch(bound)
        if match is None:
            what = f"{bound!r} is no number with a unit" if bound else "a number is missing"
            self.refuse(f"{what} (position {position + 1})", f"Write for example {self.example()}.")
        number = float(match["number"])
        if not math.isfinite(number):
            self.refuse(f"{match['number']} is too large", f"Write for example {self.example()}.")
        if match["unit"].strip() == "%" and not self.is_share:
            return self.relative(match["sign"], number)
        unit = self.unit(match["unit"].strip(), match["number"], match["sign"])
        if match["sign"]:
            return self.difference(match["sign"], number, unit)
        return self.absolute(number, unit)

    @property
    def is_share(self) -> bool:
        """Whether the metric is a share of a whole, so that percent is its unit."""
        return self.info is not None and self.info.unit == "share"

    def relative(self, sign: str, number: float) -> Budget:
        if sign:
            percent = 100 + float(sign + "1") * number
            points = _text(float(f"{number / 100:.12g}"))
            self.refuse(
                f"{sign}{_text(number)}% could mean a share of the baseline or percentage points",
                f"Write {self.metric} {self.operator} {_text(percent)}% (of the baseline) or "
                f"{self.metric} {self.operator} {sign}{points} (a difference).",
            )
        self.require_baseline("percent of it")
        return Budget(self.metric, self.operator, "relative", number, "%")

    def difference(self, sign: str, number: float, unit: str) -> Budget:
        if self.info is not None and self.info.resource:
            share = "" if not self.info.has_baseline else f" or {self.metric} {self.operator} 50%"
            self.refuse(
                f"{self.metric} takes no difference from the baseline and is never negative",
                f"Write {self.example()}{share}.",
            )
        self.require_baseline("a difference from it")
        return Budget(self.metric, self.operator, "difference", float(sign + "1") * number, unit)

    def absolute(self, number: float, unit: str) -> Budget:
        if self.info is not None and self.info.unit == "fraction" and number > 1:
            self.refuse(
                f"{self.metric} is between 0 and 1",
                f"Write {self.metric} {self.operator} {_text(number / 100)}, or "
                f"{self.metric} {self.operator} {_text(number)}% for percent of the FP32 baseline.",
            )
        return Budget(self.metric, self.operator, "absolute", number, unit)

    def unit(self, written: str, number: str, sign: str) -> str:
        """The canonical unit, which the metric must have."""
        unit = canonical_unit(written) if written else ""
        if self.info is None:
            if written:
                self.refuse(f"{written!r}: your own metrics have no units", "Write the number alone.")
            return ""
        allowed = units_of(self.info.unit)
        if unit in allowed:
            return unit
        start = f"{self.metric} {self.operator} {sign}{number}"
        if written:
            can = f"units of {self.metric} are {', '.join(allowed)}" if allowed else "it has no unit"
            self.refuse(f"{written!r} is no unit of {self.metric}", f"Write {self.example()}; {can}.")
        if self.is_share and float(number) <= 1:
            percent = _text(float(f"{100 * float(number):.12g}"))
            self.refuse(
                f"{number} without a unit could mean {number} % or {percent} %",
                f"Write {self.metric} {self.operator} {percent}%.",
            )
        if self.info.unit in ("bytes", "s"):
            units = ", ".join(allowed)
            self.refuse("the number has no unit", f"Write {start}{allowed[2]}; units are {units}.")
        return allowed[0] if allowed else ""

    def require_baseline(self, what: str) -> None:
        if self.info is None or self.info.has_baseline:
            return
        self.refuse(
            f"{self.metric} already compares with the baseline, so {what} means nothing",
            f"Write {self.example()}.",
        )

    def example(self) -> str:
        """A budget on this metric that is right."""
        unit = "" if self.info is None else self.info.unit
        bounds = {
            "bytes": "100MB",
            "s": "20ms",
            "x": "1.5x",
            "tokens/s": "20",
            "dB": "30dB",
            "fraction": "0.70",
            "share": "90%",
        }
        upper = "1.05" if self.info is None or self.info.has_baseline else "0.02"
        plain = "0.99" if self.operator == ">=" else upper
        return f"{self.metric} {self.operator} {bounds.get(unit, plain)}"

    def refuse(self, what: str, fix: str) -> NoReturn:
        raise ConfigError(f"Budget {self.text.strip()!r}: {what}.", fix=fix)


def _operator(text: str, written: str, position: int) -> Operator:
    if written in ("<=", "≤"):
        return "<="
    if written in (">=", "≥"):
        return ">="
    raise ConfigError(
        f"Budget {text.strip()!r}: {written!r} at position {position + 1} is no operator of budgets.",
        fix="Write <= or >=.",
    )


def _check_direction(text: str, info: MetricInfo, operator: Operator) -> None:
    right: Operator = ">=" if info.higher_is_better else "<="
    if operator == right:
        return
    better = "higher" if info.higher_is_better else "lower"
    raise ConfigError(
        f"Budget {text.strip()!r}: {info.name} is better when {better}, so a budget on it takes {right}.",
        fix=f"Write {text.strip().replace(operator, right, 1)}.",
    )


def _text(number: float) -> str:
    text = repr(float(number))
    return text.removesuffix(".0")
