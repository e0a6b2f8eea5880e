"""Dynamic INT8: Neural Compressor's documented flow breaks models, edgeq's does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeq.calibration.types import Array
from edgeq.quiet import quiet
from edgeq.targets.neural_compressor.inc import require_quietly
from edgeq.targets.neural_compressor.runner import open_runner
from tests.support.neural_compressor import Artefact, Layers, layers_inputs, outputs, seeded

X = layers_inputs(8, seed=5)["x"]


def _noise(found: Array, wanted: Array) -> float:
    """Power of the difference relative to that of ``wanted``."""
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


def test_the_documented_flow_is_wrong_and_the_artefact_is_right(
    dynamic: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_quietly()
    from neural_compressor.torch.algorithms.pt2e_quant.core import W8A8PT2EQuantizer
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import DynamicQuantConfig, convert, prepare

    # what the flow below sets, and does not put back
    monkeypatch.setattr(W8A8PT2EQuantizer, "is_dynamic", W8A8PT2EQuantizer.is_dynamic)
    with quiet(), torch.no_grad():
        exported = export(seeded(Layers), (torch.from_numpy(X),))
        documented = convert(prepare(exported, DynamicQuantConfig()))(torch.from_numpy(X)).numpy()
    (wanted,) = outputs(seeded(Layers), {"x": X})
    with open_runner(dynamic.folder, threads=1) as runner:
        (ours,) = runner.run({"x": X}).values()
    assert _noise(documented, wanted) > 0.1
    assert _noise(ours, wanted) < 1e-3
