"""Runs a language model of transformers: token ids in, logits out."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeq.calibration.types import Array, Arrays, TensorSpec
from edgeq.errors import TargetError
from edgeq.machine import usable_cores
from edgeq.targets.inputs import check_inputs, check_threads, closed_runner, sizes_text


class LanguageRunner:
    """``input_ids`` int64 [batch, sequence] → ``logits`` float32 [batch, sequence, vocabulary]."""

    def __init__(self, model: Any, *, threads: int | None = None) -> None:
        """``model`` is a causal model of transformers; ``threads`` None: every usable CPU."""
        check_threads(threads)
        self.threads = threads or usable_cores()
        self.model: Any = model
        self._vocabulary = int(model.config.vocab_size)

    @property
    def inputs(self) -> list[TensorSpec]:
        return [TensorSpec("input_ids", np.dtype(np.int64), ("batch", "sequence"))]

    @property
    def outputs(self) -> list[TensorSpec]:
        return [TensorSpec("logits", np.dtype(np.float32), ("batch", "sequence", self._vocabulary))]

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """The logits.

        Raises:
            DataError: an input is missing, unknown, or has the wrong dtype or shape.
            TargetError: the runner is closed, or PyTorch fails.
        """
        import torch

        if self.model is None:
            raise closed_runner()
        check_inputs(self.inputs, inputs)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                found = self.model(input_ids=torch.from_numpy(inputs["input_ids"]), use_cache=False).logits
        except (RuntimeError, IndexError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise TargetError(f"The model fails on the inputs {sizes_text(inputs)}: {first}") from error
        finally:
            torch.set_num_threads(before)
        return {"logits": np.asarray(found.float().numpy())}

    def close(self) -> None:
        self.model = None
