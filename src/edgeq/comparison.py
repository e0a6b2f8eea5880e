"""What compiling one model for several targets returns: a row for each, and the winner."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgeq.benchmarks.intervals import Times
from edgeq.benchmarks.measurement import Measurements
from edgeq.candidates import Candidate
from edgeq.compiler.recipe import Recipe
from edgeq.errors import BudgetMissedError, EdgeqError
from edgeq.result import CompileResult
from edgeq.targets.capabilities import QUANTIZED
from edgeq.winner import Winner


@dataclass
class Row:
    """What became of one candidate.

    ``result`` is its artefact, None where there is none; ``error`` says why, or why it could not be measured.
    ``refused``: the target does not do this here (it is not installed, takes no such model, has no such
    scheme), which is no failure of the comparison. ``one_thread``: its latency at one thread, where
    ``result`` has it at more.
    """

    candidate: Candidate
    quantizer: str = "edgeq"
    result: CompileResult | None = None
    error: EdgeqError | None = None
    refused: bool = False
    one_thread: Measurements = field(default_factory=Measurements)
    times: Times | None = field(default=None, repr=False)

    @property
    def passed(self) -> bool:
        """Compiled, measured as asked, and every budget kept."""
        return self.error is None and self.result is not None and self.result.passed

    @property
    def exit_code(self) -> int:
        """0, 1 for a missed budget, else the error's own code, also of a refusal."""
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.passed else BudgetMissedError.exit_code

    @property
    def planned(self) -> int:
        """Nodes that were to run quantized."""
        return 0 if self.result is None else sum(n.planned in QUANTIZED for n in self.result.nodes)

    @property
    def ran(self) -> int:
        """Those of them that do."""
        return 0 if self.result is None else self.planned - len(self.result.manifest.missed)


@dataclass(frozen=True)
class Comparison:
    """All candidates in the order in which they were named, and the winner by budgets.

    ``prefix`` is what the paths of artefacts and reports begin with; ``threads`` are those of the latency in
    the results.
    """

    name: str
    recipe: Recipe
    prefix: Path
    threads: int
    rows: tuple[Row, ...]
    winner: Winner

    @property
    def passed(self) -> bool:
        """Whether something was compiled and everything that was keeps its budgets."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """The worst of all candidates; a refusal counts only where nothing was compiled at all."""
        tried = [row for row in self.rows if not row.refused]
        return max((row.exit_code for row in tried or self.rows), default=0)
