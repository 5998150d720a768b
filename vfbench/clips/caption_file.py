"""Caption files: one line per clip, its path below the folder, a tab, and a prompt, class or seed.

cats/0001.mp4 <TAB> a cat jumps over a wall
"""

from __future__ import annotations

from pathlib import Path

from vfbench.errors import MissingData
from vfbench.utils.files import read_text


def read_captions(path: Path, what: str) -> dict[str, str]:
    """Clip name to caption, in the order of the lines of a UTF-8 file; empty lines are skipped.

    `what` names the caption in messages, such as `prompt`. Raises `MissingData` naming the file, and the line that
    lacks a name or caption or repeats a clip with another caption.
    """
    lines = read_text(path).split("\n")
    captions: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, value = (part.strip() for part in line.partition("\t"))
        if not (name and value):
            raise MissingData(f"{path}, line {number}: needed: path below the folder, a tab, the {what}: {line!r}")
        if captions.setdefault(name, value) != value:
            raise MissingData(f"{path}, line {number}: {name} has two {what}s; keep the one it was made from")
    return captions
