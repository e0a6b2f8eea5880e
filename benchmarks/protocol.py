"""What a perplexity depends on beside the model: without it, two numbers cannot be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.units import format_value

PERPLEXITY = "perplexity"
# Metrics that count predictions, the first one measured says how many.
_COUNTING = (PERPLEXITY, "kl", "kl_p99", "top1_agreement")


@dataclass(frozen=True)
class Protocol:
    """How running text was judged: names and values in the order in which they are read."""

    values: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, evaluation: Mapping[str, Any] | None, found: Mapping[str, Measurement]) -> Protocol | None:
        """From the description of the data and what was measured; None where no language was judged."""
        counted = [found[name].detail for name in _COUNTING if name in found]
        if evaluation is None or "judged" not in evaluation or not counted:
            return None
        detail, words = counted[0], evaluation["words"]
        windows = f"{evaluation['window']} tokens, one every {evaluation['stride']}"
        values = [
            ("text", _file(evaluation, "location", "sha256")),
            ("tokenizer", _file(evaluation, "tokenizer", "tokenizer_sha256")),
            ("windows", f"{detail['samples']:,} of {windows}"),
            ("tokens", f"{evaluation['judged']:,} in all windows of the text"),
            ("words", "not known of this tokenizer" if words is None else f"{words:,} in these tokens"),
            ("predictions", f"{detail['predictions']:,}"),
        ]
        return cls((*values, *_word_level(found.get(PERPLEXITY))))

    def text(self) -> str:
        """One sentence."""
        return ", ".join(f"{name}: {value}" for name, value in self.values)


def with_words(found: Measurement, evaluation: Mapping[str, Any]) -> Measurement:
    """A perplexity with its word level, where the data says how many words its tokens are.

    exp(nll per token x tokens / words), which does not depend on the tokenizer: the perplexity to the power
    of the tokens per word.
    """
    words, tokens = evaluation.get("words"), evaluation.get("judged")
    if found.metric != PERPLEXITY or not words or not tokens:
        return found
    level = {"value": _power(found.value, tokens / words)}
    if found.baseline is not None:
        level["baseline"] = _power(found.baseline, tokens / words)
    return replace(found, detail={**found.detail, "word_perplexity": level})


def _power(perplexity: float, exponent: float) -> float:
    # As for the perplexity itself: more is too large to matter.
    return math.exp(min(math.log(perplexity) * exponent, 700.0))


def _file(evaluation: Mapping[str, Any], name: str, digest: str) -> str:
    return f"{PurePath(str(evaluation[name])).name} (SHA-256 {str(evaluation.get(digest))[:12]}…)"


def _word_level(found: Measurement | None) -> list[tuple[str, str]]:
    level = None if found is None else found.detail.get("word_perplexity")
    if level is None:
        return []
    base = f" (FP32 {format_value(level['baseline'], '')})" if "baseline" in level else ""
    return [("word perplexity", f"{format_value(level['value'], '')}{base}")]
