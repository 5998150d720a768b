"""What others say of their clips: a file with a line for each, its path below the folder, a tab and a word or text.

cats/0001.mp4 <TAB> a cat jumps over a wall
"""

from __future__ import annotations

from pathlib import Path

from vfbench.errors import MissingData


def told(path: Path, what: str) -> dict[str, str]:
    """`what` (such as `prompt`) the file says of each clip, by the clip's name, in the order of the lines.

    UTF-8; empty lines do not count. Raises `MissingData` naming the file, and the line that lacks one of the two or
    says something else of a clip than a line before it.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingData(f"{path}: cannot be read as UTF-8 text ({error})") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, value = (part.strip() for part in line.partition("\t"))
        if not (name and value):
            raise MissingData(f"{path}, line {number}: needed: path below the folder, a tab, the {what}: {line!r}")
        if found.setdefault(name, value) != value:
            raise MissingData(f"{path}, line {number}: {name} has two {what}s; keep the one it was made from")
    return found
