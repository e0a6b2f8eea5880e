"""What follows from the checks of a build, and of a machine."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.errors import TargetError
from edgeq.targets.base import Check, Target


def refuse_failed(checks: Sequence[Check], what: str, precision: str, *, fix: str | None = None) -> None:
    """Raise when what a build wrote does not compute what its model does.

    ``what`` names it; ``precision`` is the option that lets it compute in float32; ``fix`` says what to do
    where that is no remedy.

    Raises:
        TargetError: naming the first check that failed.
    """
    failed = [check for check in checks if check.passed is False]
    if not failed:
        return
    first = failed[0]
    raise TargetError(
        f"The {what} does not verify: {first.name}: {first.found}; wanted: {first.wanted}.",
        fix=fix
        or f"Keep the nodes that lose accuracy in float (--exclude), or compute in float32 ({precision}).",
    )


def require_ready(target: Target) -> None:
    """Raise when ``target`` cannot be used on this machine.

    Raises:
        TargetError: with the command that makes it ready.
    """
    found = target.availability()
    if not found.ready:
        fix = f"Make it ready with: {found.fix}" if found.fix else None
        raise TargetError(f"Target {target.name!r} is not ready here: {found.detail}.", fix=fix)
