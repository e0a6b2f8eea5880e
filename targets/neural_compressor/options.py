"""What the user can choose about a Neural Compressor artefact, from ``KEY=VALUE`` texts to one value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeq.errors import ConfigError
from edgeq.targets.option_values import Named, Parser, choice, parse_pairs

Method = Literal["rtn", "gptq", "awq"]


class NeuralCompressorOptions(BaseModel):
    """Options of the target ``neural-compressor``. ``method``: what rounds INT4 weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = "rtn"

    def refuse_unused(self, scheme: str) -> None:
        """Refuse options that would do nothing.

        Raises:
            ConfigError: naming the option, and what it belongs to.
        """
        if self.method != "rtn" and scheme != "int4-weight":
            raise ConfigError(
                f"The option 'method' has no effect with the scheme {scheme!r}: it is one of INT4 weights.",
                fix="Leave it out, or choose the scheme int4-weight.",
            )


def parse_options(pairs: Mapping[str, str]) -> NeuralCompressorOptions:
    """The options from ``KEY=VALUE`` texts; keys may be written with ``-`` or ``_``.

    Raises:
        ConfigError: an unknown key, or a text that is no value of it.
    """
    return NeuralCompressorOptions(**parse_pairs("neural-compressor", pairs, _PARSERS, _NAMED))


_NAMED: Named = {}
_PARSERS: Mapping[str, Parser] = {"method": choice("rtn", "gptq", "awq")}
