"""The compiler's texts without what only its makers can read."""

from __future__ import annotations

import re

# Where in the compiler's own sources something was found, and what it asserted there.
_INTERNAL = (
    re.compile(r"^[A-Z_]+ in \w+: "),
    re.compile(r"Invalid Node - \S+\n"),
    re.compile(r"\bI\w+::\w+: (Internal )?Error Code \d+: "),
    re.compile(r"Assertion failed: .*?: "),
    re.compile(r"\b(API Usage|Shape|Internal) Error \("),
    re.compile(r"\.? In \S+ at /\S+?:\d+\)?"),
    re.compile(r"^\w+\.(cpp|h):\d+: "),
    re.compile(r"\[\w+\.(cpp|h):\d+: \w+\] "),
    re.compile(r"^ *\(foreignNode\) "),
)


def plain(text: str) -> str:
    """One line without places in the compiler's sources."""
    for pattern in _INTERNAL:
        text = pattern.sub("", text)
    return " ".join(text.split()).rstrip(".")
