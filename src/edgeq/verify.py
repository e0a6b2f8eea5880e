"""Proving an artefact again: its files, its numbers, and what runs in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeq.compiler.plan import NodePlan, Plan
from edgeq.errors import DataError, ModelError, TargetError
from edgeq.manifest import Manifest, verify_files
from edgeq.targets.base import Check, NodeResult, Target
from edgeq.targets.checks import require_ready
from edgeq.targets.registry import get_target


@dataclass(frozen=True)
class Verification:
    """What was put to the test; ``how`` says what ran the artefact."""

    folder: Path
    target: str
    how: str
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether everything held that could be tried."""
        return all(check.passed is not False for check in self.checks)


def verify(folder: Path | str, *, threads: int | None = None) -> Verification:
    """Prove the artefact in ``folder`` again: file digests, the target's own checks, node precisions.

    Raises:
        ConfigError: there is no artefact.
        ModelError: its manifest or its evidence cannot be read.
        TargetError: the target is not ready here.
    """
    place = Path(folder)
    manifest = Manifest.read(place)
    target = get_target(manifest.target)
    require_ready(target)
    checks = [_files(manifest, place), *_target_checks(target, place, threads)]
    checks.append(_nodes(target, manifest, place))
    return Verification(place, manifest.target, manifest.proved_by or target.runner_kind(), checks)


def _files(manifest: Manifest, folder: Path) -> Check:
    count = len(manifest.files) + len(manifest.evidence)
    wanted = "the bytes that edgeq wrote"
    try:
        verify_files(manifest, folder)
    except ModelError as error:
        return Check("files", False, error.what, wanted)
    return Check("files", True, f"{count} files with the SHA-256 of the manifest", wanted)


def _target_checks(target: Target, folder: Path, threads: int | None) -> list[Check]:
    try:
        return target.check(folder, threads=threads)
    except (TargetError, ModelError, DataError) as error:
        return [Check("target", False, error.what, f"an artefact that {target.title} takes")]


def _nodes(target: Target, manifest: Manifest, folder: Path) -> Check:
    """Whether every node still runs as the manifest says, on this machine."""
    wanted = "every node in the precision of the manifest"
    try:
        now = {node.name: node for node in target.verify(folder, _plan_of(manifest.nodes))}
    except (TargetError, ModelError) as error:
        return Check("precision", False, error.what, wanted)
    changed = [node for node in manifest.nodes if now[node.name].actual != node.actual]
    if not changed:
        return Check("precision", True, f"all {len(manifest.nodes)} nodes as compiled", wanted)
    first = changed[0]
    other = f"{first.name!r}: {now[first.name].actual} instead of {first.actual}"
    text = f"{len(changed)} nodes differ, first {other}"
    return Check("precision", False, text, wanted)


def _plan_of(nodes: list[NodeResult]) -> Plan:
    plans = {n.name: NodePlan(n.name, n.op_type, n.planned, n.reason, n.asked) for n in nodes}  # type: ignore[arg-type]
    return Plan(nodes=plans)
