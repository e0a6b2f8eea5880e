"""Runs a language model of transformers: token ids in, logits out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays
from edgeq.errors import TargetError
from edgeq.machine import usable_cores
from edgeq.targets.inputs import check_threads, closed_runner, nothing_started, sizes_text
from edgeq.targets.language.known_states import KnownStates
from edgeq.targets.language.signature import TOKEN_IDS, logits
from edgeq.targets.loaded import LoadedRunner


class LanguageRunner(LoadedRunner):
    """``input_ids`` int64 [batch, sequence] → ``logits`` float32 [batch, sequence, vocabulary]."""

    def __init__(self, model: Any, *, threads: int | None = None, states: Path | None = None) -> None:
        """``model`` is a causal model of transformers; ``threads`` None: every usable CPU.

        ``states``: a folder for what is computed, which is not computed again
        (:class:`edgeq.targets.language.known_states.KnownStates`).
        """
        check_threads(threads)
        self.threads = threads or usable_cores()
        self._past: Any = None
        self._known = None if states is None else KnownStates(model, states)
        super().__init__(model, [TOKEN_IDS], [logits(int(model.config.vocab_size))])

    def _run(self, inputs: Arrays) -> dict[str, Array]:
        import torch

        ids = torch.from_numpy(inputs["input_ids"])
        forward = partial(self._forward, sizes_text(inputs), input_ids=ids, use_cache=False)
        found = forward().logits if self._known is None else self._known.logits(inputs["input_ids"], forward)
        return {"logits": np.asarray(found.float().numpy())}

    def start(self, prompt: Array, new_tokens: int) -> Array:
        """Read a prompt, int64 [tokens]; the logits of the next token, float32 [vocabulary].

        Raises:
            TargetError: the runner is closed, or PyTorch fails.
        """
        self._past = None
        return self._read(prompt)

    def step(self, token: int) -> Array:
        """Read one token more; the logits of the next one, float32 [vocabulary].

        Raises:
            TargetError: nothing was started, or PyTorch fails.
        """
        if self._past is None:
            raise nothing_started()
        return self._read(np.array([token], dtype=np.int64))

    def close(self) -> None:
        super().close()
        self._past = self._known = None

    def recalling(self, folder: Path) -> LanguageRunner:
        """The same model in a runner that keeps what it computes in ``folder``; both must be closed."""
        if self._model is None:
            raise closed_runner()
        return LanguageRunner(self._model, threads=self.threads, states=folder)

    def _read(self, tokens: Array) -> Array:
        """Tokens after those in the cache, which grows by them; the logits behind the last one."""
        import torch

        ids = torch.from_numpy(tokens[None])
        found = self._forward(
            f"of {len(tokens)} tokens",
            input_ids=ids,
            past_key_values=self._past,
            use_cache=True,
            logits_to_keep=1,
        )
        self._past = found.past_key_values
        return np.asarray(found.logits[0, -1].float().numpy())

    def _forward(self, what: str, **arguments: Any) -> Any:
        import torch

        if self._model is None:
            raise closed_runner()
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                return self._model(**arguments)
        except (RuntimeError, IndexError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise TargetError(f"The model fails on the inputs {what}: {first}") from error
        finally:
            torch.set_num_threads(before)
