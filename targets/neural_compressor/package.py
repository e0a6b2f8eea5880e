"""From a program to a package of machine code, compiled by AOTInductor in a process of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgeq.calibration.types import TensorSpec
from edgeq.errors import TargetError
from edgeq.progress import Progress, SilentProgress
from edgeq.quiet import quiet, reason
from edgeq.targets.neural_compressor.compiler import require_compiler
from edgeq.targets.neural_compressor.cpu import instruction_sets, require_vectors
from edgeq.targets.neural_compressor.dynamic_sizes import Dimensions
from edgeq.targets.neural_compressor.embeddings import indexed_rows
from edgeq.targets.neural_compressor.files import MODEL
from edgeq.targets.neural_compressor.placement import Call, place
from edgeq.targets.neural_compressor.process import Ended, run_module
from edgeq.targets.neural_compressor.settings import Interface, Port

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

# Bytes that sources, objects and caches take besides weights; small models took 3 MB.
_CODE_SPACE = 16_000_000
# Names between this process and the one that compiles.
PROGRAM, JOB, TOLD = "program.pt2", "job.json", "told.json"


@dataclass(frozen=True)
class Package:
    """What :func:`write_package` has written, and what a runner must know to call it."""

    files: tuple[str, ...]
    evidence: tuple[str, ...]
    interface: Interface


def write_package(
    module: GraphModule,
    example: Sequence[torch.Tensor],
    dynamic_shapes: Any,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    folder: Path,
    progress: Progress | None = None,
    *,
    names: Mapping[str, str],
) -> Package:
    """Compile ``module`` into ``folder``; ``names``: name of an FX node in it → of the planned node.

    ``inputs`` and ``outputs`` are those of the model, in the order of the module's. Nothing is left behind
    elsewhere: the caches of the compiler are in a temporary folder.

    Raises:
        TargetError: there is no C++ compiler, this is no CPU with AVX2, or the program cannot be compiled.
    """
    compiler = require_compiler()
    require_vectors()
    program = _export(module, example, dynamic_shapes)
    with (
        (progress or SilentProgress()).task("Compiling the program"),
        TemporaryDirectory(prefix="edgeq-aot-") as name,
    ):
        working = Path(name)
        _require_space(program, working)
        calls = _compile(program, compiler, working)
        shutil.move(working / MODEL, folder / MODEL)
    evidence = place(program, calls, names).write(folder)
    return Package((MODEL,), (evidence,), _interface(program, inputs, outputs))


def _export(module: GraphModule, example: Sequence[torch.Tensor], dynamic_shapes: Any) -> ExportedProgram:
    import torch

    # The code is compiled for the strides of the examples, and gets arrays without gaps.
    given = tuple(tensor.contiguous() for tensor in example)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(module, given, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        raise TargetError(f"PyTorch cannot export the quantized program: {reason(error)}.") from error


def _require_space(program: ExportedProgram, working: Path) -> None:
    """Refuse a full disk: PyTorch ends the process when it cannot finish a file.

    Raises:
        TargetError: telling what is needed.
    """
    stored = sum(t.nbytes for t in (*program.state_dict.values(), *program.constants.values()) if _sized(t))
    # The program, its weights as the compiler writes them, the package; code and objects beside them.
    needed = 3 * stored + _CODE_SPACE
    free = shutil.disk_usage(working).free
    if free < needed:
        raise TargetError(
            f"Compiling needs {needed / 1e6:.0f} MB in {working.parent}, and {free / 1e6:.0f} MB are free.",
            fix="Free space there, or name another folder (TMPDIR).",
        )


def _sized(value: Any) -> bool:
    return hasattr(value, "nbytes")


def _compile(program: ExportedProgram, compiler: str, working: Path) -> list[Call]:
    """Compile in a fresh process: a crash becomes an error, and its memory and settings end with it."""
    import torch

    with quiet():
        torch.export.save(program, working / PROGRAM)
    job = {"compiler": compiler, "cpu": instruction_sets()}
    (working / JOB).write_text(json.dumps(job), encoding="utf-8")
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(working / "cache"), "TMPDIR": str(working)}
    ended = run_module("edgeq.targets.neural_compressor.aot", (str(working),), working, variables)
    told = _told(working / TOLD, ended)
    if "error" in told:
        raise TargetError(
            f"PyTorch cannot compile the quantized program: {told['error']}.",
            fix="Keep the node that it names in float (--exclude), or take --target openvino.",
        )
    return [Call(each["op"], tuple(each["origins"]), each["dtype"]) for each in told["calls"]]


def _told(path: Path, ended: Ended) -> dict[str, Any]:
    if ended.failed or not path.is_file():
        return {"error": ended.why}
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


def _interface(
    program: ExportedProgram, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Interface:
    import torch

    dimensions = Dimensions(program)
    return Interface(
        inputs=tuple(dimensions.port(spec, index) for index, spec in enumerate(inputs)),
        outputs=tuple(Port.of(spec) for spec in outputs),
        dimensions=dimensions.ranges,
        rows=indexed_rows(program, [spec.name for spec in inputs]),
        cpu=instruction_sets(),
        torch=torch.__version__,
    )
