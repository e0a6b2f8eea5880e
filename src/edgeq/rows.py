"""What comparisons do with each of their rows: order, build, and write down what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeq.artefact import artefact_folder
from edgeq.benchmarks.budgets import Budget
from edgeq.benchmarks.harness import Together
from edgeq.benchmarks.options import BenchOptions
from edgeq.building import Material, Order, build, make_order
from edgeq.candidates import QUANTIZER
from edgeq.comparison import Row
from edgeq.compiler.pipeline import Prepared
from edgeq.compiler.recipe import Recipe
from edgeq.errors import ConfigError, TargetError, UsageError, as_edgeq_error
from edgeq.manifest import Compiling, Manifest
from edgeq.progress import Progress
from edgeq.proof import Proof, result, write


@dataclass
class Work:
    """A row that is worked on: what is asked of its target, and what is there of it."""

    row: Row
    order: Order
    proof: Proof | None = None
    manifest: Manifest | None = None
    compiling: Compiling | None = None

    @property
    def built(self) -> Manifest:
        """The manifest of an artefact that is there."""
        assert self.manifest is not None
        return self.manifest

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """What the target says that it does not do is its row's refusal."""
        try:
            yield
        except TargetError as error:
            self.row.error, self.row.refused = error, True

    @contextmanager
    def failing(self) -> Iterator[None]:
        """An error inside is this row's, not that of the others."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (a defect in one target must not hide the others)
            self.row.error = as_edgeq_error(error)


@dataclass(frozen=True)
class Proofs:
    """How every artefact is measured; None measures nothing."""

    metrics: tuple[str, ...] | None
    budgets: tuple[Budget, ...]
    threads: int | None
    options: BenchOptions | None

    def of(self, material: Material) -> Proof | None:
        """The proof on the evaluation data."""
        if self.options is None:
            return None
        return Proof(material.data.evaluation, self.metrics, self.budgets, self.threads, self.options)


def ordered(row: Row, recipe: Recipe, prefix: Path, strict: bool, threads: int | None) -> Work | None:
    """What is asked of a row's target, by its own recipe or ``recipe``; None when it refuses.

    Raises:
        ConfigError: an option that is wrong by itself.
    """
    candidate = row.candidate
    chosen = candidate.recipe or recipe
    place = prefix.with_name(f"{prefix.name}-{candidate.suffix}")
    try:
        order = make_order(candidate.target, chosen, candidate.options, place, strict=strict, threads=threads)
    except ConfigError:
        raise
    except (TargetError, UsageError) as error:
        row.error, row.refused = error, True
        return None
    row.quantizer = _quantizer(order)
    return Work(row, order)


def _quantizer(order: Order) -> str:
    """Whose methods quantize: the option's, edgeq's, or those of the target itself."""
    own = "edgeq" if order.target.quantizer(order.options) is None else order.target.name
    return order.given.get(QUANTIZER, own)


def left(works: Sequence[Work]) -> list[Work]:
    """Those that nothing has refused or ended."""
    return [work for work in works if work.row.error is None]


def accepted(works: Sequence[Work], material: Material, proofs: Proofs) -> list[Work]:
    """Those whose target takes the model and can measure what is asked for; the others are refusals.

    Raises:
        ModelError: the model cannot be read.
        DataError: the data is missing or cannot be used.
    """
    original = material.original
    for work in works:
        with work.refusing():
            work.order.target.check_model(original, work.order.options)
    works = left(works)
    for work in works:
        work.proof = proofs.of(material)
        if work.proof is not None:
            with work.refusing():
                work.proof.check(original.outputs, work.order.target)
    return left(works)


def build_artefact(work: Work, shared: tuple[Prepared, Compiling], force: bool, progress: Progress) -> None:
    """Build a row's artefact and put it in place; raises EdgeqError."""
    place = work.order.place
    with artefact_folder(place, force=force) as folder:
        work.manifest, work.compiling = build(work.order, shared, folder, progress)
        write(work.manifest, folder)
    work.row.result = result(place, work.manifest, work.compiling)


def note(work: Work, proof: Proof, together: Together) -> None:
    """Write what was measured into the artefact, or keep the error that ended it."""
    row = work.row
    if together.error is not None:
        row.error = as_edgeq_error(together.error)
        return
    manifest = proof.section(work.built, together.measurements, work.compiling)
    write(manifest, work.order.place)
    row.result, row.times = result(work.order.place, manifest), together.times
