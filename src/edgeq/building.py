"""The parts of compiling: what is asked of a target, what all targets share, and the artefact's files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from edgeq.artefact import WORK, check_output
from edgeq.calibration.data import DataOptions
from edgeq.calibration.preprocess import Preprocessing
from edgeq.calibration.types import DataSource
from edgeq.compiler.load import load, open_checkpoint
from edgeq.compiler.model import Model
from edgeq.compiler.pipeline import Compiled, Prepared, compile_model, prepare
from edgeq.compiler.quantize.dispatch import NEEDS_CALIBRATION, check_recipe, missing_calibration
from edgeq.compiler.recipe import Recipe
from edgeq.compiler.weights.diagnosis import diagnose
from edgeq.compiler.weights.rules import CALIBRATED, missing_for_method
from edgeq.data_notes import unread_note
from edgeq.machine import library_versions, this_machine
from edgeq.manifest import Compiling, Manifest, file_entries
from edgeq.memory import watched_peak
from edgeq.progress import Progress
from edgeq.sources import DataOpener
from edgeq.targets.base import Target
from edgeq.targets.checks import require_ready
from edgeq.targets.registry import get_target


@dataclass(frozen=True)
class Order:
    """One artefact to be: the target, its recipe and options, which it accepts, and where it goes."""

    target: Target
    recipe: Recipe
    given: Mapping[str, str]
    options: Any
    place: Path
    strict: bool
    threads: int | None

    @property
    def checkpoint(self) -> bool:
        """Whether the target takes language models as checkpoints, not as graphs."""
        return self.target.capabilities(self.options).weights is not None


def make_order(
    target: str,
    recipe: Recipe,
    given: Mapping[str, str],
    place: Path,
    *,
    strict: bool = False,
    threads: int | None = None,
) -> Order:
    """What ``target`` is asked for, refused before any work where it cannot do it on this machine.

    Raises:
        UsageError: an unknown target, an option that it has not or that would do nothing.
        TargetError: it has no such scheme, or is not ready here.
    """
    chosen = get_target(target)
    check_recipe(recipe, chosen.capabilities())
    options = chosen.options(given, recipe)
    check_recipe(recipe, chosen.capabilities(options))
    require_ready(chosen)
    return Order(chosen, recipe, dict(given), options, place, strict, threads)


def check_start(order: Order, calibration: Any, *, force: bool) -> None:
    """Refuse data that is missing and an output that is there, before any work.

    Raises:
        DataError: a scheme or a method that needs calibration data without any.
        OutputExistsError: see :func:`edgeq.artefact.check_output`.
    """
    if order.recipe.scheme in NEEDS_CALIBRATION and calibration is None:
        raise missing_calibration(order.recipe.scheme)
    method = order.recipe.weight_method
    if method is not None and method in CALIBRATED and calibration is None:
        raise missing_for_method(method, text=order.checkpoint)
    check_output(order.place, force=force)


@dataclass(frozen=True)
class SourceSpec:
    """The model and its data, as the user names them; ``checkpoint``: it is read as files, not as a graph."""

    model: Any
    calibration: Any
    evaluation: Any
    preprocessing: Preprocessing | str | None
    data_options: DataOptions | None
    example_inputs: Any = None
    task: str | None = None
    checkpoint: bool = False


@dataclass(frozen=True)
class Data:
    """The opened calibration and evaluation data, None where none was given."""

    calibration: DataSource | None
    evaluation: DataSource | None


@dataclass(frozen=True)
class Material:
    """A model and its data, each read when it is first asked for, and once however many targets there are."""

    spec: SourceSpec
    progress: Progress

    def with_calibration(self, calibration: Any) -> Material:
        """The same model with other calibration data; the model is not read again."""
        return _SameModel(replace(self.spec, calibration=calibration), self.progress, self)

    @cached_property
    def original(self) -> Model:
        """The loaded model; raises ModelError."""
        spec = self.spec
        if spec.checkpoint:
            return open_checkpoint(spec.model, spec.task, self.progress)
        return load(spec.model, example_inputs=spec.example_inputs, task=spec.task, progress=self.progress)

    @cached_property
    def data(self) -> Data:
        """The data of the model.

        Raises:
            DataError: it is missing or does not fit the model.
            ConfigError: the preprocessing cannot be read.
        """
        spec, original = self.spec, self.original
        opener = DataOpener(original.inputs, original.source, spec.preprocessing, spec.data_options)
        return Data(opener.open(spec.calibration), opener.open(spec.evaluation))

    @cached_property
    def prepared(self) -> tuple[Prepared, Compiling]:
        """The normalized model, and what making it has cost.

        Raises:
            ModelError: see :func:`edgeq.compiler.pipeline.prepare`.
        """
        original, data = self.original, self.data
        with _cost() as cost:
            prepared = prepare(original, data.calibration, data.evaluation, self.progress)
        return prepared, cost[0]

    def discard(self) -> None:
        """Remove what quantizing left on the disk, when no other artefact is made of it."""
        if "prepared" in self.__dict__:
            self.prepared[0].discard()


@dataclass(frozen=True)
class _SameModel(Material):
    """Material whose model is that of ``other``."""

    other: Material

    @cached_property
    def original(self) -> Model:
        """The loaded model; raises ModelError."""
        return self.other.original


def build(
    order: Order, shared: tuple[Prepared, Compiling], folder: Path, progress: Progress
) -> tuple[Manifest, Compiling]:
    """Write the artefact's files into ``folder``; the manifest (nothing measured yet), and what it has cost.

    ``shared`` is :attr:`Material.prepared`, whose cost counts for every artefact.

    Raises:
        EdgeqError: see :func:`edgeq.compiler.pipeline.compile_model`.
    """
    prepared, before = shared
    with _cost() as cost:
        compiled = compile_model(
            prepared,
            order.target,
            order.recipe,
            folder,
            work=order.place.parent / WORK,
            options=order.options,
            strict=order.strict,
            threads=order.threads,
            progress=progress,
        )
    return _manifest(order, prepared, compiled, folder), before.then(cost[0])


@contextmanager
def _cost() -> Iterator[list[Compiling]]:
    """Time and memory of the block; the list has its one entry when the block has ended."""
    found: list[Compiling] = []
    begin = time.monotonic()
    with watched_peak() as memory:
        yield found
    found.append(
        Compiling(seconds=time.monotonic() - begin, peak_memory=memory.peak, added_memory=memory.added)
    )


def _manifest(order: Order, prepared: Prepared, compiled: Compiled, folder: Path) -> Manifest:
    calibration = prepared.calibration
    return Manifest(
        target=order.target.name,
        source=prepared.original.source,
        recipe=order.recipe,
        calibration=None if calibration is None else calibration.describe(),
        options=dict(order.given),
        files=file_entries(folder, compiled.build.files),
        evidence=file_entries(folder, compiled.build.evidence),
        checks=list(compiled.build.checks),
        proved_by=compiled.build.proved_by,
        libraries=library_versions(),
        machine=this_machine(),
        nodes=compiled.nodes,
        load_hints=compiled.build.load_hints,
        notes=[*compiled.notes, *_data_notes(order, calibration)],
        diagnosis=None if compiled.quantized.weights is None else diagnose(compiled.quantized.weights),
    )


def _data_notes(order: Order, calibration: DataSource | None) -> list[str]:
    described = None if calibration is None else calibration.describe()
    note = unread_note(order.recipe, order.target.capabilities(order.options), described)
    return [] if note is None else [note]
