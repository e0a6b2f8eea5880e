"""Recipe overrides: which node the user wants in which precision."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Protocol

from edgeq.compiler.recipe import Override, Precision
from edgeq.errors import UsageError

OP_PREFIX = "op:"


class Named(Protocol):
    """What an override can match: a node of an ONNX graph, or of another one."""

    @property
    def name(self) -> str | None: ...

    @property
    def op_type(self) -> str: ...


def resolve_overrides(
    nodes: Iterable[Named], overrides: Sequence[Override]
) -> dict[str, tuple[Precision, str]]:
    """Node name → (precision, the pattern that asked for it); the last matching override wins.

    Raises:
        UsageError: an override matches no node.
    """
    found: dict[str, tuple[Precision, str]] = {}
    if not overrides:
        return found
    listed = list(nodes)
    for override in overrides:
        matched = [node for node in listed if _matches(node, override.match)]
        if not matched:
            raise _no_match(override.match, listed)
        found.update((node.name or "", (override.precision, override.match)) for node in matched)
    return found


def check_precisions(
    wanted: Mapping[str, tuple[Precision, str]], scheme: str, allowed: Collection[Precision]
) -> None:
    """Refuse overrides that ask for a precision that ``scheme`` cannot mix in.

    Raises:
        UsageError: naming the override.
    """
    for precision, pattern in wanted.values():
        if precision not in allowed:
            raise UsageError(
                f"The override {pattern!r} asks for {precision}, which the scheme {scheme} has not.",
                fix=f"It has: {', '.join(allowed)}.",
            )


def _matches(node: Named, pattern: str) -> bool:
    if pattern.startswith(OP_PREFIX):
        return fnmatchcase(node.op_type, pattern[len(OP_PREFIX) :])
    return fnmatchcase(node.name or "", pattern)


def _no_match(pattern: str, nodes: Sequence[Named]) -> UsageError:
    if pattern.startswith(OP_PREFIX):
        known = sorted({OP_PREFIX + node.op_type for node in nodes})
    else:
        known = [node.name or "" for node in nodes]
    close = get_close_matches(pattern, known, n=3, cutoff=0.4) or known[:3]
    return UsageError(
        f"The override {pattern!r} matches no node of the model.",
        fix=f"Use a glob on node names or {OP_PREFIX}Type; the model has, for example: {', '.join(close)}.",
    )
