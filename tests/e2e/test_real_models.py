"""INT8 static of real models keeps their accuracy, judged by the product's own gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgeq

pytestmark = pytest.mark.slow

PARTS = edgeq.BenchOptions(parts=("size", "accuracy"))


def gate(
    model: Path, inputs: dict[str, np.ndarray], labels: np.ndarray, output: Path, *budgets: str
) -> edgeq.CompileResult:
    return edgeq.compile(
        model,
        scheme="int8-static",
        calibration={name: values[::10] for name, values in inputs.items()},
        evaluation={**inputs, "label": labels},
        budgets=budgets,
        output=output,
        bench=PARTS,
        threads=1,
    )


def test_keyword_spotting(edgeq_data: Path, tmp_path: Path) -> None:
    """ONNX Runtime's own quantizer leaves 8 % of 91 % here on a CPU whose INT8 kernels saturate."""
    archive = np.load(edgeq_data / "kws-mfcc.npz")
    x = (archive["x"].astype(np.float32) - np.float32(83)) * np.float32(0.5847029)
    model = edgeq_data / "models" / "kws_dscnn_fp32.onnx"
    result = gate(
        model, {"input_1": x}, archive["y"].astype(np.int64), tmp_path / "kws", "top1 >= 99%", "sqnr >= 25"
    )
    assert [verdict.sentence for verdict in result.verdicts if not verdict.passed] == []
    assert not result.manifest.missed


def test_residual_network(edgeq_data: Path, tmp_path: Path) -> None:
    archive = np.load(edgeq_data / "cifar10-test-3k.npz")
    x = archive["x"][::3].astype(np.float32)
    labels = archive["y"][::3].astype(np.int64)
    model = edgeq_data / "models" / "ic_resnet8.onnx"
    result = gate(
        model, {"input_1": x}, labels, tmp_path / "resnet8", "top1 >= 98.5%", "sqnr >= 22", "size <= 45%"
    )
    assert [verdict.sentence for verdict in result.verdicts if not verdict.passed] == []
    assert not result.manifest.missed
