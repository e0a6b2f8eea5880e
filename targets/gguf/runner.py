"""Runs a GGUF file with llama.cpp: token ids in, logits out, as users' engines do."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeq.calibration.types import Array, Arrays
from edgeq.errors import DataError
from edgeq.machine import usable_cores
from edgeq.targets.gguf.llama import LlamaModel
from edgeq.targets.inputs import check_threads, closed_runner, nothing_started
from edgeq.targets.language.signature import TOKEN_IDS, logits
from edgeq.targets.loaded import LoadedRunner


class LlamaRunner(LoadedRunner):
    """``input_ids`` int64 [batch, sequence] → ``logits`` float32 [batch, sequence, vocabulary].

    llama.cpp rounds activations to the type of the blocks that they are multiplied with (8 bits for
    quantized weights), so its logits are those of the artefact as it runs.
    """

    def __init__(self, path: Path, *, threads: int | None = None, exact_cache: bool = False) -> None:
        """Load ``path``; ``threads`` None: every usable CPU.

        Raises:
            MissingExtraError: llama-cpp-python is not installed.
            ModelError: llama.cpp refuses the file.
            UsageError: ``threads`` is not positive.
        """
        check_threads(threads)
        model = LlamaModel(path, threads=threads or usable_cores(), exact_cache=exact_cache)
        self._tokens = model.tokens
        self._read: int | None = None
        super().__init__(model, [TOKEN_IDS], [logits(self._tokens)])

    def _run(self, inputs: Arrays) -> dict[str, Array]:
        """The logits, one sequence after the other."""
        model, ids = self._open(), inputs["input_ids"]
        self._check_ids(ids)
        self._read = None
        found = np.empty((*ids.shape, self._tokens), np.float32)
        for index, sequence in enumerate(ids):
            found[index] = model.logits(sequence)
        return {"logits": found}

    def start(self, prompt: Array, new_tokens: int) -> Array:
        """Read a prompt, int64 [tokens]; the logits of the next token, float32 [vocabulary].

        Raises:
            DataError: it is empty, or holds ids that are no tokens.
            TargetError: the runner is closed, or llama.cpp fails.
        """
        model = self._open()
        self._check_ids(prompt)
        model.forget(len(prompt) + new_tokens)
        self._read = len(prompt)
        return model.read(prompt, 0)

    def step(self, token: int) -> Array:
        """Read one token more; the logits of the next one, float32 [vocabulary].

        Raises:
            TargetError: nothing was started, or llama.cpp fails.
        """
        model = self._open()
        if self._read is None:
            raise nothing_started()
        self._read += 1
        return model.read(np.array([token]), self._read - 1)

    def close(self) -> None:
        if self._model is not None:
            self._model.close()
        super().close()

    def _open(self) -> LlamaModel:
        model: LlamaModel | None = self._model
        if model is None:
            raise closed_runner()
        return model

    def _check_ids(self, ids: Array) -> None:
        if ids.size == 0:
            raise DataError("There are no tokens to read.", fix="Give at least one.")
        wrong = ids[(ids < 0) | (ids >= self._tokens)]
        if wrong.size:
            raise DataError(
                f"The token {wrong.flat[0]} is none of the model's {self._tokens}.",
                fix="Take the model's own tokenizer.",
            )
