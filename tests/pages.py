"""README, CONTRIBUTING, CHANGELOG and the pages of `docs` as text, for the tests of documentation."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README, CONTRIBUTING, CHANGELOG = (
    (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
)
_MADE = ("_generated", "_build")
DOCS = {
    str(path.relative_to(ROOT).with_suffix("")): path.read_text()
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if not any(name in path.parts for name in _MADE)
}
PAGES = {"README": README, "CONTRIBUTING": CONTRIBUTING, **DOCS}
PLUGINS = "\n".join(text for name, text in DOCS.items() if name.startswith("docs/plugins"))


def code(text: str, language: str) -> list[str]:
    """Fenced code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def examples() -> dict[str, str]:
    """Source of every example of a plug-in by its path."""
    return dict(re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)^```$", PLUGINS, re.DOTALL | re.MULTILINE))
