"""FP32 accuracies of real models through our data sources and metrics, as measured independently of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgeq.benchmarks.metrics import Accumulator, default_metrics, get_metric
from edgeq.calibration.data import DataOptions, open_data
from edgeq.calibration.preprocess import Preprocessing, parse_preprocessing
from edgeq.calibration.types import TensorSpec

pytestmark = pytest.mark.slow

TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
CIFAR = Preprocessing(
    layout="nchw", array_layout="nhwc", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
CAFFE = parse_preprocessing("imagenet-caffe-bgr resize=none")
KWS = Preprocessing(mean=(83,), std=(1 / 0.5847029,))


def specs(nodes: Sequence[ort.NodeArg]) -> list[TensorSpec]:
    return [TensorSpec(n.name, np.dtype(TYPES[n.type]), tuple(n.shape)) for n in nodes]


def measure(
    model: Path,
    data: Path,
    metrics: Sequence[str],
    preprocessing: Preprocessing | None = None,
    options: DataOptions | None = None,
    batch_size: int = 32,
) -> list[float]:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    source = open_data(data, specs(session.get_inputs()), preprocessing=preprocessing, options=options)
    outputs = specs(session.get_outputs())
    accumulators = [Accumulator(get_metric(name)) for name in metrics]
    for accumulator in accumulators:
        accumulator.metric.check(source, outputs)
    assert metrics[0] in default_metrics(source, outputs)
    names = [spec.name for spec in outputs]
    for batch in source.batches(batch_size):
        result = dict(zip(names, session.run(names, batch.inputs), strict=True))
        for accumulator in accumulators:
            accumulator.update(result, batch)
    return [accumulator.value() for accumulator in accumulators]


@pytest.mark.parametrize(
    ("model", "data", "preprocessing", "expected"),
    [
        ("squeezenet1.1_227_imagenet_ts11.onnx", "imagenet-val", CAFFE, 0.7369),
        ("squeezenet1.1_227_imagenet_dynamo18.onnx", "imagenet-val", CAFFE, 0.7369),
        ("resnet20_cifar10_ts13.onnx", "cifar10-test-3k.npz", CIFAR, 0.8103),
        ("resnet44_cifar10_dyn20.onnx", "cifar10-test-3k.npz", CIFAR, 0.8250),
        ("ic_resnet8.onnx", "cifar10-test-3k.npz", None, 0.7613),
        ("vww_mobilenet025.onnx", "vww.npz", parse_preprocessing("scale=1/255"), 0.850),
        ("kws_dscnn_fp32.onnx", "kws-mfcc.npz", KWS, 0.912),
    ],
)
def test_top1(
    edgeq_data: Path, model: str, data: str, preprocessing: Preprocessing | None, expected: float
) -> None:
    (value,) = measure(edgeq_data / "models" / model, edgeq_data / data, ["top1"], preprocessing)
    assert value == pytest.approx(expected, abs=1e-4)


def exported(folder: Path, tmp_path: Path) -> Path:
    from edgeq.compiler.load import load
    from edgeq.compiler.model import save

    save(load(folder), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_sentences(edgeq_data: Path, tmp_path: Path) -> None:
    folder = edgeq_data / "models" / "minilm-sst2"
    options = DataOptions(tokenizer=folder)
    accuracy, f1 = measure(
        exported(folder, tmp_path), edgeq_data / "sst2" / "test.tsv", ["top1", "f1"], options=options
    )
    assert accuracy == pytest.approx(0.8885, abs=1e-4)
    assert f1 == pytest.approx(0.8890, abs=1e-4)


def test_language_model(edgeq_data: Path, tmp_path: Path) -> None:
    folder = edgeq_data / "models" / "books-llama"
    options = DataOptions(tokenizer=folder, max_tokens=40_000, window=256)
    model = exported(folder, tmp_path)
    for name, expected in (("books-valid.txt", 53.345), ("wikitext2-valid.txt", 723.33)):
        data = edgeq_data / "text" / name
        (value,) = measure(model, data, ["perplexity"], options=options, batch_size=4)
        assert value == pytest.approx(expected, rel=1e-4)
