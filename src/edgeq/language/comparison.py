"""What comparing the methods and formats of a language model returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeq.comparison import Row
from edgeq.errors import BudgetMissedError
from edgeq.language.recommendation import Place, Recommendation
from edgeq.language.run_memory import RunMemory


@dataclass(frozen=True)
class LanguageComparison:
    """A row for each combination, and which one to ship.

    ``prefix`` is what the paths of artefacts and pages begin with. ``calibrations`` are the names of the
    texts, ``budgets`` what must be kept, ``place`` where it is to run. ``memory``: row's name → what it takes
    there. ``beaten``: row's name → a row that is better in size, perplexity or speed, and worse in none.
    ``left_out``: why combinations are no rows → how many. ``notes``: decisions that nobody named.
    """

    name: str
    prefix: Path
    rows: tuple[Row, ...]
    recommendation: Recommendation
    calibrations: tuple[str, ...]
    budgets: tuple[str, ...]
    place: Place
    memory: Mapping[str, RunMemory]
    beaten: Mapping[str, str]
    left_out: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there is something to ship, and no row failed."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """1 where nothing keeps the budgets; what went wrong in a row counts, what it refuses does not."""
        failed = [row.exit_code for row in self.rows if row.error is not None and not row.refused]
        own = 0 if self.recommendation.name is not None else BudgetMissedError.exit_code
        if all(row.refused for row in self.rows):
            own = max((row.exit_code for row in self.rows), default=own)
        return max([own, *failed])

    @property
    def front(self) -> list[str]:
        """The rows that no other one beats."""
        return [row.candidate.name for row in self.rows if row.candidate.name in self.memory
                and row.candidate.name not in self.beaten]  # fmt: skip
