"""Quantized programs before they are compiled: ranges, weights, names, overrides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeq.calibration.affine import quant_params
from edgeq.calibration.ranges import choose_range
from edgeq.calibration.sketch import Sketch
from edgeq.compiler.load import load
from edgeq.compiler.model import Model
from edgeq.compiler.quantize.saturation import PAIR_LIMIT, worst_pair
from edgeq.compiler.recipe import Override, Recipe
from edgeq.errors import UsageError
from edgeq.progress import SilentProgress
from edgeq.sources import DataOpener
from edgeq.targets.neural_compressor.embeddings import store_tables
from edgeq.targets.neural_compressor.inc import require_quietly
from edgeq.targets.neural_compressor.program import capture, flat_module
from edgeq.targets.neural_compressor.quantized import QuantizedProgram
from edgeq.targets.neural_compressor.static import quantize_static

IMAGES = np.random.default_rng(3).standard_normal((24, 4, 8, 8)).astype(np.float32)
PLAIN = Recipe(scheme="int8-static", range_method="percentile", percentile=99.0, smoothing=False)


class Residual(nn.Module):
    """One ReLU that is called twice, as in torchvision's residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Shape [batch, 4, 8, 8]."""
        x = self.relu(self.norm(self.first(x)))
        return self.head(self.relu(self.second(x) + x).mean((2, 3)))


@pytest.fixture(scope="module")
def model() -> Model:
    require_quietly()
    torch.manual_seed(1)
    return load(Residual().eval(), example_inputs=(torch.from_numpy(IMAGES[:2]),))


def _quantized(model: Model, recipe: Recipe = PLAIN) -> QuantizedProgram:
    data = DataOpener(model.inputs, model.source, None, None).open({"x": IMAGES})
    assert data is not None
    module = flat_module(capture(model), model)
    return quantize_static(module, model.inputs, recipe, data, SilentProgress())


def _calls(module: Any, name: str) -> list[Any]:
    return [n for n in module.graph.nodes if n.op == "call_function" and name in str(n.target)]


def test_a_module_that_is_called_twice_is_fused_into_both_layers(model: Model) -> None:
    planned = {name: node.precision for name, node in _quantized(model).plan.nodes.items()}
    assert {"first", "relu/relu", "second", "add", "relu/relu_1"} <= {
        n for n, p in planned.items() if p == "int8"
    }


def test_the_range_of_the_input_is_that_of_edgeqs_sketch(model: Model) -> None:
    sketch = Sketch()
    sketch.update(IMAGES)
    scale, zero_point = quant_params(choose_range(sketch, "percentile", percentile=99.0), "uint8", False)
    first = _calls(_quantized(model).module, "quantize_per_tensor")[0]
    assert (np.float32(first.args[1]), first.args[2]) == (scale, zero_point)


@pytest.mark.parametrize("safe", [True, False])
def test_weights_cannot_saturate_unless_it_is_allowed(model: Model, safe: bool) -> None:
    module = _quantized(model, PLAIN.model_copy(update={"saturation_safe": safe})).module
    codes = [
        b.numpy() for _, b in [*module.named_buffers(), *module.named_parameters()] if b.dtype == torch.int8
    ]
    worst = max(
        worst_pair(c.transpose(0, *range(2, c.ndim), 1).reshape(len(c), -1).astype(np.int16)) for c in codes
    )
    assert (worst <= PAIR_LIMIT) == safe


def test_overrides_name_modules_and_ops(model: Model) -> None:
    kept = Override(match="sec*", precision="fp32")
    plan = _quantized(model, PLAIN.model_copy(update={"overrides": (kept,)})).plan
    assert plan.nodes["second"].precision == "fp32"
    assert plan.nodes["first"].precision == "int8"


@pytest.mark.parametrize(
    ("match", "precision", "why"),
    [("nope", "fp32", "matches no node"), ("op:mean", "int8", "no INT8 kernel"), ("head", "int4", "has not")],
)
def test_overrides_that_cannot_be_are_refused(model: Model, match: str, precision: Any, why: str) -> None:
    wish = Override(match=match, precision=precision)
    with pytest.raises(UsageError, match=why):
        _quantized(model, PLAIN.model_copy(update={"overrides": (wish,)}))


def test_a_tied_table_is_stored_in_int8_and_its_layer_keeps_its_own_weights() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(1024, 32)
            self.head = nn.Linear(32, 1024, bias=False)
            self.head.weight = self.words.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.words(ids))

    require_quietly()
    ids = np.arange(48).reshape(6, 8)
    model = load(Tied().eval(), example_inputs=(torch.from_numpy(ids[:2]),))
    data = DataOpener(model.inputs, model.source, None, None).open({"ids": ids})
    assert data is not None
    module = flat_module(capture(model), model)
    wanted = module(torch.from_numpy(ids))[0].detach()
    recipe = Recipe(scheme="int8-static", range_method="minmax", smoothing=False)
    found = quantize_static(module, model.inputs, recipe, data, SilentProgress())
    store_tables(found.module, found.plan, found.names)
    error = (found.module(torch.from_numpy(ids))[0] - wanted).square().sum() / wanted.square().sum()
    stored = sum(t.numel() * t.element_size() for t in {*found.module.buffers(), *found.module.parameters()})
    assert found.plan.nodes["words"].precision == "int8"
    assert float(error) < 1e-3
    assert stored < 2 * 1024 * 32 * 1.5  # two int8 matrices and their scales
