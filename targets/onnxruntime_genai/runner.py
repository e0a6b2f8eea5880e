"""Runs an artefact: logits of whole windows in plain ONNX Runtime, token by token in onnxruntime-genai."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import ModelError, TargetError
from edgeq.machine import usable_cores
from edgeq.targets.inputs import check_inputs, check_threads, closed_runner, nothing_started, sizes_text
from edgeq.targets.language.signature import TOKEN_IDS, logits
from edgeq.targets.onnxruntime.session import explain, open_session, session_options
from edgeq.targets.onnxruntime_genai.engine import Engine
from edgeq.targets.onnxruntime_genai.files import MODEL_FILE

_PAST = "past_key_values."


class GenaiRunner:
    """``input_ids`` int64 [batch, sequence] → ``logits`` float32 [batch, sequence, vocabulary].

    Only one of the two engines is in memory: each is opened when it is first asked for and closes the other.
    """

    def __init__(self, folder: Path, *, threads: int | None = None, model: str = MODEL_FILE) -> None:
        """Load the artefact in ``folder``, or the variant of its graph in the file ``model``.

        Raises:
            UsageError: ``threads`` is not positive.
            TargetError: ONNX Runtime cannot load the model.
            ModelError: it is none of this target.
        """
        check_threads(threads)
        self.folder = folder
        self.threads = threads or usable_cores()
        self._file = model
        self._engine: Engine | None = None
        self._session: Any = self._open()
        self._past, vocabulary = _signature(self._session, folder)
        self._outputs = [logits(vocabulary)]
        self._closed = False

    @property
    def inputs(self) -> list[TensorSpec]:
        return [TOKEN_IDS]

    @property
    def outputs(self) -> list[TensorSpec]:
        return list(self._outputs)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """The logits of every token, with an empty cache.

        Raises:
            DataError: an input is missing, unknown, or has the wrong dtype or shape.
            TargetError: the runner is closed, or ONNX Runtime fails.
        """
        if self._closed:
            raise closed_runner()
        check_inputs(self.inputs, inputs)
        if self._session is None:
            self._engine = None
            self._session = self._open()
        ids = inputs["input_ids"]
        feed = {"input_ids": ids, "attention_mask": np.ones(ids.shape, np.int64)}
        for name, (heads, size) in self._past.items():
            feed[name] = np.zeros((len(ids), heads, 0, size), np.float32)
        try:
            return {"logits": self._session.run(["logits"], feed)[0]}
        except Exception as error:  # ONNX Runtime's exceptions share no base class but Exception
            raise TargetError(
                f"ONNX Runtime fails on the inputs {sizes_text(inputs)}: {explain(error)}"
            ) from error

    def start(self, prompt: Array, new_tokens: int) -> Array:
        """Read ``prompt``, int64 [tokens]; the logits of the next token, float32 [vocabulary].

        Raises:
            MissingExtraError: onnxruntime-genai is not installed.
            TargetError: the runner is closed, or the engine fails.
        """
        return self._generating().start(prompt, new_tokens)

    def step(self, token: int) -> Array:
        """Read one token more; the logits of the next one, float32 [vocabulary].

        Raises:
            TargetError: nothing was started, or the engine fails.
        """
        if self._engine is None:
            raise nothing_started()
        return self._engine.step(token)

    def generate(self, prompt: Array, new_tokens: int) -> Array:
        """What onnxruntime-genai chooses after ``prompt``, greedily: int64 [at most new_tokens].

        Raises:
            MissingExtraError: onnxruntime-genai is not installed.
            TargetError: the runner is closed, or the engine fails.
        """
        return self._generating().generate(prompt, new_tokens)

    def close(self) -> None:
        self._session = self._engine = None
        self._closed = True

    def _generating(self) -> Engine:
        if self._closed:
            raise closed_runner()
        if self._engine is None:
            self._session = None
            self._engine = Engine(self.folder, self.threads)
        return self._engine

    def _open(self) -> Any:
        return open_session(self.folder / self._file, session_options(self.threads))


def _signature(session: Any, folder: Path) -> tuple[dict[str, tuple[int, int]], int]:
    """Name of each cache → heads and size of a head; and the size of the vocabulary."""
    past = {i.name: (i.shape[1], i.shape[3]) for i in session.get_inputs() if i.name.startswith(_PAST)}
    found = next((o for o in session.get_outputs() if o.name == "logits"), None)
    if found is None or not past:
        raise ModelError(
            f"{folder / MODEL_FILE} is no decoder with a key-value cache.", fix="Compile the model again."
        )
    return past, int(found.shape[2])
