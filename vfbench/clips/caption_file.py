"""Caption files: the prompt, class or seed of each clip, by its path below the folder.

    TSV     cats/0001.mp4 <TAB> a cat jumps over a wall                         a line a clip, without quotes
    CSV     file_name,text                                                      a header, then a row a clip
    JSON    {"cats/0001.mp4": "a cat jumps over a wall"}                        as VBench takes by --prompt_file
            [{"file_name": "cats/0001.mp4", "text": "a cat jumps over a wall"}]
    JSONL   {"file_name": "cats/0001.mp4", "text": "a cat jumps over a wall"}   a line a clip, as Hugging Face writes

CSV is known by its suffix, JSON by its first character. VBench: https://github.com/Vchitect/VBench (evaluate.py);
Hugging Face: https://huggingface.co/docs/datasets/video_dataset (metadata.csv, metadata.jsonl).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vfbench.clips.text import names_on_disk, shortened
from vfbench.errors import MissingData
from vfbench.utils.files import read_text

NAME_KEYS = (
    *("file_name", "file_names", "filename", "path", "file", "name"),
    *("video", "videos", "video_path", "video_list"),
)
CAPTION_KEYS: Mapping[str, Sequence[str]] = {  # by what the captions are
    "prompt": ("prompt", "text", "caption", "prompt_en"),
    "class": ("class", "label", "class_name"),
    "seed": ("seed",),
}
FORMATS = "CSV (.csv), JSON and JSON lines are read as well"

Row: TypeAlias = tuple[str, object, object]  # place in the file, name and caption of a clip


def read_captions(path: Path, what: str, names: Collection[str] = ()) -> dict[str, str]:
    """Caption of each clip in the order of the file, under its name in `names` where it is one of them.

    A path may be written as `./a.mp4`, with backslashes, or in another Unicode form than on disk. `what` is `prompt`,
    `class` or `seed`. Raises `MissingData` naming the file, and the place that lacks a name or caption or repeats a
    clip with another caption.
    """
    rows = [_texts(path, row, what) for row in _rows(path, read_text(path), what)]
    on_disk = names_on_disk([name for _, name, _ in rows], names)
    captions: dict[str, str] = {}
    for place, name, caption in rows:
        if captions.setdefault(on_disk.get(name, name), caption) != caption:
            raise MissingData(f"{path}, {place}: {shortened(name)} has two {what}s; keep the one it was made from")
    return captions


def _texts(path: Path, row: Row, what: str) -> tuple[str, str, str]:
    """A row with name and caption as text; raises `MissingData` where one is missing or no text."""
    place, name, caption = row
    if isinstance(caption, int) and what != "prompt":
        caption = str(caption)
    if not (isinstance(name, str) and isinstance(caption, str) and name.strip() and caption.strip()):
        values = shortened(f"{name!r}, {caption!r}")
        raise MissingData(f"{path}, {place}: needed: the path of a clip and its {what}, both as text, not {values}")
    return place, name.strip(), caption.strip()


def _rows(path: Path, text: str, what: str) -> Iterable[Row]:
    """Rows of a file in any format."""
    if text.lstrip()[:1] in ("{", "[") and (content := _json(path, text)) is not None:
        return _json_rows(path, content, what)
    return _csv_rows(path, text, what) if path.suffix.lower() == ".csv" else _tsv_rows(path, text, what)


def _lines(text: str) -> list[tuple[str, str]]:
    """Place and text of each line that is not empty."""
    return [(f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _tsv_rows(path: Path, text: str, what: str) -> Iterator[Row]:
    for place, line in _lines(text):
        name, tab, caption = line.partition("\t")
        if place == "line 1" and name in NAME_KEYS and caption.strip() in CAPTION_KEYS[what]:
            continue  # a header
        if not (tab and name.strip() and caption.strip()):
            needed = f"needed: path below the folder, a tab, the {what}, not {shortened(line)!r}"
            raise MissingData(f"{path}, {place}: {needed}; {FORMATS}")
        yield place, name, caption


def _csv_rows(path: Path, text: str, what: str) -> Iterator[Row]:
    table = csv.DictReader(io.StringIO(text), strict=True)
    try:
        columns = [column.strip() for column in table.fieldnames or []]
        table.fieldnames = columns
        name, caption = _keys(path, "line 1", columns, what)
        for row in table:
            if None in row or None in row.values():
                raise csv.Error(f"not {len(columns)} columns: text with a comma needs quotes")
            yield f"line {table.line_num}", row[name], row[caption]
    except csv.Error as error:
        raise MissingData(f"{path}, line {table.line_num}: no readable CSV ({error}); write it again") from error


def _json(path: Path, text: str) -> dict[str, Any] | list[Any] | None:
    """Content of a JSON file, that of JSON lines as a list; None for a TSV file whose first clip is `[1].mp4`."""
    lines = _lines(text)
    first_line = lines[0][1].strip()
    try:
        whole: dict[str, Any] | list[Any] = _parse(text)
        return whole
    except (ValueError, RecursionError) as error:
        place, reason = "", str(error)
    if "\t" in first_line:
        return None
    if len(lines) > 1 and first_line.endswith("}"):
        content = []
        try:
            for number, line in lines:
                place = f", {number}"
                content.append(_parse(line))
        except (ValueError, RecursionError) as error:
            reason = str(error)
        else:
            return content
    raise MissingData(f"{path}{place}: no readable JSON ({shortened(reason)}); write it again")


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """JSON object; raises ValueError for a key with two values, of which `json` would keep the last."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if content.setdefault(key, value) != value:
            raise ValueError(f"{key!r} has two values")
    return content


def _json_rows(path: Path, content: Mapping[str, Any] | Sequence[Any], what: str) -> Iterator[Row]:
    if isinstance(content, Mapping) and not _is_row(content, what):
        yield from ((f"item {number}", *pair) for number, pair in enumerate(content.items(), 1))
        return
    for number, item in enumerate([content] if isinstance(content, Mapping) else content, 1):
        if not isinstance(item, Mapping):
            needed = f"needed: an object with a path and its {what}"
            raise MissingData(f"{path}, item {number}: {needed}, not {shortened(repr(item))}")
        name, caption = _keys(path, f"item {number}", list(item), what)
        names = item[name] if isinstance(item[name], list) else [item[name]]
        yield from ((f"item {number}", each, item[caption]) for each in names)


def _is_row(content: Mapping[str, Any], what: str) -> bool:
    """True for an object of one clip, as in JSON lines, and not of many, as VBench has it."""
    return not set(NAME_KEYS).isdisjoint(content) and not set(CAPTION_KEYS[what]).isdisjoint(content)


def _keys(path: Path, place: str, keys: Sequence[str], what: str) -> tuple[str, str]:
    """Keys of name and caption: the first choice, or the only one; raises `MissingData` for none and for several."""
    chosen = []
    for known in (NAME_KEYS, CAPTION_KEYS[what]):
        candidates = [key for key in known if key in keys]
        if not candidates or (candidates[0] != known[0] and len(candidates) > 1):
            names = f"{' and '.join(candidates)}: keep one" if candidates else f"none of {', '.join(known)}"
            raise MissingData(f"{path}, {place}: has {shortened(', '.join(keys))}, {names}; name one {known[0]}")
        chosen.append(candidates[0])
    return chosen[0], chosen[1]
