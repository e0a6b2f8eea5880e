"""A runner as a language model of lm-eval. Importing this module imports lm-eval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from edgeq.calibration.types import Array
from edgeq.errors import DataError, UsageError
from edgeq.progress import Advance
from edgeq.targets.base import GeneratingRunner, Runner

# Of a model whose configuration does not say; lm-eval takes the same.
_CONTEXT = 2048


class RunnerModel(TemplateLM):  # type: ignore[misc]  # lm-eval has no types
    """Answers lm-eval's three kinds of requests from a runner's logits, one text at a time.

    Tokens, prefixes, windows and cuts are those of lm-eval's own model ``hf``, so that numbers can be
    compared with ``lm_eval --model hf``.
    """

    def __init__(self, runner: Runner, folder: Path, advance: Advance) -> None:
        """``folder`` holds the tokenizer and the configuration of the model; raises DataError, UsageError."""
        super().__init__()
        self._inputs = [spec.name for spec in runner.inputs]
        if "input_ids" not in self._inputs or len(runner.outputs[0].shape or ()) != 3:
            raise UsageError(
                "Tasks of lm-eval need a language model: input_ids in, logits of every token out.",
                fix="Leave them out.",
            )
        self._runner = runner
        self._advance = advance
        self.tokenizer = load_tokenizer(folder)
        self._context = context_of(folder)

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id or 0)

    @property
    def prefix_token_id(self) -> int:
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        bos = self.tokenizer.bos_token
        if add_special_tokens is None and bos is not None and string.startswith(bos):
            add_special_tokens = False
        chosen = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        ids: list[int] = self.tokenizer.encode(string, **chosen)
        return ids

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        return [self._rolling(*request.args) for request in requests]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        return [self._written(*request.args) for request in requests]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = True, **_: Any
    ) -> list[tuple[float, bool]]:
        return [self._scored(context, continuation) for _, context, continuation in requests]

    def _scored(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        """Log-likelihood of the continuation, and whether each of its tokens was the likeliest."""
        tokens = (context + continuation)[-(self._context + 1) :][:-1]
        logits = self._logits(tokens)[-len(continuation) :].astype(np.float64)
        wanted = np.array(continuation[-len(logits) :])
        peak = logits.max(axis=1)
        norm = np.log(np.exp(logits - peak[:, None]).sum(axis=1)) + peak
        own = logits[np.arange(len(wanted)), wanted]
        self._advance(1)
        return float((own - norm).sum()), bool((logits.argmax(axis=1) == wanted).all())

    def _rolling(self, text: str) -> float:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self._context,
            context_len=1,
        )
        return sum(self._scored(*make_disjoint_window(window))[0] for window in windows)

    def _written(self, context: str, asked: dict[str, Any]) -> str:
        settings = normalize_gen_kwargs(asked, 256)
        if settings.get("do_sample"):
            raise UsageError(
                "A task asks for sampled text, which would differ from run to run.",
                fix="Write generation_kwargs: {do_sample: false} into it.",
            )
        stops = handle_stop_sequences(settings.get("until"), self.tokenizer.decode(self.eot_token_id))
        new_tokens = int(settings["max_gen_toks"])
        room = self._context - new_tokens
        if room < 1:
            raise UsageError(
                f"A task writes {new_tokens} tokens, and the model reads {self._context} at most.",
                fix="Write a smaller max_gen_toks into its generation_kwargs.",
            )
        text = self._greedy(self.tok_encode(context)[-room:], new_tokens, [stop for stop in stops if stop])
        self._advance(1)
        return text

    def _greedy(self, tokens: list[int], new_tokens: int, stops: list[str]) -> str:
        """The likeliest text, up to the first of ``stops``."""
        written: list[int] = []
        logits = self._first(tokens, new_tokens)
        while True:
            written.append(int(logits.argmax()))
            text = self.tokenizer.decode(written)
            places = [text.index(stop) for stop in stops if stop in text]
            if places:
                return str(text[: min(places)])
            if written[-1] == self.eot_token_id or len(written) == new_tokens:
                return str(self.tokenizer.decode(written, skip_special_tokens=True))
            logits = self._next(tokens, written)

    def _first(self, tokens: list[int], new_tokens: int) -> Array:
        if isinstance(self._runner, GeneratingRunner):
            return self._runner.start(np.array(tokens, dtype=np.int64), new_tokens)
        return np.asarray(self._logits(tokens)[-1])

    def _next(self, tokens: list[int], written: list[int]) -> Array:
        if isinstance(self._runner, GeneratingRunner):
            return self._runner.step(written[-1])
        return np.asarray(self._logits(tokens + written)[-1])

    def _logits(self, tokens: list[int]) -> Array:
        ids = np.array([tokens], dtype=np.int64)
        known = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(len(tokens))[None],
        }
        inputs = {name: known[name] for name in self._inputs if name in known}
        return np.asarray(next(iter(self._runner.run(inputs).values()))[0])


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of the Hugging Face model in ``folder``; raises DataError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # every tokenizer class fails in its own way
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"Tasks need the model's tokenizer, and {folder} has none that can be read: {first}.",
            fix="Give the Hugging Face folder of the model as --baseline.",
        ) from error


def context_of(folder: Path) -> int:
    """How many tokens the model in ``folder`` reads at most."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return int(config.get("max_position_embeddings") or _CONTEXT)
