"""Token by token in onnxruntime-genai: the engine that applications load the artefact with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array
from edgeq.errors import MissingExtraError, TargetError
from edgeq.quiet import quiet
from edgeq.targets.inputs import nothing_started
from edgeq.targets.onnxruntime.session import explain


class Engine:
    """One text at a time, chosen token by token by the caller."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load the artefact in ``folder``.

        Raises:
            MissingExtraError: onnxruntime-genai is not installed.
            TargetError: it cannot load the artefact.
        """
        try:
            import onnxruntime_genai as og
        except ImportError as error:
            raise MissingExtraError("Generating with ONNX Runtime GenAI", "genai") from error
        self._library: Any = og
        self._generator: Any = None
        try:
            with quiet():
                config = og.Config(str(folder))
                config.overlay(json.dumps({"model": {"decoder": {"session_options": _options(threads)}}}))
                self._model: Any = og.Model(config)
        except Exception as error:  # its exceptions share no base but Exception
            raise TargetError(f"onnxruntime-genai cannot load {folder}: {explain(error)}") from error

    def start(self, prompt: Array, new_tokens: int) -> Array:
        """Read ``prompt`` int64 [tokens] into an empty cache; the next token's logits float32 [vocabulary].

        Raises:
            TargetError: the engine fails.
        """
        self._generator = None
        with _errors(f"a prompt of {len(prompt)} tokens"):
            parameters = self._library.GeneratorParams(self._model)
            parameters.set_search_options(
                max_length=len(prompt) + new_tokens + 1, do_sample=False, num_beams=1, min_length=0
            )
            self._generator = self._library.Generator(self._model, parameters)
        return self._read(prompt)

    def step(self, token: int) -> Array:
        """Read one token more.

        Raises:
            TargetError: nothing was started, or the engine fails.
        """
        if self._generator is None:
            raise nothing_started()
        return self._read(np.array([token]))

    def generate(self, prompt: Array, new_tokens: int) -> Array:
        """What the engine itself chooses, the likeliest token at every step: int64 [at most new_tokens].

        Raises:
            TargetError: the engine fails.
        """
        self.start(prompt, new_tokens)
        with _errors(f"{new_tokens} new tokens"):
            for _ in range(new_tokens):
                if self._generator.is_done():
                    break
                self._generator.generate_next_token()
            made = self._generator.get_sequence(0)
        return np.asarray(made[len(prompt) :], np.int64)

    def _read(self, tokens: Array) -> Array:
        with _errors(f"{len(tokens)} tokens"):
            self._generator.append_tokens(tokens.astype(np.int32)[None])
            logits = self._generator.get_logits()
        found: Array = np.array(logits, np.float32).reshape(-1, logits.shape[-1])[-1]
        return found


def _options(threads: int) -> dict[str, Any]:
    return {"intra_op_num_threads": threads, "inter_op_num_threads": 1, "log_severity_level": 4}


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Raise the engine's exceptions as TargetError."""
    try:
        yield
    except Exception as error:  # its exceptions share no base but Exception
        raise TargetError(f"onnxruntime-genai fails on {what}: {explain(error)}") from error
