"""Calibration of SqueezeNet 1.1 with 200 images at a percentile: edgeq, ONNX Runtime, bare FP32 inference.

    EDGEQ_DATA=../shared/data python benchmarks/peers/calibration.py [--rounds N] [--threads N]

Every measurement is a fresh process. Imports and reading the arrays are over when its clock starts; creating
the session, inference, statistics and (for edgeq) making the compiled kernel are inside. Images are decoded
beforehand, the same array for all; loading them is measured on its own. Peak memory is the process's
high-water mark; "above bare" subtracts that of the bare inference process. Rounds are interleaved, and ratios
are medians of the ratios within a round.

``edgeq`` calibrates the tensors that its int8-static plan needs, on its normalized model. ``edgeq, same
tensors`` calibrates exactly those that ``onnxruntime.quantization`` calibrates, on the original model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fresh import fresh, peak_mib

DATA = Path(os.environ.get("EDGEQ_DATA", "../shared/data"))
MODEL = DATA / "models" / "squeezenet1.1_227_imagenet_ts11.onnx"
IMAGES = 200
PERCENTILE = 99.999
Array = np.ndarray[Any, Any]


class Cycled:
    """``samples`` samples from an array, starting over at its end."""

    has_labels = False
    task = "unknown"

    def __init__(self, images: Array, samples: int) -> None:
        self.images, self.size = images, samples

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Any]:
        from edgeq.calibration.types import Batch

        count = min(self.size, limit or self.size)
        for start in range(0, count, batch_size):
            index = np.arange(start, min(start + batch_size, count)) % len(self.images)
            yield Batch({"data": self.images[index]}, None, len(index))

    def describe(self) -> dict[str, Any]:
        return {}


def image_files() -> Any:
    """The product's own data source over the image folder."""
    from edgeq.calibration.data.open import open_data
    from edgeq.calibration.preprocess import Preprocessing
    from edgeq.calibration.types import TensorSpec

    spec = TensorSpec("data", np.dtype(np.float32), ("N", 3, 227, 227))
    caffe = Preprocessing(resize=256, crop=227, channels="bgr", mean=(104.0, 117.0, 123.0))
    return open_data(DATA / "imagenet-calibration" / "images", [spec], preprocessing=caffe)


def session(path: Path, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


# Preparation, each in a process of its own.


def prepare_images(folder: Path) -> dict[str, float]:
    source = image_files()
    start = time.perf_counter()
    images = np.concatenate([batch.inputs["data"] for batch in source.batches(1, IMAGES)])
    seconds = time.perf_counter() - start
    np.save(folder / "images.npy", images)
    return {"seconds": seconds}


def prepare_plan(folder: Path) -> dict[str, float]:
    """Write the model that edgeq calibrates, and the tensors of both tools."""
    from edgeq.compiler.load import load
    from edgeq.compiler.model import save
    from edgeq.compiler.normalize import normalize
    from edgeq.compiler.planner import make_plan
    from edgeq.compiler.quantize.static_prepare import prepare
    from edgeq.compiler.recipe import Recipe
    from edgeq.targets.registry import get_target

    capabilities, recipe = get_target("onnxruntime").capabilities(), Recipe(scheme="int8-static")
    prepared = prepare(normalize(load(MODEL)).model, capabilities, recipe)
    save(prepared, folder / "prepared.onnx")
    planned = list(make_plan(prepared, capabilities, recipe).activations)
    tensors, _ = ort_calibrator(folder).select_tensors_to_calibrate(ort_calibrator(folder).model)
    (folder / "tensors.json").write_text(json.dumps({"planned": planned, "ort": sorted(tensors)}))
    return {"planned": len(planned), "ort": len(tensors)}


def ort_calibrator(folder: Path) -> Any:
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return create_calibrator(
        MODEL,
        list({*QDQRegistry, *QLinearOpsRegistry}),
        augmented_model_path=str(folder / f"augmented-{os.getpid()}.onnx"),
        calibrate_method=CalibrationMethod.Percentile,
        extra_options={"percentile": PERCENTILE},
    )


# The measured runs: each returns a function that is timed.


def bare(folder: Path, images: Array, samples: int, threads: int) -> Any:
    import onnxruntime  # noqa: F401

    def run() -> None:
        runner = session(MODEL, threads)
        for index in range(samples):
            at = index % len(images)
            runner.run(None, {"data": images[at : at + 1]})

    return run


def edgeq(folder: Path, images: Array, samples: int, threads: int, same: bool = False) -> Any:
    from edgeq.calibration.collect import collect
    from edgeq.calibration.ranges import choose_range

    tensors = json.loads((folder / "tensors.json").read_text())["ort" if same else "planned"]
    model = MODEL if same else folder / "prepared.onnx"

    def run() -> None:
        source = Cycled(images, samples)
        found = collect(model, tensors, source, samples=samples, threads=threads)
        for name, sketch in found.sketches.items():
            choose_range(sketch, "percentile", percentile=PERCENTILE, tensor=name)

    return run


def edgeq_same(folder: Path, images: Array, samples: int, threads: int) -> Any:
    return edgeq(folder, images, samples, threads, same=True)


def onnxruntime_percentile(folder: Path, images: Array, samples: int, threads: int) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter({"data": images[i % len(images)][None]} for i in range(samples))

        def get_next(self) -> dict[str, Array] | None:
            return next(self.rest, None)

    def run() -> None:
        calibrator = ort_calibrator(folder)
        calibrator.collect_data(Reader())
        calibrator.compute_data()

    return run


def bare_files(folder: Path, images: Array, samples: int, threads: int) -> Any:
    source = image_files()

    def run() -> None:
        runner = session(MODEL, threads)
        for batch in source.batches(1, samples):
            runner.run(None, batch.inputs)

    return run


def edgeq_files(folder: Path, images: Array, samples: int, threads: int) -> Any:
    from edgeq.calibration.collect import collect

    source, tensors = image_files(), json.loads((folder / "tensors.json").read_text())["planned"]
    return lambda: collect(folder / "prepared.onnx", tensors, source, samples=samples, threads=threads)


RUNS = {
    "bare": bare,
    "edgeq": edgeq,
    "edgeq-same": edgeq_same,
    "onnxruntime": onnxruntime_percentile,
    "bare-files": bare_files,
    "edgeq-files": edgeq_files,
}
PREPARATIONS = {"images": prepare_images, "plan": prepare_plan}


def child(mode: str, folder: Path, samples: int, threads: int) -> None:
    """One measurement in this process; prints one JSON line."""
    if mode in PREPARATIONS:
        print(json.dumps(PREPARATIONS[mode](folder)))
        return
    images = np.load(folder / "images.npy")[: min(samples, IMAGES) if samples != 1000 else 100]
    run = RUNS[mode](folder, images, samples, threads)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"seconds": wall, "cpu": cpu, "peak": peak_mib()}))


