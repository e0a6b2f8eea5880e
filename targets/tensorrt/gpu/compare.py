"""The artefact's engine beside an FP16 and an FP32 engine of the same model, built and timed on this GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeq.benchmarks.measurement import Measurement
from edgeq.benchmarks.metric_info import resource
from edgeq.benchmarks.options import BenchOptions
from edgeq.calibration.types import Arrays
from edgeq.compiler.load import load
from edgeq.compiler.model import Model, save
from edgeq.compiler.normalize import normalize
from edgeq.compiler.quantize.dispatch import Request, quantize
from edgeq.compiler.recipe import Recipe, Scheme
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.base import DeviceReport
from edgeq.targets.onnxruntime.files import MODEL_FILE
from edgeq.targets.tensorrt.backend.build import build_engine
from edgeq.targets.tensorrt.capabilities import capabilities
from edgeq.targets.tensorrt.files import QDQ_MODEL
from edgeq.targets.tensorrt.gpu.memory import open_cuda
from edgeq.targets.tensorrt.gpu.runner import EngineRunner
from edgeq.targets.tensorrt.gpu.timing import time_engines
from edgeq.targets.tensorrt.gpu.trtexec import trtexec_note
from edgeq.targets.tensorrt.gpu.verdict import Times, findings, measurements
from edgeq.targets.tensorrt.layers.file import read_layers
from edgeq.targets.tensorrt.precision import cast_rest
from edgeq.targets.tensorrt.settings import Settings

_FLOATS: tuple[Scheme, ...] = ("fp16", "fp32")
_OURS = "artefact"
_NOTE = (
    "device_p50, device_p90, device_p99 and device_memory compare with an FP32 engine of the same model on "
    "this GPU; the other costs with the FP32 model in ONNX Runtime on the CPU."
)


def compare(
    folder: Path,
    original: Path | None,
    feeds: Sequence[Arrays],
    options: BenchOptions,
    progress: Progress,
) -> DeviceReport:
    """Time the artefact in ``folder`` beside engines of ``original``: the float ONNX model, or its folder.

    Without ``original`` the artefact is timed alone.

    Raises:
        TargetError: an engine cannot be built, loaded or run.
    """
    settings = Settings.read(folder)
    if original is not None and original.is_dir():
        original /= MODEL_FILE
    with TemporaryDirectory(prefix="edgeq-engines-") as name, ExitStack() as stack:
        folders = {_OURS: folder}
        if original is not None:
            model = float_model(original)
            for scheme in (scheme for scheme in _FLOATS if scheme != settings.scheme):
                folders[scheme] = build_float(model, scheme, settings, Path(name) / scheme, progress)
        _wake_libraries(folder, feeds[0])
        opened = {key: stack.enter_context(_opened(place, feeds[0])) for key, place in folders.items()}
        runners = {key: runner for key, (runner, _) in opened.items()}
        series = time_engines(runners, feeds, options, progress)
        memory = {key: taken for key, (_, taken) in opened.items()}
    times = Times(series.pop(_OURS), series)
    nodes = read_layers(folder).nodes
    note = trtexec_note(folder, settings, feeds[0])
    return DeviceReport(
        (*measurements(times, options.seed), memory_of(memory)),
        tuple(findings(times, settings.scheme, nodes, options.seed)),
        (_NOTE, *([note] if note else [])),
    )


def float_model(path: Path) -> Model:
    """The float ONNX model at ``path`` as edgeq compiles it."""
    return normalize(load(str(path))).model


def build_float(model: Model, scheme: Scheme, settings: Settings, folder: Path, progress: Progress) -> Path:
    """Build a :func:`float_model` in ``scheme`` (fp16, fp32) into ``folder``, in all else like the artefact.

    Raises:
        TargetError: the compiler refuses the model.
    """
    folder.mkdir()
    rules = capabilities(settings.options)
    made = quantize(Request(model, rules, Recipe(scheme=scheme), None, None, SilentProgress()))
    cast, _ = cast_rest(made.model, made.plan, "fp16" if scheme == "fp16" else "fp32")
    save(cast, folder / QDQ_MODEL)
    own = settings.model_copy(update={"scheme": scheme})
    build_engine(own.request(folder, engine=True), progress=progress)
    own.write(folder)
    return folder


def memory_of(taken: dict[str, int]) -> Measurement:
    """Bytes of the GPU that the artefact takes, beside the FP32 engine."""
    against = taken.get("fp32")
    detail = {name: value for name, value in taken.items() if name != _OURS}
    baseline = None if against is None else float(against)
    return resource("device_memory", float(taken[_OURS]), baseline, detail=detail)


@contextmanager
def _opened(folder: Path, feed: Arrays) -> Iterator[tuple[EngineRunner, int]]:
    """A runner that has run, and the bytes that it took from the GPU's memory."""
    with closing(open_cuda()) as cuda:
        before = cuda.used()
        with EngineRunner(folder) as runner:
            runner.run(feed)
            yield runner, max(cuda.used() - before, 0)


def _wake_libraries(folder: Path, feed: Arrays) -> None:
    """Run once, so that what the libraries load for themselves is not counted as the first engine's."""
    with EngineRunner(folder) as runner:
        runner.run(feed)
