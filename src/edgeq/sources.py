"""Calibration and evaluation data as the user names it, opened for one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.calibration.data import DataOptions, open_data
from edgeq.calibration.data.running_text import RunningTextSource
from edgeq.calibration.preprocess import Preprocessing, parse_preprocessing
from edgeq.calibration.types import DataSource, TensorSpec
from edgeq.compiler.load.hugging_face import tokenizer_folder
from edgeq.compiler.model import Source
from edgeq.errors import DataError


@dataclass(frozen=True)
class DataOpener:
    """Opens calibration and evaluation data the same way.

    ``inputs`` are the model's; ``source`` may bring a tokenizer, and once it is gone the artefact in
    ``artefact``; preprocessing may be a preset's name or ``field=value`` words.
    """

    inputs: Sequence[TensorSpec]
    source: Source
    preprocessing: Preprocessing | str | None
    options: DataOptions | None
    artefact: Path | None = None

    def open(self, spec: Any) -> DataSource | None:
        """The data, or None when none was given.

        Raises:
            DataError: the data is missing or does not fit the model.
            ConfigError: the preprocessing cannot be read.
            MissingExtraError: reading it needs an optional package.
        """
        if spec is None:
            return None
        declared = self.preprocessing
        if isinstance(declared, str):
            declared = parse_preprocessing(declared)
        opened = open_data(spec, self.inputs, preprocessing=declared, options=self._options())
        if isinstance(opened, RunningTextSource):
            _refuse_unfit(opened, self.source.details)
        return opened

    def _options(self) -> DataOptions:
        """A Hugging Face folder brings its own tokenizer, unless another is named."""
        options = self.options or DataOptions()
        named = self.source.details.get("tokenizer")
        if not named or options.tokenizer is not None:
            return options
        tokenizer = Path(named)
        if self.artefact is not None and not tokenizer.exists() and tokenizer_folder(self.artefact):
            tokenizer = self.artefact
        return options.model_copy(update={"tokenizer": tokenizer})


def _refuse_unfit(text: RunningTextSource, details: Mapping[str, Any]) -> None:
    """Text that a checkpoint cannot read: longer windows than its context, or tokens that it has not.

    Raises:
        DataError: naming both sizes.
    """
    window, context = text.details()["window"], details.get("context")
    if context is not None and window > context:
        raise DataError(
            f"Windows of the text have {window} tokens, and the model reads {context}.",
            fix=f"Make them smaller: --data-option window={context}.",
        )
    vocabulary = details.get("vocabulary")
    if vocabulary is not None and text.largest_id >= vocabulary:
        raise DataError(
            f"The tokenizer makes the token {text.largest_id} of {text.location}, and the model has "
            f"{vocabulary}.",
            fix="Take the tokenizer that belongs to the model.",
        )
