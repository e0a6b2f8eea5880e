"""What the compiler says, as one sentence with the node and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.known import KNOWN
from edgeq.targets.tensorrt.backend.request import BuildRequest, Message

# Where in the compiler's own sources something was found, and what it asserted there, tell users nothing.
_INTERNAL = (
    re.compile(r"^[A-Z_]+ in \w+: "),
    re.compile(r"Invalid Node - \S+\n"),
    re.compile(r"\bI\w+::\w+: (Internal )?Error Code \d+: "),
    re.compile(r"Assertion failed: .*?: "),
    re.compile(r"\b(API Usage|Shape|Internal) Error \("),
    re.compile(r"\.? In \S+ at /\S+?:\d+\)?"),
    re.compile(r"^\w+\.(cpp|h):\d+: "),
    re.compile(r"\[\w+\.(cpp|h):\d+: \w+\] "),
)
_SHOWN = 3
_LINT = "See what TensorRT makes of each node with: edgeq lint --target tensorrt {}"


def explain(request: BuildRequest, messages: Sequence[Message]) -> TargetError:
    """The error for a build that the compiler refused with ``messages``."""
    errors = [message for message in messages if message.severity == "error"]
    begin = f"TensorRT cannot build {request.model.name}: "
    for known in KNOWN:
        for message in errors:
            match = known.pattern.search(message.text)
            if match:
                what = known.what(match, message)
                return TargetError(f"{begin}{_node(message)}{what}.", fix=known.mend(match, message))
    if not errors:
        return TargetError(f"{begin}it does not say why.", fix=_LINT.format(request.model))
    texts = dict.fromkeys(f"{_node(message)}{plain(message.text)}" for message in errors)
    return TargetError(f"{begin}{'; '.join(list(texts)[:_SHOWN])}.", fix=_LINT.format(request.model))


def crashed(request: BuildRequest, how: str, said: str) -> TargetError:
    """The error for a build whose process ended without an answer."""
    last = f"; the last thing that it said: {plain(said)}" if said else ""
    return TargetError(f"The process that builds {request.model.name} {how}{last}.")


def plain(text: str) -> str:
    """One line without places in the compiler's sources."""
    for pattern in _INTERNAL:
        text = pattern.sub("", text)
    return " ".join(text.split()).rstrip(".")


def _node(message: Message) -> str:
    if not message.node and not message.op_type:
        return ""
    return f"{' '.join(filter(None, (message.op_type, repr(message.node) if message.node else '')))}: "
