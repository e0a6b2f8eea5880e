"""Artefacts that an earlier, perhaps killed, run of the same comparison has finished."""

from __future__ import annotations

from edgeq import __version__
from edgeq.benchmarks.verdicts import judge
from edgeq.building import Material, Order
from edgeq.errors import EdgeqError
from edgeq.machine import library_versions, this_machine
from edgeq.manifest import Manifest, verify_files
from edgeq.proof import Proof


def finished(order: Order, material: Material) -> Manifest | None:
    """The manifest of the artefact in the order's place, where it is what the order would make again."""
    try:
        found = Manifest.read(order.place)
        verify_files(found, order.place)
    except EdgeqError:
        return None
    calibration = material.data.calibration
    wanted = (
        __version__, order.target.name, order.recipe, dict(order.given), material.original.source.sha256,
        None if calibration is None else calibration.describe(), library_versions(),
    )  # fmt: skip
    there = (
        found.edgeq, found.target, found.recipe, found.options, found.source.sha256, found.calibration,
        found.libraries,
    )  # fmt: skip
    return found if there == wanted else None


def measured_again(manifest: Manifest, proof: Proof) -> Manifest | None:
    """``manifest`` judged by the proof's budgets, where all that it asks for was measured; else None."""
    found = manifest.measured
    if found is None:
        return None
    evaluation = None if proof.evaluation is None else proof.evaluation.describe()
    wanted = proof.described(proof.options)
    if (found.options, found.evaluation, found.machine) != (wanted, evaluation, this_machine()):
        return None
    measurements = found.as_measurements()
    asked = {*(proof.metrics or ()), *(budget.metric for budget in proof.budgets)}
    if asked - set(measurements) - set(measurements.failures):
        return None
    verdicts = judge(proof.budgets, measurements)
    return manifest.model_copy(update={"measured": found.model_copy(update={"verdicts": verdicts})})
