"""What the compiler says, as one sentence with the node and what to do."""

from __future__ import annotations

from edgeq.errors import TargetError
from edgeq.targets.tensorrt.backend.request import BuildRequest, Message


def explain(request: BuildRequest, messages: tuple[Message, ...]) -> TargetError:
    """The error for a build that the compiler refused with ``messages``."""
    errors = [message for message in messages if message.severity == "error"]
    if not errors:
        return TargetError(f"TensorRT cannot build {request.model.name} and does not say why.")
    first = errors[0]
    where = f"{first.op_type} {first.node!r}: " if first.node else ""
    return TargetError(f"TensorRT cannot build {request.model.name}: {where}{_plain(first.text)}")


def crashed(request: BuildRequest, how: str, said: str) -> TargetError:
    """The error for a build whose process ended without an answer."""
    last = f" The last thing that it said: {_plain(said)!r}." if said else ""
    return TargetError(f"The process that builds {request.model.name} {how}.{last}")


def _plain(text: str) -> str:
    return " ".join(text.split())
