"""Write docs/coreml-ops.md from the table of handlers: ``make docs``. A test fails when it is out of date."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

import onnx.defs

from edgeq.targets.coreml.frontend.table import HANDLERS, Handler

PAGE = Path(__file__).with_name("coreml-ops.md")
PREFIX = "edgeq.targets.coreml.ops."
MICROSOFT = "com.microsoft."

# Module with a table of handlers → heading, in the order of the page.
FAMILIES: Mapping[str, str] = {
    "linear": "Matrix products",
    "convolution": "Convolutions",
    "attention": "Attention",
    "recurrent": "Recurrent layers",
    "activation": "Activations",
    "normalization": "Normalizations",
    "math": "Arithmetic",
    "comparison": "Comparison, logic, casts",
    "reduction": "Reductions and selection",
    "pooling": "Pooling",
    "resize": "Images and rearrangement",
    "shape": "Shapes",
    "gather_scatter": "Gathering and scattering",
    "quantization": "Quantization",
}

HEAD = """\
# ONNX operators on Core ML

<!-- Written by `make docs` from the table of handlers; edit the handlers in targets/coreml/ops instead. -->

An operator of this table is lowered exactly, or its node is refused: the message names the attribute, mode,
dtype, rank or dynamic size that is in the way ([which there are](coreml.md#what-is-refused)). Models are
normalized first, so operators of older opsets (Upsample) count as what they become. Nodes whose inputs are
all constant are computed while compiling; an If whose condition is known then becomes its branch.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_lowered(), *_refused(), *_unknown()])


def _lowered() -> Iterator[str]:
    yield "| family | ONNX | com.microsoft |"
    yield "|---|---|---|"
    for family, title in FAMILIES.items():
        names = [name for name, handler in _family(family).items() if not refuses(handler)]
        own = [name for name in names if not name.startswith(MICROSOFT)]
        others = [name.removeprefix(MICROSOFT) for name in names if name.startswith(MICROSOFT)]
        yield f"| {title} | {_list(own)} | {_list(others)} |"
    yield ""


def _refused() -> Iterator[str]:
    names = [name for name, handler in HANDLERS.items() if refuses(handler)]
    yield "## Always refused, with the reason and what to do instead"
    yield ""
    yield _list(name.removeprefix(MICROSOFT) for name in names) + "."
    yield ""


def _unknown() -> Iterator[str]:
    rewritten = {"If", "Upsample"}
    names = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    yield "## ONNX operators without an equivalent"
    yield ""
    yield _list(names - HANDLERS.keys() - rewritten) + "."
    yield ""


def _family(name: str) -> Mapping[str, Handler]:
    handlers: Mapping[str, Handler] = import_module(PREFIX + name).HANDLERS
    return handlers


def refuses(handler: Handler) -> bool:
    """Whether the handler takes no node at all: it is declared to return nothing."""
    return bool(inspect.signature(inspect.unwrap(handler)).return_annotation == "NoReturn")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names)))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"Wrote {PAGE}\n")
