"""The labelled sets of the shared data folder as plain arrays, the same for edgeq and for every peer.

No separate calibration files exist for CIFAR-10, VWW and keyword spotting: there a part of the file, spread
over it where it is sorted by class, calibrates and the whole file is evaluated, for every tool alike.
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DATA = Path(os.environ.get("EDGEQ_DATA", "../shared/data"))
CALIBRATION_SAMPLES = 300
CIFAR_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
CIFAR_STD = np.array([0.229, 0.224, 0.225], np.float32)
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class LabelledSet:
    """A model, calibration inputs, evaluation inputs with labels, and the metric that judges it."""

    name: str
    model: Path
    calibration: Arrays
    evaluation: Arrays
    labels: np.ndarray[Any, Any]
    metric: str

    def labelled_evaluation(self, samples: int | None = None) -> Arrays:
        """Evaluation inputs with their ``label``; ``samples`` of them, spread over the set."""
        count = len(self.labels)
        chosen = np.linspace(0, count - 1, min(samples or count, count)).astype(int)
        return {**{n: values[chosen] for n, values in self.evaluation.items()}, "label": self.labels[chosen]}


def _images(folder: Path, limit: int | None = None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Read JPEGs as BGR minus the Caffe mean, NCHW float32, centre-cropped to 227."""
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[:limit]
    pixels = np.stack([_image(folder / "images" / row["file"]) for row in rows])
    return pixels, np.array([int(row["label"]) for row in rows])


def _image(path: Path) -> np.ndarray[Any, Any]:
    image = Image.open(path).convert("RGB")
    left, top = (image.width - 227) // 2, (image.height - 227) // 2
    rgb = np.asarray(image.crop((left, top, left + 227, top + 227)), np.float32)
    bgr = rgb[:, :, ::-1] - np.array([104, 117, 123], np.float32)
    return np.ascontiguousarray(bgr.transpose(2, 0, 1))


def _squeezenet(exporter: str) -> LabelledSet:
    calibration, _ = _images(DATA / "imagenet-calibration")
    evaluation, labels = _images(DATA / "imagenet-val")
    model = DATA / "models" / f"squeezenet1.1_227_imagenet_{exporter}.onnx"
    return LabelledSet(
        f"squeezenet-{exporter}", model, {"data": calibration}, {"data": evaluation}, labels, "top1"
    )


def _cifar(name: str, file: str, input_name: str, nhwc: bool) -> LabelledSet:
    archive = np.load(DATA / "cifar10-test-3k.npz")
    x = archive["x"].astype(np.float32)
    if not nhwc:
        x = ((x / np.float32(255) - CIFAR_MEAN) / CIFAR_STD).transpose(0, 3, 1, 2)
    x = np.ascontiguousarray(x)
    return LabelledSet(
        name,
        DATA / "models" / file,
        # The file is sorted by class: every tenth sample calibrates.
        {input_name: x[::10]},
        {input_name: x},
        archive["y"].astype(np.int64),
        "top1",
    )


def _vww() -> LabelledSet:
    archive = np.load(DATA / "vww.npz")
    x = archive["x"].astype(np.float32) / np.float32(255)
    model = DATA / "models" / "vww_mobilenet025.onnx"
    labels = archive["y"].astype(np.int64)
    # The file is sorted by class: every second sample calibrates, so that both classes are seen.
    return LabelledSet("vww", model, {"input_1": x[::2]}, {"input_1": x}, labels, "top1")


def _kws() -> LabelledSet:
    archive = np.load(DATA / "kws-mfcc.npz")
    x = (archive["x"].astype(np.float32) - np.float32(83)) * np.float32(0.5847029)
    model = DATA / "models" / "kws_dscnn_fp32.onnx"
    return LabelledSet(
        "kws",
        model,
        {"input_1": x[:CALIBRATION_SAMPLES]},
        {"input_1": x},
        archive["y"].astype(np.int64),
        "top1",
    )


def minilm_onnx() -> Path:
    """Export MiniLM once per machine by optimum; returns the ONNX file."""
    folder = Path(tempfile.gettempdir()) / "edgeq-peers-minilm"
    if not (folder / "model.onnx").exists():
        os.environ["HF_HUB_OFFLINE"] = "1"
        from optimum.exporters.onnx import main_export

        main_export(
            str(DATA / "models" / "minilm-sst2"), folder, task="text-classification", do_validation=False
        )
    return folder / "model.onnx"


def _sst2(file: str, limit: int | None = None) -> tuple[Arrays, np.ndarray[Any, Any]]:
    from transformers import AutoTokenizer

    lines = (DATA / "sst2" / file).read_text().splitlines()[:limit]
    sentences, labels = zip(*(line.rsplit("\t", 1) for line in lines), strict=True)
    tokenizer = AutoTokenizer.from_pretrained(DATA / "models" / "minilm-sst2")
    tokens = tokenizer(
        list(sentences), padding="max_length", truncation=True, max_length=64, return_tensors="np"
    )
    return {k: v.astype(np.int64) for k, v in tokens.items()}, np.array([int(label) for label in labels])


def _minilm() -> LabelledSet:
    calibration, _ = _sst2("train.tsv", CALIBRATION_SAMPLES)
    evaluation, labels = _sst2("test.tsv")
    return LabelledSet("minilm-sst2", minilm_onnx(), calibration, evaluation, labels, "f1")


SETS: dict[str, Callable[[], LabelledSet]] = {
    "squeezenet-ts11": partial(_squeezenet, "ts11"),
    "squeezenet-dynamo18": partial(_squeezenet, "dynamo18"),
    "resnet20": partial(_cifar, "resnet20", "resnet20_cifar10_ts13.onnx", "input", nhwc=False),
    "resnet44": partial(_cifar, "resnet44", "resnet44_cifar10_dyn20.onnx", "input", nhwc=False),
    "resnet8": partial(_cifar, "resnet8", "ic_resnet8.onnx", "input_1", nhwc=True),
    "vww": _vww,
    "kws": _kws,
    "minilm-sst2": _minilm,
}
