"""Sphinx configuration: sphinx-build -W --keep-going -b html docs docs/_build"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import vfbench

HERE = Path(__file__).parent

project = "vfbench"
author = "the vfbench authors"
release = version = vfbench.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"vfbench {release}"
html_show_copyright = False

smartquotes = False  # `--` belongs to flags
default_role = "literal"  # docstrings write `name`, as Markdown does
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88


def setup(app: Any) -> None:
    """Make the generated pages first, and read indented blocks of docstrings as literal text."""
    app.connect("builder-inited", lambda _: runpy.run_path(str(HERE / "generate.py"))["write"](HERE / "_generated"))
    app.connect("autodoc-process-docstring", _mark_indented_blocks)
    app.connect("autodoc-process-signature", _leave_out_signatures_of_records)


def _leave_out_signatures_of_records(app: Any, what: str, name: str, obj: Any, *_: Any) -> tuple[str, None] | None:
    """A record is read from a file and not made by hand; its fields are listed below it."""
    return ("", None) if what == "class" and issubclass(obj, BaseModel) else None


def _mark_indented_blocks(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if lines and lines[0].startswith("Alias for field number"):  # of a named tuple
        lines.clear()
    marked: list[str] = []
    for line in lines:
        begins = line.startswith("    ") and marked[-1:] == [""]
        above = next((text for text in reversed(marked) if text), "")
        if begins and above and not above.startswith((" ", "- ")) and not above.endswith("::"):
            marked += ["::", ""]
        marked.append(line)
    lines[:] = marked
