"""Language models of Hugging Face, whose attention masks transformers computes by ``torch.vmap``."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from edgeq.calibration.types import Array
from edgeq.compiler.load import load
from edgeq.compiler.model import Model
from edgeq.compiler.recipe import Recipe
from edgeq.progress import SilentProgress
from edgeq.sources import DataOpener
from edgeq.targets.neural_compressor.dynamic import quantize_dynamic
from edgeq.targets.neural_compressor.inc import require_quietly
from edgeq.targets.neural_compressor.program import capture, flat_module
from edgeq.targets.neural_compressor.static import quantize_static
from tests.support.int4_folders import SIZES, tokens
from tests.support.language_models import random_model

pytest.importorskip("optimum")

PLAIN = Recipe(scheme="int8-static", range_method="minmax", smoothing=False, bias_correction=False)
# Rows of other numbers than the model is traced with, one of them padded.
INPUTS = tokens(5)
INPUTS["attention_mask"][1, 15:] = 0


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Array]:
    """A model, and the logits that transformers computes of ``INPUTS``."""
    require_quietly()
    folder = tmp_path_factory.mktemp("decoder")
    network = random_model(request.param, SIZES | {"num_hidden_layers": 1})
    network.save_pretrained(folder)
    with torch.no_grad():
        logits = network(**{name: torch.from_numpy(array) for name, array in INPUTS.items()}).logits
    return load(folder), logits.numpy()


def _noise(module: Any, wanted: Array) -> float:
    """Power of the difference relative to that of ``wanted``, at tokens that are no padding."""
    with torch.no_grad():
        (logits,) = module(*map(torch.from_numpy, INPUTS.values()))
    kept = INPUTS["attention_mask"] == 1
    return float(np.square(logits.numpy() - wanted)[kept].mean() / np.square(wanted)[kept].mean())


def test_decoders_are_stored_and_quantized(decoder: tuple[Model, Array]) -> None:
    from transformers import masking_utils

    model, wanted = decoder
    program = capture(model)
    assert [spec.name for spec in model.inputs] == list(INPUTS)
    assert masking_utils.ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is masking_utils.sdpa_mask
    # Read by the process that compiles.
    torch.export.save(program, io.BytesIO())
    module = flat_module(program, model)
    assert _noise(module, wanted) < 1e-10
    data = DataOpener(model.inputs, model.source, None, None).open(INPUTS)
    assert data is not None
    found = quantize_static(flat_module(program, model), model.inputs, PLAIN, data, SilentProgress())
    assert _noise(found.module, wanted) < 1e-2
    assert _noise(quantize_dynamic(module, PLAIN).module, wanted) < 1e-2
