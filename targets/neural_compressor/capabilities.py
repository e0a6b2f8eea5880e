"""What the target can do, as data. Its own quantizer places INT8; the shared planner is not asked."""

from __future__ import annotations

from edgeq.targets.base import Capabilities

CAPABILITIES = Capabilities(
    target="neural-compressor",
    schemes=("fp32", "int8-static", "int8-dynamic", "int4-weight"),
)
