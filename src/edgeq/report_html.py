"""HTML elements as values: what is no element is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from edgeq.report_style import CSS


class Html(str):
    """Markup that is safe to put into a page as it is."""

    __slots__ = ()


def el(name: str, *children: Html | str | None, **attributes: str | None) -> Html:
    """An element. Children of type str are escaped; attributes drop a trailing ``_``; None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Html | str | None]) -> Html:
    """Children one after the other, escaped where they are plain text."""
    return Html("".join(_markup(child) for child in children if child is not None))


def _markup(child: Html | str) -> str:
    return child if isinstance(child, Html) else escape(child)


def document(title: str, *sections: Html | None) -> str:
    """A whole page: no script, nothing loaded from outside."""
    head = el(
        "head",
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        el("title", title),
        el("style", Html(CSS)),
    )
    body = el("body", el("main", *sections))
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[Html | str]],
    *,
    class_: str = "",
    numeric: Iterable[int] = (),
) -> Html:
    """A table in a box that scrolls sideways; the columns in ``numeric`` are aligned to the right."""
    right = set(numeric)
    header = el("tr", *(el("th", text, class_="n" if i in right else None) for i, text in enumerate(head)))
    body = [
        el("tr", *(el("td", cell, class_="n" if i in right else None) for i, cell in enumerate(row)))
        for row in rows
    ]
    content = el("table", el("thead", header), el("tbody", *body), class_=class_ or None)
    return el("div", content, class_="scroll")


def pairs(items: Iterable[tuple[str, Html | str]]) -> Html:
    """A list of names and values."""
    return el("dl", *(join((el("dt", name), el("dd", value))) for name, value in items))
