"""What the compiler says, as one sentence with the node and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.known import KNOWN
from edgeq.targets.tensorrt.backend.plain import plain
from edgeq.targets.tensorrt.backend.request import BuildRequest, Message

_SHOWN = 3
_LINT = "See what TensorRT takes with: edgeq lint --target tensorrt MODEL.onnx"


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
        return TargetError(f"{begin}it does not say why.", fix=_LINT)
    texts = dict.fromkeys(f"{_node(message)}{plain(message.text)}" for message in errors)
    return TargetError(f"{begin}{'; '.join(list(texts)[:_SHOWN])}.", fix=_LINT)


def crashed(request: BuildRequest, how: str, said: str) -> TargetError:
    """The error for a build whose process ended without an answer."""
    last = f"; the last thing that it said: {plain(said)}" if said else ""
    return TargetError(f"The process that builds {request.model.name} {how}{last}.")


def _node(message: Message) -> str:
    if not message.node and not message.op_type:
        return ""
    return f"{' '.join(filter(None, (message.op_type, repr(message.node) if message.node else '')))}: "
