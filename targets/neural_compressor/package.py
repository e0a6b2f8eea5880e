"""From a program to a package of machine code, compiled by AOTInductor in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgeq.calibration.types import TensorSpec
from edgeq.compiler.load.quiet import quiet, reason
from edgeq.errors import TargetError
from edgeq.progress import Progress, SilentProgress
from edgeq.targets.neural_compressor.compiler import require_compiler
from edgeq.targets.neural_compressor.cpu import instruction_sets
from edgeq.targets.neural_compressor.files import MODEL
from edgeq.targets.neural_compressor.placement import Call, place
from edgeq.targets.neural_compressor.settings import Interface, ports

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

# Names between this process and the one that compiles.
PROGRAM, JOB, GRAPH = "program.pt2", "job.json", "graph.json"


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
        TargetError: there is no C++ compiler, or the program cannot be compiled.
    """
    compiler = require_compiler()
    program = _export(module, example, dynamic_shapes)
    with (
        (progress or SilentProgress()).task("Compiling the program"),
        TemporaryDirectory(prefix="edgeq-aot-") as name,
    ):
        working = Path(name)
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


def _compile(program: ExportedProgram, compiler: str, working: Path) -> list[Call]:
    """Compile in a fresh process: a crash becomes an error, and its memory and settings end with it."""
    import torch

    with quiet():
        torch.export.save(program, working / PROGRAM)
    job = {"compiler": compiler, "cpu": instruction_sets()}
    (working / JOB).write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "edgeq.targets.neural_compressor.aot", str(working)]
    ended = subprocess.run(command, env=_environment(working), capture_output=True, cwd=working, check=False)
    if ended.returncode or not (working / GRAPH).is_file():
        raise TargetError(
            f"PyTorch cannot compile the quantized program: {_why(ended)}.",
            fix="Keep the node that it names in float (--exclude), or take --target openvino.",
        )
    found = json.loads((working / GRAPH).read_text(encoding="utf-8"))
    return [Call(each["op"], tuple(each["origins"])) for each in found]


def _environment(working: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHINDUCTOR_", "TORCH_", "AOT"))}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TORCHINDUCTOR_CACHE_DIR": str(working / "cache"),
        "TMPDIR": str(working),
    }


def _why(ended: subprocess.CompletedProcess[bytes]) -> str:
    if ended.returncode < 0:
        name = signal.Signals(-ended.returncode).name
        return f"the compiler was ended by {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1].rstrip(".") if lines else f"the compiler exited with {ended.returncode}"


def _interface(
    program: ExportedProgram, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Interface:
    import torch

    return Interface(
        inputs=tuple(ports(inputs)),
        outputs=tuple(ports(outputs)),
        dimensions=_dimensions(program, inputs),
        cpu=instruction_sets(),
        torch=torch.__version__,
    )


def _dimensions(program: ExportedProgram, inputs: Sequence[TensorSpec]) -> dict[str, tuple[int, int | None]]:
    import sympy

    found: dict[str, tuple[int, int | None]] = {}
    taken = program.graph_signature.user_inputs
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    for spec, name in zip(inputs, taken, strict=True):
        for axis, (size, real) in enumerate(
            zip(spec.shape or (), nodes[str(name)].meta["val"].shape, strict=True)
        ):
            if isinstance(size, int):
                continue
            key = size or f"{spec.name}:{axis}"
            if isinstance(real, int):
                found[key] = (real, real)
                continue
            bounds = program.range_constraints.get(real.node.expr)
            if bounds is None:
                continue
            largest = None if bounds.upper in (sympy.oo,) or bounds.upper > 2**40 else int(bounds.upper)
            # torch.export assumes 2 of every size that is not to be a constant, and allows 1.
            found[key] = (1 if bounds.lower <= 2 else int(bounds.lower), largest)
    return found
