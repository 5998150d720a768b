"""Tests of `vfbench.clips.caption_file`: prompts of clips in every format, encoding and form of a path."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from conftest import DATA

from vfbench import clips
from vfbench.clips.caption_file import read_captions
from vfbench.clips.text import names_on_disk
from vfbench.errors import MissingData

CAFE = unicodedata.normalize("NFD", "café.mp4")  # as macOS stores it
NAMES = ["a.mp4", "sub/b.mp4", CAFE]
EXPECTED = {"a.mp4": "one, and more", "sub/b.mp4": 'a "two"', CAFE: "café"}
WRITTEN = ["./a.mp4", "sub\\b.mp4", unicodedata.normalize("NFC", CAFE)]
PAIRS = list(zip(WRITTEN, EXPECTED.values(), strict=True))
ROWS = [{"file_name": name, "text": text, "length": 3} for name, text in PAIRS]
TSV = "".join(f"{name}\t{text}\n" for name, text in PAIRS)
CSV = 'text,file_name\n"one, and more",./a.mp4\n"a ""two""",sub\\b.mp4\ncafé,café.mp4\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.tsv", TSV),
        ("p", f"\n{TSV}"),
        ("p.txt", f"file_name\ttext\n{TSV}"),
        ("p.csv", CSV),
        ("p.json", json.dumps(dict(PAIRS))),
        ("p.json", json.dumps(ROWS, indent=1)),
        ("p.json", json.dumps([{"video_list": [name], "prompt_en": text} for name, text in PAIRS])),
        ("p.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
        ("metadata.csv", CSV),
    ],
)
def test_every_format_is_read(tmp_path: Path, name: str, content: str, end: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(content.replace("\n", end).encode(encoding))
    assert read_captions(tmp_path / name, "prompt", NAMES) == EXPECTED


@pytest.mark.parametrize(
    ("what", "content", "caption"),
    [
        ("seed", '{"a.mp4": 12345}', "12345"),
        ("class", '{"file_name": "a.mp4", "label": "cat"}', "cat"),
        ("prompt", '{"file_name": "a.mp4", "prompt": "x", "caption": "y", "path": "z"}', "x"),
        ("prompt", "[1].mp4\tx\n", "x"),
        ("prompt", "a.mp4\tx\ty", "x\ty"),
    ],
)
def test_other_rows_are_read(tmp_path: Path, what: str, content: str, caption: str) -> None:
    (tmp_path / "p").write_text(content)
    assert list(read_captions(tmp_path / "p", what, NAMES).values()) == [caption]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.tsv", "x" * 110_000, r"line 1: needed: path below the folder, a tab, the prompt.*CSV"),
        ("p.tsv", "a.mp4\tone\n./a.mp4\ttwo", "line 2: ./a.mp4 has two prompts"),
        ("p.csv", "a.mp4,one", "line 1: has a.mp4, one, none of file_name"),
        ("p.csv", "file_name;text\na.mp4;one", "line 1: has file_name;text, none of file_name"),
        ("p.csv", "file_name,text\na.mp4,one, two", "line 2: no readable CSV .*needs quotes"),
        ("p.csv", 'file_name,text\na.mp4,"one', "no readable CSV"),
        ("p.csv", "file_name,text,caption\na.mp4,x,y", "text and caption: keep one"),
        ("p.json", json.dumps(dict.fromkeys(map(str, range(9999)), "x"))[:-1], "no readable JSON"),
        ("p.json", '{"a.mp4": "x", "a.mp4": "y"}', "'a.mp4' has two values"),
        ("p.json", json.dumps([{"prompt_en": "x", "dimension": []}] * 900), "item 1: has prompt_en, dimension"),
        ("p.json", '{"a.mp4": {"prompt": "x"}}', "item 1: needed: the path of a clip and its prompt"),
        ("p.json", '{"a.mp4": 5}', "item 1: needed"),
        ("p.json", '["a.mp4"]', "item 1: needed: an object"),
        ("p.json", "[" * 100_000, "no readable JSON"),
        ("p.jsonl", '{"file_name": "a.mp4", "text": "x"}\n{"file_name": 5', "line 2: no readable JSON"),
    ],
)
def test_other_files_are_refused_in_one_short_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(MissingData, match=message) as error:
        read_captions(tmp_path / name, "prompt", NAMES)
    assert name in str(error.value)
    assert len(str(error.value).removeprefix(str(tmp_path))) < 300
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le"])
def test_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "p.tsv").write_bytes("a.mp4\tcafé".encode(encoding))
    with pytest.raises(MissingData, match=r"p\.tsv is not UTF-8 text: .*save it in UTF-8"):
        read_captions(tmp_path / "p.tsv", "prompt", NAMES)


def test_a_name_in_another_form_must_be_of_one_file() -> None:
    nfc = unicodedata.normalize("NFC", CAFE)
    assert names_on_disk([nfc, "./a", "b\\c", "d"], [CAFE, "a", "b/c"]) == {nfc: CAFE, "./a": "a", "b\\c": "b/c"}
    assert names_on_disk([nfc, f"./{nfc}"], [CAFE, nfc]) == {nfc: nfc}
    assert names_on_disk(["b\\c"], ["b\\c", "b/c"]) == {"b\\c": "b\\c"}


def test_a_list_of_clips_takes_the_same_forms(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / name).touch()
    (tmp_path / "list").write_bytes("\r\n".join(WRITTEN[:2]).encode("utf-16"))
    folder = clips.detect(tmp_path / "v", listing=tmp_path / "list")
    assert [entry.name for entry in folder.entries] == NAMES[:2]
    (tmp_path / "list").write_text("a.mp4\n./a.mp4")
    with pytest.raises(MissingData, match=r"names a clip twice: a\.mp4"):
        clips.detect(tmp_path / "v", listing=tmp_path / "list")


def test_reported_files_are_read() -> None:
    folder = DATA / "reports/h8_prompts"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set VFBENCH_TEST_DATA")
    names = [entry.name for entry in clips.detect(folder / "v").entries]
    for file in ("ok.tsv", "dot.tsv", "vbench.json", "meta.jsonl", "meta.csv", "utf16.tsv"):
        assert read_captions(folder / file, "prompt", names) == {name: name.removesuffix("-0.mp4") for name in names}
