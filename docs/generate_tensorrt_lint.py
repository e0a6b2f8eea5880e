"""Write docs/tensorrt-lint.md from the table of rules: ``make docs``. A test fails when it is out of date."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from edgeq.targets.tensorrt.lint.table import RULES

PAGE = Path(__file__).with_name("tensorrt-lint.md")

HEAD = """\
# Rules of `edgeq lint --target tensorrt`

<!-- Written by `make docs` from the table of rules; edit targets/tensorrt/lint/table.py instead. -->

`edgeq lint` reads an ONNX model that is quantized with QuantizeLinear and DequantizeLinear, by edgeq or any
other tool, and says before anything is built what TensorRT will refuse, compute wrongly or leave in float,
with the node and the mend. It builds and runs nothing, reads no weights, needs neither TensorRT nor a GPU.

    edgeq lint --target tensorrt model.onnx --sm 86,120

The exit code is 0 when there are at most remarks on speed and notes, 1 when anything fails, is wrong or
runs in float, 3 when the file cannot be read; `--json` gives the findings to programs. `edgeq.lint` is the
same in Python. `edgeq compile --target tensorrt` lints what it has quantized before it builds.

What each rule says was seen with TensorRT for RTX 1.7: a test builds a model for each of them and compares.
"""

HEADINGS = {
    "fails": ("Fails", "The model is not read, the engine is not built, or the compiler crashes."),
    "wrong": ("Wrong", "The engine is built without an error and computes something else."),
    "float": ("Float", "The engine is built, and the node runs in float although it is quantized."),
    "slow": ("Slow", "It works, with conversions or traffic that are not needed."),
    "note": ("Note", "Worth knowing; nothing is lost but some accuracy."),
}


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for outcome in HEADINGS for line in _section(outcome))])


def _section(outcome: str) -> Iterator[str]:
    title, text = HEADINGS[outcome]
    yield from (f"## {title}", "", text, "", "| rule | what |", "|---|---|")
    for name, rule in RULES.items():
        if rule.outcome == outcome:
            yield f"| `{name}` | {rule.title} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"Wrote {PAGE}\n")
