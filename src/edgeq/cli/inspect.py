"""``edgeq inspect``: what an artefact or an ONNX file is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.cli.terminal import DebugFlag, JsonFlag, Terminal, session

if TYPE_CHECKING:
    from rich.table import Table

    from edgeq.calibration.types import TensorSpec
    from edgeq.compiler.model import Model
    from edgeq.compiler.weights.findings import Diagnosis
    from edgeq.manifest import Manifest

OPS_SHOWN = 20
LAYERS_SHOWN = 10


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An artefact folder or an ONNX file.")],
    nodes: Annotated[bool, typer.Option("--nodes", help="List every node of an artefact.")] = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Say what an artefact or an ONNX file is: files, precisions, measurements, inputs and outputs."""
    with session(json=json, debug=debug) as terminal:
        from edgeq.manifest import MANIFEST_FILE

        folder = path.parent if path.name == MANIFEST_FILE else path
        # Artefacts that are Hugging Face folders have both files.
        if (folder / MANIFEST_FILE).is_file() or (path.is_dir() and not (path / "config.json").is_file()):
            _inspect_artefact(terminal, folder, nodes)
        else:
            _inspect_model(terminal, path, nodes)


def _inspect_artefact(terminal: Terminal, folder: Path, nodes: bool) -> None:
    import json

    from edgeq.cli.tables import result_view
    from edgeq.manifest import Manifest, verify_files

    manifest = Manifest.read(folder)
    verify_files(manifest, folder)
    terminal.show(result_view(_as_result(folder, manifest)))
    terminal.show(_file_table(manifest))
    if manifest.diagnosis is not None:
        terminal.show(_diagnosis_table(manifest.diagnosis))
    if nodes:
        terminal.show(_node_table(manifest))
    terminal.emit({"folder": str(folder), "manifest": json.loads(manifest.to_text())})


def _as_result(folder: Path, manifest: Manifest) -> Any:
    from edgeq.benchmarks.measurement import Measurements
    from edgeq.result import CompileResult

    measured = manifest.measured
    if measured is None:
        return CompileResult(folder, manifest, Measurements(), [])
    return CompileResult(folder, manifest, measured.as_measurements(), measured.verdicts)


def _file_table(manifest: Manifest) -> Table:
    from edgeq.benchmarks.units import format_value

    table = _table("file", "size", "sha256")
    for entry in manifest.files:
        table.add_row(entry.path, format_value(entry.bytes, "bytes"), f"{entry.sha256[:16]}… verified")
    return table


def _diagnosis_table(found: Diagnosis) -> Table:
    """The layers that quantizing has cost most, and which of them are worth 8 bits."""
    smoothed = any(layer.smoothing is not None for layer in found.layers)
    table = _table("layer", "output error", "outliers", "worth 8 bits", *(("smoothing",) if smoothed else ()))
    worth = {override.rpartition("=")[0]: override for override in found.overrides}
    for layer in sorted(found.layers, key=lambda layer: -layer.error)[:LAYERS_SHOWN]:
        advice = f"--override '{worth[layer.layer]}'" if layer.layer in worth else ""
        strength = "" if layer.smoothing is None else f"{layer.smoothing:g}"
        cells = (layer.layer, f"{100 * layer.error:.3g} %", f"x {layer.outliers:.1f}", advice, strength)
        table.add_row(*cells[: len(table.columns)])
    return table


def _node_table(manifest: Manifest) -> Table:
    table = _table("node", "op", "planned", "runs in", "kernel", "reason")
    for node in manifest.nodes:
        table.add_row(node.name, node.op_type, node.planned, node.actual, node.kernel, node.reason)
    return table


def _inspect_model(terminal: Terminal, path: Path, nodes: bool) -> None:
    from edgeq.compiler.load import load
    from edgeq.errors import UsageError

    if nodes:
        raise UsageError("--nodes is for artefacts.", fix="Give the folder that edgeq compile wrote.")
    model = load(path)
    document = _model_document(model)
    terminal.show(*_model_view(document))
    terminal.emit(document)


def _model_document(model: Model) -> dict[str, Any]:
    graph = model.ir.graph
    tensors = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    return {
        "source": model.source.location,
        "kind": model.source.kind,
        "sha256": model.source.sha256,
        "producer": " ".join(filter(None, (model.ir.producer_name, model.ir.producer_version))),
        "opsets": dict(model.ir.opset_imports),
        "inputs": [_spec_document(spec) for spec in model.inputs],
        "outputs": [_spec_document(spec) for spec in model.outputs],
        "parameters": sum(tensor.size for tensor in tensors),
        "weight_bytes": sum(tensor.nbytes for tensor in tensors),
        "nodes": len(graph),
        "ops": dict(Counter(node.op_type for node in graph.all_nodes()).most_common()),
    }


def _spec_document(spec: TensorSpec) -> dict[str, Any]:
    shape = None if spec.shape is None else list(spec.shape)
    return {"name": spec.name, "dtype": str(spec.dtype), "shape": shape}


def _model_view(document: dict[str, Any]) -> list[Any]:
    from edgeq.benchmarks.units import format_value

    facts = _table("", "")
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in document["opsets"].items())
    weights = f"{document['parameters']:,} ({format_value(document['weight_bytes'], 'bytes')})"
    for label, value in (
        ("model", document["source"]),
        ("producer", document["producer"] or "unknown"),
        ("opset", opsets),
        ("parameters", weights),
        ("sha256", document["sha256"]),
    ):
        facts.add_row(label, value)
    ports = _table("", "name", "dtype", "shape")
    for kind in ("inputs", "outputs"):
        for spec in document[kind]:
            ports.add_row(kind[:-1], spec["name"], spec["dtype"], _shape(spec["shape"]))
    return [facts, "", ports, "", _op_table(document)]


def _op_table(document: dict[str, Any]) -> Table:
    table = _table(f"{document['nodes']} nodes", "")
    ops: Sequence[tuple[str, int]] = list(document["ops"].items())
    for op_type, count in ops[:OPS_SHOWN]:
        table.add_row(op_type, str(count))
    if len(ops) > OPS_SHOWN:
        table.add_row(f"and {len(ops) - OPS_SHOWN} more op types", str(sum(n for _, n in ops[OPS_SHOWN:])))
    return table


def _shape(shape: list[int | str | None] | None) -> str:
    if shape is None:
        return "unknown"
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"


def _table(*titles: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.show_header = any(titles)
    for title in titles:
        table.add_column(title)
    return table
