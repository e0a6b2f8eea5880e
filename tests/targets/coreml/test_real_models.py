"""INT8 static packages of real models keep their accuracy, with float16 rounded as on the device."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq.calibration.types import Array

pytestmark = pytest.mark.slow

PARTS = edgeq.BenchOptions(parts=("size", "accuracy"))
CALIBRATION = 100


def compile_int8(
    model: Path, inputs: dict[str, Array], labels: Array, output: Path, metric: str, **arguments: object
) -> edgeq.CompileResult:
    """The artefact, judged on all ``inputs`` and calibrated on some of them."""
    step = max(1, len(labels) // CALIBRATION)
    result = edgeq.compile(
        model,
        target="coreml",
        scheme="int8-static",
        calibration={name: values[::step] for name, values in inputs.items()},
        evaluation={**inputs, "label": labels},
        metrics=[metric],
        output=output,
        bench=PARTS,
        threads=1,
        **arguments,  # type: ignore[arg-type]
    )
    checks = {check.name: check for check in result.manifest.checks}
    assert all(check.passed for check in checks.values())
    assert not result.manifest.missed
    return result


def lost(result: edgeq.CompileResult, metric: str) -> float:
    """Points of the metric that FP32 has more."""
    found = result.measurements[metric]
    assert found.baseline is not None
    return 100 * (found.baseline - found.value)


def test_keyword_spotting(edgeq_data: Path, tmp_path: Path) -> None:
    archive = np.load(edgeq_data / "kws-mfcc.npz")
    x = (archive["x"].astype(np.float32) - np.float32(83)) * np.float32(0.5847029)
    model = edgeq_data / "models" / "kws_dscnn_fp32.onnx"
    result = compile_int8(model, {"input_1": x}, archive["y"].astype(np.int64), tmp_path / "kws", "top1")
    assert lost(result, "top1") <= 0.5


def test_residual_network(edgeq_data: Path, tmp_path: Path) -> None:
    archive = np.load(edgeq_data / "cifar10-test-3k.npz")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((archive["x"][::6] / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    model = edgeq_data / "models" / "resnet20_cifar10_ts13.onnx"
    labels = archive["y"][::6].astype(np.int64)
    result = compile_int8(model, {"input": np.ascontiguousarray(x)}, labels, tmp_path / "resnet20", "top1")
    assert lost(result, "top1") <= 0.5
    size = result.measurements["size"]
    assert size.baseline is not None
    assert size.value <= 0.35 * size.baseline


def test_a_sentence_classifier(edgeq_data: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("optimum.exporters.onnx")
    folder = edgeq_data / "models" / "minilm-sst2"
    lines = (edgeq_data / "sst2" / "test.tsv").read_text().splitlines()[:300]
    sentences, labels = zip(*(line.rsplit("\t", 1) for line in lines), strict=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(
        list(sentences), padding="max_length", truncation=True, max_length=64, return_tensors="np"
    )
    result = compile_int8(
        folder,
        {name: values.astype(np.int64) for name, values in tokens.items()},
        np.array([int(label) for label in labels]),
        tmp_path / "minilm",
        "f1",
        target_options={"dimension.sequence_length": "64"},
    )
    found = result.measurements["f1"]
    assert found.baseline is not None
    assert found.value >= 0.99 * found.baseline


def test_an_image_classifier(edgeq_data: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = edgeq_data / "imagenet-val"
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[::4][:150]
    mean = np.array([104, 117, 123], np.float32)
    pixels = [np.asarray(image.open(folder / "images" / row["file"]).convert("RGB")) for row in rows]
    x = np.stack([(p[:, :, ::-1].astype(np.float32) - mean).transpose(2, 0, 1) for p in pixels])
    model = edgeq_data / "models" / "squeezenet1.1_227_imagenet_ts11.onnx"
    labels = np.array([int(row["label"]) for row in rows])
    result = compile_int8(model, {"data": x}, labels, tmp_path / "squeezenet", "top1")
    # two images of 150
    assert lost(result, "top1") <= 1.4
