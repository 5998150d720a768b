"""Text that somebody else wrote (a name, a caption, a note), made harmless in each format that shows it."""

from __future__ import annotations

import html as standard
import re

LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': "''"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "]": "{]}"}
    | {
        "±": r"$\pm$",
        "†": r"\dag{}",
        "‡": r"\ddag{}",
        "§": r"\S{}",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
        "—": "---",
    }
    | {"\N{MULTIPLICATION SIGN}": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "→": r"$\to$", "`": r"\textasciigrave{}"}
)
_MARKDOWN = re.compile(
    r"""[\\`*<|~$]            # code, emphasis, HTML, a cell of a table, a formula
    | (?<!\w)_ | _(?!\w)      # emphasis; an underscore within a word is none
    | (?<=\])[(\[:] | !(?=\[) # link, image
    | &(?=[#\w]+;)            # a character by its number or name
    | (?<=:)/(?=/) | (?<=www)\.  # an address becomes a link
    | ^[#>=+-] | ^[0-9]+[.)](?=\ |$)  # heading, quotation, list""",
    re.VERBOSE,
)
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four are the wide forms of the first four


def printable(text: str) -> str:
    """Text on one line: what a terminal obeys and does not show (line breaks, colours, direction) becomes escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def message(text: str) -> str:
    """Text of several lines for a terminal; only its line breaks stay as they are."""
    return "\n".join(map(printable, text.split("\n")))


def markdown(text: str) -> str:
    """One line of Markdown, also in a cell of a table, that reads as plain text."""
    return _MARKDOWN.sub(lambda match: f"{match[0][:-1]}\\{match[0][-1]}", printable(text))


def latex(text: str) -> str:
    """LaTeX that typesets the text."""
    return printable(text).translate(LATEX)


def html(text: str) -> str:
    """HTML that shows the text."""
    return standard.escape(printable(text))


def csv(text: str) -> str:
    """Cell that no spreadsheet computes: one that begins like a formula, and is no number, gets an apostrophe."""
    shown = printable(text)
    return f"'{shown}" if text.lstrip(" ").startswith(_FORMULA) and not _is_number(text) else shown


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", text, re.IGNORECASE) is not None
