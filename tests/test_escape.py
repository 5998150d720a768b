"""Tests of `vfbench.utils.escape`, and of names from a file in every table, message and page."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from conftest import Command
from PIL import Image
from resultfiles import PROTOCOL, build, record

from vfbench.report.results import Result
from vfbench.utils import escape
from vfbench.video.contact_sheet import write_sheet

RED, OVERRIDE = "\x1b[31m", "\N{RIGHT-TO-LEFT OVERRIDE}"
EVIL = f"=cmd|{RED}\n| real | 0 |{OVERRIDE}<img src=x onerror=a()>[a](http://b)`c`**d**$e$\\f{{}}%&_g_"


@pytest.mark.parametrize(
    "text", ["\x00", RED, "a\nb", "a\rb", "\x9b31m", OVERRIDE, "\u2066", "\u200b", "\u2028", "\udc80"]
)
def test_what_a_terminal_obeys_is_escaped(text: str) -> None:
    assert escape.printable(text).isprintable()
    assert escape.printable(text).encode()
    assert escape.message(f"{text}\nb").split("\n")[-1] == "b"


@pytest.mark.parametrize(
    "text", ["vdm", "vdm(steps=50, solver='ddim')", "[low, high]", "base_flicker", "95 % ± 3", "a - b", "日本語"]
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert escape.printable(text) == escape.markdown(text) == escape.csv(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("`a`", r"\`a\`"),
        ("**a**", r"\*\*a\*\*"),
        ("_a_ b_c", r"\_a\_ b_c"),
        ("<b>", r"\<b>"),
        ("[a](b)", r"[a]\(b)"),
        ("[a]: b", r"[a]\: b"),
        ("![a]", r"\![a]"),
        ("&#8238; & b", r"\&#8238; & b"),
        ("https://a www.b", r"https:\//a www\.b"),
        ("# a", r"\# a"),
        ("1. a", r"1\. a"),
        ("\\", r"\\"),
        ("a\nb", r"a\\nb"),
    ],
)
def test_markdown_shows_the_text(text: str, expected: str) -> None:
    assert escape.markdown(text) == expected


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-cmd", "@sum", "\t=1", "\r=1", " =1", "\uff1d1", "-1+1", "=-1"])
def test_a_formula_is_no_formula_in_csv(text: str) -> None:
    assert escape.csv(text).startswith("'")


@pytest.mark.parametrize("text", ["-1", "-1.5e-3", "+2", "a=b"])
def test_a_number_stays_a_number_in_csv(text: str) -> None:
    assert escape.csv(text) == text


class Tags(HTMLParser):
    """Names of the elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.add(tag)


def evil_results() -> list[dict[str, object]]:
    protocol = {**PROTOCOL, "name": EVIL, "split": EVIL, "measures": {"fvd": {"metric": EVIL, "source": EVIL}}}
    results = [record(EVIL, protocol=protocol), record("vdm", protocol={**protocol, "id": "b" * 12}, run="2")]
    for each in results:
        each |= {"dataset": EVIL, "note": EVIL, "run_dir": EVIL, "model_spec": EVIL}
        each["scores"]["fvd"] |= {"title": EVIL, "note": EVIL}
    return results


def test_names_of_a_file_are_harmless_in_every_table() -> None:
    table = build(evil_results(), allow_mixed=True)
    markdown, latex, page = table.to_markdown(), table.to_latex(), table._repr_html_()
    for text in (markdown, latex, page, table.to_csv(), Result.model_validate(evil_results()[0])._repr_html_()):
        assert all(char.isprintable() or char == "\n" for char in text)
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4  # header, rule, two models and their floors
    assert len({row.replace(r"\|", "").count("|") for row in rows}) == 1
    assert not any(part in markdown.replace(r"\<", "") for part in ("<img", "](http"))
    assert "=cmd" in latex
    assert not any(part in latex for part in ("<img", "**d**$e$", r"\f{}"))
    assert Tags(page).names <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "b", "i", "ul", "li"}
    cells = [cell for row in csv.reader(io.StringIO(table.to_csv())) for cell in row]
    assert not any(cell.startswith("=") for cell in cells)


@pytest.mark.parametrize(
    "command",
    ["table a b", "table a b --allow-mixed", "gate a --baseline b --rule fvd:+5%", "gate a --baseline a --rule kvd:+5%",
     "compare a b", "compare a a", "show protocol a/results.json", "diff-protocols a b"],
)  # fmt: skip
def test_names_of_a_file_are_harmless_on_a_terminal(
    vfbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, result in zip("ab", evil_results(), strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(result))
    outcome = vfbench(*command.split())
    assert all(char.isprintable() or char == "\n" for char in outcome.out + outcome.err)
    assert "\n| real | 0 |" not in outcome.out + outcome.err


def test_a_caption_of_many_lines_is_one_line_of_a_sheet(tmp_path: Path) -> None:
    clips = torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8)
    write_sheet(tmp_path / "sheet.png", clips, captions=[f"{EVIL}{'x' * 100_000}"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width < 5000
