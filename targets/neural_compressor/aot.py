"""The process that compiles: reads a program from a folder, writes the package and its final graph there."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from edgeq.targets.neural_compressor.files import MODEL
from edgeq.targets.neural_compressor.package import GRAPH, JOB, PROGRAM


def main(folder: Path) -> None:
    """Compile ``program.pt2`` in ``folder``."""
    import torch
    import torch.ao.quantization.fx._decomposed  # the operators that round

    warnings.simplefilter("ignore")
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    program = torch.export.load(folder / PROGRAM)
    # Where nodes come from is then told in the names of this program, and no others.
    for node in program.graph.nodes:
        node.meta.pop("from_node", None)
    graph: list[dict[str, Any]] = []
    with torch.no_grad():
        compiled = torch._inductor.aot_compile(
            program.module(check_guards=False), *program.example_inputs, options=_options(job, graph)
        )
    from torch._inductor.package import package_aoti

    needed = [file for file in compiled if not str(file).endswith(".cpp")]
    package_aoti(str(folder / MODEL), needed)
    (folder / GRAPH).write_text(json.dumps(graph), encoding="utf-8")


def _options(job: dict[str, Any], graph: list[dict[str, Any]]) -> dict[str, Any]:
    wide = "avx512" in job["cpu"]
    return {
        "freezing": True,
        "post_grad_custom_post_pass": _recorder(graph),
        "cpp.cxx": (None, job["compiler"]),
        "cpp.march": "x86-64-v4" if wide else "x86-64-v3",
        "cpp.simdlen": 512 if wide else 256,
        # Otherwise the code has the number of threads of this process.
        "cpp.dynamic_threads": True,
        "aot_inductor.package": True,
        "aot_inductor.model_name_for_generated_files": "model",
        "aot_inductor.enable_frame_pointer": False,
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.precompile_headers": False,
    }


def _recorder(graph: list[dict[str, Any]]) -> Any:
    from torch._inductor.custom_graph_pass import CustomGraphPass

    class Recorder(CustomGraphPass):
        def __call__(self, found: Any) -> None:
            graph.extend(_record(node) for node in found.nodes if node.op == "call_function")

        def uuid(self) -> None:
            return None

    return Recorder()


def _record(node: Any) -> dict[str, Any]:
    """What the node calls, and the nodes of the program that it computes the result of."""
    origins = {name for source in node.meta.get("from_node", []) for name in _roots(source)}
    return {"op": _op(node.target), "origins": sorted(origins)}


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
