from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from edgeq.report import render_report, write_report
from edgeq.report_html import el, table
from edgeq.targets.base import UNPROVEN, NodeResult
from tests.support.manifests import manifest

VOID = {"meta"}


class Checker(HTMLParser):
    """Checks that every element is closed, and collects the text and the attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def test_the_page_is_well_formed_and_says_what_matters(tmp_path: Path) -> None:
    write_report(manifest(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = "\n".join(checked(page).text)
    for words in (
        "1 of 2 budgets missed",
        "top1 is 73.00 %",
        "-2.00 to +1.00 points",
        "not measured: no labels",
        "1 planned quantized, but running in float.",
        "no int8 kernel & slow",
        "a note",
        "a measuring note",
        "int8-static",
        "a" * 64,
        "b" * 64,
        "Test CPU",
    ):
        assert words in text, words


def test_nothing_comes_from_outside_and_there_is_no_script() -> None:
    page = render_report(manifest())
    assert "<script" not in page
    assert "http" not in page
    assert "url(" not in page
    assert not {name for name, _ in checked(page).attributes} & {"src", "href", "onclick", "onload"}


def test_names_are_escaped() -> None:
    nasty = '<img src=x onerror="alert(1)">'
    page = render_report(manifest(name=nasty).model_copy(update={"notes": [nasty]}))
    assert "<img" not in page
    assert "src" not in {name for name, _ in checked(page).attributes}
    assert "resize&lt;1&gt;" in page


def test_missed_nodes_come_first_and_in_red() -> None:
    page = render_report(manifest())
    assert page.index("resize&lt;1&gt;") < page.index("<code>conv</code>")
    assert '<span class="bad">fp32</span>' in page


def test_same_manifest_same_page() -> None:
    assert render_report(manifest()) == render_report(manifest())


def test_nothing_measured() -> None:
    page = render_report(manifest().model_copy(update={"measured": None, "nodes": [], "notes": []}))
    checked(page)
    assert "Not measured" in page
    assert "<svg" not in page


def test_no_budgets_and_no_baseline() -> None:
    full = manifest().measured
    assert full is not None
    alone = [m.__class__(m.metric, m.value, None, m.unit, m.higher_is_better) for m in full.measurements]
    measured = full.model_copy(update={"verdicts": [], "measurements": alone})
    page = render_report(manifest().model_copy(update={"measured": measured}))
    checked(page)
    assert "No budgets given" in page
    assert "no FP32 baseline" in page


def test_long_node_tables_are_folded() -> None:
    nodes = manifest().nodes[:1] * 100
    page = render_report(manifest().model_copy(update={"nodes": nodes}))
    assert "All 100 nodes" in page
    assert page.index("<details>") < page.index("<code>conv</code>")


def test_pictures_stay_inside_their_frame() -> None:
    page = render_report(manifest())
    widths = [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', page)]
    assert len(widths) == 4
    assert all(0 < width <= 460 for width in widths)
    assert page.count("<path") == 2


def test_elements_escape_children_and_attributes() -> None:
    assert el("p", "a<b", None, el("b", "c"), class_="x", title='"q"') == (
        '<p class="x" title="&quot;q&quot;">a&lt;b<b>c</b></p>'
    )
    assert "<td>&lt;</td>" in table(("h",), [("<",)])


def test_nodes_that_nothing_proves_are_not_said_to_run_in_float() -> None:
    made = manifest()
    unproven = NodeResult("fc", "Gemm", "int8", UNPROVEN, "", "no layer names it")
    page = render_report(made.model_copy(update={"nodes": [*made.nodes, unproven]}))
    text = "\n".join(checked(page).text)
    assert "1 unproven" in text
    assert "2 planned quantized, but running in float or unproven." in text
