"""What the user can choose about a Neural Compressor artefact, from ``KEY=VALUE`` texts to one value."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from edgeq.targets.option_values import Named, Parser, parse_pairs


class NeuralCompressorOptions(BaseModel):
    """Options of the target ``neural-compressor``."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def parse_options(pairs: Mapping[str, str]) -> NeuralCompressorOptions:
    """The options from ``KEY=VALUE`` texts; keys may be written with ``-`` or ``_``.

    Raises:
        ConfigError: an unknown key, or a text that is no value of it.
    """
    return NeuralCompressorOptions(**parse_pairs("neural-compressor", pairs, _PARSERS, _NAMED))


_NAMED: Named = {}
_PARSERS: Mapping[str, Parser] = {}
