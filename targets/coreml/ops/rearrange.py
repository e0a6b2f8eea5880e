"""DepthToSpace and SpaceToDepth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeq.targets.coreml.frontend.node import OnnxNode, Var
from edgeq.targets.coreml.toolkit import builder

if TYPE_CHECKING:
    from edgeq.targets.coreml.frontend.table import Handler

_RANK = 4


def _block_size(node: OnnxNode) -> int:
    node.require_float(0)
    if node.rank(0) != _RANK:
        node.refuse(f"its input has rank {node.rank(0)}, and MIL rearranges rank {_RANK} only")
    return int(node.attribute("blocksize"))


def depth_to_space(node: OnnxNode) -> Var:
    """DepthToSpace: MIL ``depth_to_space`` (DCR) or ``pixel_shuffle`` (CRD)."""
    mb, block, mode = builder(), _block_size(node), node.attribute("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        node.refuse(f"mode={mode}")
    if block == 1:
        return mb.identity(x=node.input(0))
    if mode == "DCR":
        return mb.depth_to_space(x=node.input(0), block_size=block)
    return mb.pixel_shuffle(x=node.input(0), upscale_factor=block)


def space_to_depth(node: OnnxNode) -> Var:
    """SpaceToDepth: MIL ``space_to_depth``; depth is ordered by block position first, as in DCR."""
    mb, block = builder(), _block_size(node)
    if block == 1:
        return mb.identity(x=node.input(0))
    return mb.space_to_depth(x=node.input(0), block_size=block)


HANDLERS: dict[str, Handler] = {"DepthToSpace": depth_to_space, "SpaceToDepth": space_to_depth}
