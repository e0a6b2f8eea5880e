"""What the parser and the builder say, as messages: repetitions and the missing driver's echo left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from edgeq.targets.tensorrt.backend.log import Heard
from edgeq.targets.tensorrt.backend.plain import plain
from edgeq.targets.tensorrt.backend.request import Message

# Without a GPU every error drags along a failed call of the CUDA runtime, which says nothing about the model.
_NO_DRIVER = re.compile(r"\n?\[checkMacros\.cpp::catchCudaError::\d+\].*cudaError 35\b.*")
# Lines of the log around an error of the parser, which tells node and operator by itself.
_FRAME = re.compile(r"ModelImporter\.cpp:\d+: (While parsing node number|--- (Begin|End) node ---)")


class BuildRefusedError(Exception):
    """The parser or the builder said no; ``messages`` begin with the errors."""

    def __init__(self, messages: tuple[Message, ...]) -> None:
        super().__init__("; ".join(message.text for message in messages))
        self.messages = messages


def refused(heard: Heard, *reasons: Message) -> BuildRefusedError:
    """The error for ``reasons`` and for everything else that was ``heard``."""
    return BuildRefusedError((*reasons, *_further_errors(heard, reasons), *warnings(heard)))


def error(text: str) -> Message:
    return Message(severity="error", text=text)


def warnings(heard: Heard) -> tuple[Message, ...]:
    """Every warning once."""
    texts = dict.fromkeys(plain(text) for text in heard.warnings)
    return tuple(Message(severity="warning", text=text) for text in texts)


def parse_errors(parser: Any) -> Iterator[Message]:
    """The errors of an ``OnnxParser``, each with the node that it is about."""
    for index in range(parser.num_errors):
        found = parser.get_error(index)
        code = str(found.code()).rpartition(".")[2]
        text = _NO_DRIVER.sub("", found.desc()).strip()
        yield Message(
            severity="error",
            text=f"{code} in {found.func()}: {text}",
            node=found.node_name() or (f"number {found.node()}" if found.node() >= 0 else ""),
            op_type=found.node_operator(),
        )


def _further_errors(heard: Heard, reasons: Sequence[Message]) -> Iterator[Message]:
    """Errors of the log that ``reasons`` do not tell already."""
    stripped = [_NO_DRIVER.sub("", text).strip() for text in heard.errors]
    # A driver that is really too old is the only thing that is said then.
    texts = [text for text in stripped if text] or ([] if reasons else heard.errors)
    told = [reason.text.partition(": ")[2] for reason in reasons]
    for text in dict.fromkeys(texts):
        if not _FRAME.match(text) and not any(text in known or known in text for known in told):
            yield error(text)