def measure(mode: str, folder: Path, samples: int, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", mode, str(folder), str(samples), str(threads)]
    found = fresh(command)
    if "error" in found:
        raise SystemExit(f"{mode}: {found['error']}")
    return found


def ratio(rounds: list[dict[str, Any]], a: str, b: str, value: str) -> float:
    return statistics.median(r[a][value] / r[b][value] for r in rounds if a in r and b in r)


def above(rounds: list[dict[str, Any]], mode: str) -> float:
    return statistics.median(r[mode]["peak"] - r["bare"]["peak"] for r in rounds if mode in r)


TITLES = {
    "bare": "bare FP32 inference",
    "edgeq": "edgeq",
    "edgeq-same": "edgeq, same tensors",
    "onnxruntime": "onnxruntime.quantization",
    "bare-files": "bare FP32 inference, from files",
    "edgeq-files": "edgeq, from files",
}


def table(rounds: list[dict[str, Any]], counts: dict[str, float]) -> Iterator[str]:
    tensors = {"edgeq": "planned", "edgeq-same": "ort", "onnxruntime": "ort", "edgeq-files": "planned"}
    yield "| run | tensors | seconds | CPU seconds | x bare inference | MiB above bare |"
    yield "|---|---:|---:|---:|---:|---:|"
    for mode, title in TITLES.items():
        found = [r[mode] for r in rounds if mode in r]
        if not found:
            continue
        seconds, cpu = (statistics.median(f[k] for f in found) for k in ("seconds", "cpu"))
        base = "bare-files" if mode.endswith("files") else "bare"
        number = f"{counts[tensors[mode]]:.0f}" if mode in tensors else ""
        times = f"{ratio(rounds, mode, base, 'seconds'):.2f}"
        yield f"| {title} | {number} | {seconds:.2f} | {cpu:.2f} | {times} | {above(rounds, mode):.0f} |"


def goals(rounds: list[dict[str, Any]], few: float, many: float) -> Iterator[str]:
    if any("onnxruntime" in r for r in rounds):
        faster = ratio(rounds, "onnxruntime", "edgeq", "seconds")
        smaller = above(rounds, "onnxruntime") / above(rounds, "edgeq")
        yield f"- {faster:.1f}x faster than onnxruntime.quantization (goal 10x)"
        yield f"- {smaller:.1f}x less memory above bare inference (goal 10x)"
    slower = ratio(rounds, "edgeq", "bare", "seconds")
    yield f"- {slower:.2f}x the time of bare inference (goal 1.5x)"
    more = many / few - 1
    yield f"- peak memory {few:.0f} MiB with 100 samples, {many:.0f} with 1,000: {more:+.1%} (goal 5 %)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ort-rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--child", nargs=4)
    options = parser.parse_args()
    if options.child:
        mode, folder, samples, threads = options.child
        child(mode, Path(folder), int(samples), int(threads))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loading = measure("images", folder, IMAGES, 1)["seconds"]
        counts = measure("plan", folder, IMAGES, 1)
        rounds: list[dict[str, Any]] = []
        for index in range(options.rounds):
            modes = [m for m in TITLES if m != "onnxruntime" or index < options.ort_rounds]
            rounds.append({m: measure(m, folder, IMAGES, options.threads) for m in modes})
        few, many = (measure("edgeq", folder, n, options.threads)["peak"] for n in (100, 1000))
    print(f"{IMAGES} images, percentile {PERCENTILE}, {options.threads} threads, {options.rounds} rounds\n")
    print("\n".join(table(rounds, counts)))
    print(f"\nLoading and preprocessing the images alone: {loading:.2f} s.\n")
    print("\n".join(goals(rounds, few, many)))


if __name__ == "__main__":
    main()
