"""What the user can choose about a Neural Compressor artefact, from ``KEY=VALUE`` texts to one value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeq.errors import ConfigError
from edgeq.targets.option_values import Named, Parser, choice, parse_pairs, text_value

Method = Literal["rtn", "gptq", "awq"]


class NeuralCompressorOptions(BaseModel):
    """Options of the target ``neural-compressor``. ``method``: what rounds INT4 weights.

    ``autotune``: Neural Compressor tries methods and block sizes until one loses no more than this share of
    ``autotune_metric`` (None: the task's own).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = "rtn"
    autotune: float | None = None
    autotune_metric: str | None = None

    def refuse_unused(self, scheme: str) -> None:
        """Refuse options that would do nothing.

        Raises:
            ConfigError: naming the option, and what it belongs to.
        """
        for name in ("method", "autotune", "autotune_metric"):
            given = getattr(self, name) != type(self).model_fields[name].default
            if given and scheme != "int4-weight":
                raise ConfigError(
                    f"The option {name!r} has no effect with the scheme {scheme!r}: it is for INT4 weights.",
                    fix="Leave it out, or choose the scheme int4-weight.",
                )
        if self.autotune is not None and self.method != "rtn":
            raise ConfigError("autotune tries every method, and one was named.", fix="Leave one of them out.")
        if self.autotune is None and self.autotune_metric is not None:
            raise ConfigError(
                "The option 'autotune_metric' has no effect without autotune.", fix="Add -O autotune=1%."
            )


def parse_options(pairs: Mapping[str, str]) -> NeuralCompressorOptions:
    """The options from ``KEY=VALUE`` texts; keys may be written with ``-`` or ``_``.

    Raises:
        ConfigError: an unknown key, or a text that is no value of it.
    """
    return NeuralCompressorOptions(**parse_pairs("neural-compressor", pairs, _PARSERS, _NAMED))


def _share(key: str, text: str) -> float:
    """A percentage from 0 up to 100, such as ``1%``, as a fraction."""
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = -1.0
    if not text.strip().endswith("%") or not 0 <= share < 1:
        raise ConfigError(f"The option {key!r} cannot be {text!r}.", fix="Write a percentage: 1%.")
    return share


_NAMED: Named = {}
_PARSERS: Mapping[str, Parser] = {
    "method": choice("rtn", "gptq", "awq"),
    "autotune": _share,
    "autotune_metric": text_value,
}
