"""The process that compiles: reads a program from a folder, writes the package and its final graph there."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

from edgeq.quiet import reason
from edgeq.targets.neural_compressor.files import MODEL
from edgeq.targets.neural_compressor.package import JOB, PROGRAM, TOLD
from edgeq.targets.neural_compressor.process import end_with_parent


def main(folder: Path) -> None:
    """Compile ``program.pt2`` in ``folder``, as ``job.json`` there says."""
    warnings.simplefilter("ignore")
    end_with_parent(folder)
    told: dict[str, Any]
    try:
        told = {"calls": _compile(folder, json.loads((folder / JOB).read_text(encoding="utf-8")))}
    except Exception as error:  # noqa: BLE001 - PyTorch's compiler raises whatever its passes do
        told = {"error": reason(error)}
    (folder / TOLD).write_text(json.dumps(told), encoding="utf-8")


def _compile(folder: Path, job: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the package; returns what the nodes of the compiler's final graph call."""
    import torch
    import torch.ao.quantization.fx._decomposed  # the operators that round
    from torch._inductor.package import package_aoti

    program = torch.export.load(folder / PROGRAM)
    # Where nodes come from is then told in the names of this program, and no others.
    for node in program.graph.nodes:
        node.meta.pop("from_node", None)
    _mend_layouts()
    calls: list[dict[str, Any]] = []
    options = _options(job["cpu"], _compiler(folder, job["compiler"]), calls)
    with torch.no_grad():
        module = program.module(check_guards=False)
        made = torch._inductor.aot_compile(module, *program.example_inputs, options=options)
    # Loading needs no sources.
    package_aoti(str(folder / MODEL), [file for file in made if not str(file).endswith(".cpp")])
    return calls


def _mend_layouts() -> None:
    """Tell the compiler the layout that INT8 convolutions really write: channels last, always.

    PyTorch 2.13 expects that of float ones alone where the batch is dynamic and the input has one channel; it
    reads the results of INT8 ones in a wrong order then. Only this process is changed.
    """
    from torch._inductor import mkldnn_ir
    from torch._inductor.ir import FixedLayout
    from torch._prims_common import make_channels_last_strides_for

    prepare = mkldnn_ir._prepare_convolution_fusion_create

    def prepare_right(cls: Any, *arguments: Any, **options: Any) -> Any:
        inputs, constants, layout, order, other = prepare(cls, *arguments, **options)
        if cls.__name__.startswith("QConv"):
            strides = make_channels_last_strides_for(layout.size)
            layout = FixedLayout(layout.device, layout.dtype, layout.size, strides)
        return inputs, constants, layout, order, other

    mkldnn_ir._prepare_convolution_fusion_create = prepare_right


def _compiler(folder: Path, compiler: str) -> str:
    """A command in ``folder`` that compiles without symbols, paths and addresses of this machine.

    PyTorch names INT8 kernels by the ``repr`` of Python functions, which tells where they lie in memory.
    """
    import torch

    script = folder / Path(compiler).name
    roots = {folder: "edgeq", Path(torch.__file__).parent: "torch"}
    maps = " ".join(shlex.quote(f"-ffile-prefix-map={path}={name}") for path, name in roots.items())
    lines = (
        "#!/bin/sh",
        'for file in "$@"; do',
        "  case $file in *.cpp) sed -i 's/ at 0x[0-9a-f]*>/>/g' \"$file\" ;; esac",
        "done",
        f'exec {shlex.quote(compiler)} {maps} -s "$@"',
    )
    script.write_text("\n".join((*lines, "")), encoding="utf-8")
    script.chmod(0o755)
    return str(script)


def _options(cpu: list[str], compiler: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    wide = "avx512" in cpu
    return {
        "freezing": True,
        "post_grad_custom_post_pass": lambda graph: calls.extend(_records(graph)),
        "cpp.cxx": (None, compiler),
        "cpp.march": "x86-64-v4" if wide else "x86-64-v3",
        "cpp.simdlen": 512 if wide else 256,
        # Not tried out by compiling a file: this process was told what the CPU has.
        "cpp.vec_isa_ok": True,
        # Otherwise the code has the number of threads of this process.
        "cpp.dynamic_threads": True,
        "aot_inductor.package": True,
        "aot_inductor.model_name_for_generated_files": "model",
        "aot_inductor.enable_frame_pointer": False,
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.precompile_headers": False,
    }


def _records(graph: Any) -> list[dict[str, Any]]:
    return [_record(node) for node in graph.nodes if node.op == "call_function"]


def _record(node: Any) -> dict[str, Any]:
    """What the node calls, and the nodes of the program that it computes the result of."""
    origins = {name for source in node.meta.get("from_node", []) for name in _roots(source)}
    return {"op": _op(node.target), "origins": sorted(origins), "dtype": _dtype(node.meta.get("val"))}


def _dtype(value: Any) -> str:
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    return str(getattr(first, "dtype", "")).removeprefix("torch.")


def _roots(source: Any) -> list[str]:
    if not source.from_node:
        return [source.name]
    return [name for before in source.from_node for name in _roots(before)]


def _op(target: Any) -> str:
    # A lowering that stands for a fused kernel, with what it was matched on.
    inner = getattr(target, "func", None)
    if inner is not None:
        return str(inner.__name__)
    return str(target).removesuffix(".default")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
