"""``layers.json``: the compiler's layer tables and what they prove, kept with the engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeq.errors import ModelError
from edgeq.targets.base import NodeResult
from edgeq.targets.tensorrt.backend.request import BackendName, BuildReport
from edgeq.targets.tensorrt.files import LAYERS
from edgeq.targets.tensorrt.layers.coverage import Coverage
from edgeq.targets.tensorrt.layers.table import LayerTable


class NodeEntry(BaseModel):
    """A planned node: the precision that was planned, the one that the compiler chose, and its layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    op_type: str
    planned: str
    actual: str
    layer: str
    reason: str


class LayersFile(BaseModel):
    """What ``layers.json`` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    backend: BackendName
    version: str
    nodes: tuple[NodeEntry, ...]
    coverage: tuple[Coverage, ...]
    tables: tuple[LayerTable, ...]


def write_layers(
    folder: Path,
    report: BuildReport,
    tables: Sequence[LayerTable],
    results: Sequence[NodeResult],
    covered: Sequence[Coverage],
) -> str:
    """Write ``layers.json`` into ``folder``; returns its name. Equal tables give equal bytes."""
    content = LayersFile(
        backend=report.backend,
        version=report.version,
        nodes=tuple(_entry(result) for result in results),
        coverage=tuple(covered),
        tables=tuple(tables),
    )
    text = json.dumps(content.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (folder / LAYERS).write_text(text + "\n", encoding="utf-8")
    return LAYERS


def read_layers(folder: Path) -> LayersFile:
    """What ``folder``'s ``layers.json`` holds.

    Raises:
        ModelError: it is not there, or not one of this version.
    """
    path = folder / LAYERS
    try:
        return LayersFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelError(
            f"The layer table {path} cannot be read ({type(error).__name__}).",
            fix="Compile the model again.",
        ) from error


def _entry(result: NodeResult) -> NodeEntry:
    return NodeEntry(
        name=result.name,
        op_type=result.op_type,
        planned=result.planned,
        actual=result.actual,
        layer=result.kernel,
        reason=result.reason,
    )
