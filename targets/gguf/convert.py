"""A checkpoint as a GGUF file of floats, codes, or blocks of the gguf package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeq.compiler.load.checkpoint import Checkpoint
from edgeq.progress import Progress
from edgeq.targets.gguf.architectures import (
    Architecture,
    Config,
    architecture_of,
    full_config,
    refuse_unsupported,
)
from edgeq.targets.gguf.closest import with_closest
from edgeq.targets.gguf.contents import Weights, content_of
from edgeq.targets.gguf.metadata import Entry, context_length, hyperparameters, rope_factors
from edgeq.targets.gguf.tensors import TensorPlace, places
from edgeq.targets.gguf.types import FILE_TYPES, FileType
from edgeq.targets.gguf.vocabulary import Vocabulary, read_vocabulary
from edgeq.targets.gguf.write import Content, write_file

ROPE_FACTORS = "rope_freqs.weight"
_QUANTIZATION_VERSION = 2


@dataclass(frozen=True)
class Conversion:
    """Everything about a model that is known before its tensors are read."""

    checkpoint: Checkpoint
    config: Config
    architecture: Architecture
    places: Sequence[TensorPlace]
    vocabulary: Vocabulary

    @classmethod
    def of(cls, folder: Path) -> Conversion:
        """Of the model in ``folder``.

        Raises:
            TargetError: llama.cpp has no such model or tokenizer.
            ModelError: the folder is damaged.
        """
        checkpoint = Checkpoint(folder)
        architecture = architecture_of(checkpoint.architecture, str(folder))
        config = full_config(folder)
        refuse_unsupported(config, architecture)
        vocabulary = read_vocabulary(folder, config["vocab_size"])
        return cls(checkpoint, config, architecture, places(checkpoint, config, architecture), vocabulary)

    def entries(self, file_type: FileType) -> list[Entry]:
        """The keys besides the tokenizer's."""
        return [
            ("file_type", file_type.file_type),
            ("quantization_version", _QUANTIZATION_VERSION),
            *hyperparameters(self.config, self.architecture),
        ]

    def contents(self, weights: Weights, file_type: FileType, others: Mapping[str, str]) -> list[Content]:
        """The tensors; ``others``: layer → another type than the file's."""
        found = [content_of(place, weights, file_type, others) for place in self.places]
        factors = rope_factors(self.config)
        if factors is None:
            return found
        return [Content(ROPE_FACTORS, factors.shape, "F32", lambda: np.asarray(factors)), *found]

    def write(
        self,
        path: Path,
        weights: Weights,
        file_type: FileType,
        others: Mapping[str, str],
        progress: Progress,
    ) -> None:
        """Write ``path``."""
        contents = self.contents(weights, file_type, others)
        entries = self.entries(file_type)
        write_file(path, self.architecture.name, entries, self.vocabulary, contents, progress)

    def with_pre_tokenizer(self) -> tuple[Conversion, list[str]]:
        """The conversion with the closest pre-tokenizer where llama.cpp has not the model's, and a note.

        Raises:
            TargetError: llama-cpp-python, which tells how close one comes, is not installed.
        """
        if self.vocabulary.pre is not None:
            return self, []
        entries = self.entries(FILE_TYPES["f32"])
        folder = self.checkpoint.path
        vocabulary, note = with_closest(folder, self.vocabulary, self.architecture.name, entries)
        return replace(self, vocabulary=vocabulary), [note]

    def notes(self) -> list[str]:
        """What a user should know of how llama.cpp runs the model."""
        found = []
        if context_length(self.config, self.architecture) < self.config["max_position_embeddings"]:
            found.append(
                f"llama.cpp runs this model without its sliding window, so the file says a context of "
                f"{self.config['sliding_window']} tokens, within which both compute the same."
            )
        if self.vocabulary.kind == "none":
            found.append("The model has no tokenizer: engines run the file on token ids only.")
        return found
