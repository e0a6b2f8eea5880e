"""The target ``bnb-nf4``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq.targets.base import BuildJob, BuildResult, Capabilities, Check, NodeResult, Runner, WeightRules
from edgeq.targets.language.target import CheckpointTarget

if TYPE_CHECKING:
    from edgeq.compiler.plan import Plan

_RULES = WeightRules(
    bits=(), group_sizes=(64,), group_size=64, symmetric=(True,), methods=("rtn",), scale_dtype="float32"
)


class BnbNf4Target(CheckpointTarget):
    """NF4 checkpoint (transformers with bitsandbytes)."""

    name = "bnb-nf4"
    title = "NF4 checkpoint (transformers with bitsandbytes)"
    extra: str | None = "bnb"

    def capabilities(self, options: Any = None) -> Capabilities:
        return Capabilities(self.name, ("nf4-weight",), weights=_RULES)

    def build(self, job: BuildJob, folder: Path) -> BuildResult:
        raise NotImplementedError

    def verify(self, folder: Path, plan: Plan) -> list[NodeResult]:
        raise NotImplementedError

    def check(self, folder: Path, *, threads: int | None = None) -> list[Check]:
        raise NotImplementedError

    def runner(self, folder: Path, *, threads: int | None = None) -> Runner:
        raise NotImplementedError
