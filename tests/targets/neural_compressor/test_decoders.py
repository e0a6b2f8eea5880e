"""Language models of Hugging Face, whose attention masks transformers computes by ``torch.vmap``."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import masking_utils

from edgeq.calibration.types import Array
from edgeq.compiler.load import load
from edgeq.compiler.model import Model
from edgeq.compiler.recipe import Recipe
from edgeq.progress import SilentProgress
from edgeq.sources import DataOpener
from edgeq.targets.neural_compressor.annotate import plan_in_float
from edgeq.targets.neural_compressor.dynamic import quantize_dynamic
from edgeq.targets.neural_compressor.inc import require_quietly
from edgeq.targets.neural_compressor.package import _export
from edgeq.targets.neural_compressor.program import capture, dynamic_shapes, example_of, flat_module
from edgeq.targets.neural_compressor.quantized import QuantizedProgram
from edgeq.targets.neural_compressor.static import quantize_static
from tests.support.int4_folders import SIZES, tokens
from tests.support.language_models import random_model

pytest.importorskip("optimum")

PLAIN = Recipe(scheme="fp32", range_method="minmax", smoothing=False, bias_correction=False)
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


def _in_float(module: torch.fx.GraphModule, model: Model, recipe: Recipe) -> QuantizedProgram:
    return plan_in_float(module, recipe)


def _static(module: torch.fx.GraphModule, model: Model, recipe: Recipe) -> QuantizedProgram:
    data = DataOpener(model.inputs, model.source, None, None).open(INPUTS)
    assert data is not None
    return quantize_static(module, model.inputs, recipe, data, SilentProgress())


def _dynamic(module: torch.fx.GraphModule, model: Model, recipe: Recipe) -> QuantizedProgram:
    return quantize_dynamic(module, recipe)


# Scheme → what quantizes, and the largest power of the difference relative to that of the logits.
SCHEMES: dict[str, tuple[Callable[..., QuantizedProgram], float]] = {
    "fp32": (_in_float, 1e-10),
    "int8-static": (_static, 1e-2),
    "int8-dynamic": (_dynamic, 1e-2),
}


def test_decoders_are_quantized_and_stored_in_every_scheme(decoder: tuple[Model, Array]) -> None:
    model, wanted = decoder
    program = capture(model)
    assert masking_utils.ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is masking_utils.sdpa_mask
    given = [torch.from_numpy(INPUTS[spec.name]) for spec in model.inputs]
    kept = np.flatnonzero(INPUTS["attention_mask"].ravel())
    for scheme, (quantize, limit) in SCHEMES.items():
        module = flat_module(program, model)
        shapes, example = dynamic_shapes(module), example_of(program, model)
        recipe = PLAIN.model_copy(update={"scheme": scheme})
        stored = io.BytesIO()
        # What the process that compiles reads.
        torch.export.save(_export(quantize(module, model, recipe).module, example, shapes), stored)
        stored.seek(0)
        with torch.no_grad():
            (logits,) = torch.export.load(stored).module()(*given)
        noise = (logits.numpy() - wanted).reshape(-1, wanted.shape[-1])[kept]
        assert np.square(noise).mean() / np.square(wanted).mean() < limit, scheme
