"""What compiling or measuring an artefact returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeq.benchmarks.measurement import Measurements
from edgeq.benchmarks.verdicts import Verdict, all_passed
from edgeq.manifest import Compiling, Manifest
from edgeq.targets.base import NodeResult


@dataclass(frozen=True)
class CompileResult:
    """An artefact with its proof.

    ``folder`` holds the native files, ``edgeq.json`` and ``report.html``; ``measurements`` is empty when
    nothing was measured; ``nodes`` says in which precision every node runs; ``compiling`` what it has cost.
    """

    folder: Path
    manifest: Manifest
    measurements: Measurements
    verdicts: list[Verdict]
    compiling: Compiling | None = None

    @property
    def nodes(self) -> list[NodeResult]:
        """Planned against actual precision of every node."""
        return self.manifest.nodes

    @property
    def passed(self) -> bool:
        """Whether every budget is kept (true without budgets)."""
        return all_passed(self.verdicts)
