"""Random damage to every kind of file and text that vfbench reads: a result, or an error that a user understands.

`pytest -m slow tests/test_hostile.py` tries 100 cases a reader, `--hypothesis-profile many` 2,000.
"""

from __future__ import annotations

import io
import itertools
import json
import resource
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipfiles import grey_clip, write_video
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from resultfiles import record

from vfbench import clips, plugins
from vfbench.cli import command_line
from vfbench.cli.config import load_defaults, normalise_arguments
from vfbench.clips.caption_file import read_captions
from vfbench.clips.manifest import COLUMNS, read_manifest
from vfbench.diffusion.model_config import ModelConfig
from vfbench.errors import UserError
from vfbench.report import gate, results
from vfbench.report.results import Result
from vfbench.utils.checkpoint import SHIPPED_FOLDER

pytestmark = pytest.mark.slow
SECONDS, BYTES = 10, 1_000_000_000
settings.register_profile("few", max_examples=100, derandomize=True, database=None)
settings.register_profile("many", max_examples=2000, database=None)
settings.load_profile("few")
quick_enough = settings(
    deadline=SECONDS * 1000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_NUMBERS = itertools.count()


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(autouse=True)
def within_memory() -> Iterator[None]:
    """Fail a test that made the process grow by more than a gigabyte."""
    before = peak_bytes()
    yield
    assert peak_bytes() - before < BYTES


# Good files, and what reads them.


def _images(**options: Any) -> bytes:
    content, frames = io.BytesIO(), [Image.fromarray(frame) for frame in grey_clip()]
    frames[0].save(content, save_all=True, append_images=frames[1:], **options)
    return content.getvalue()


def _array(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    if arrays:
        np.savez_compressed(content, allow_pickle=False, **arrays)
    else:
        np.save(content, np.stack([grey_clip()] * 2))
    return content.getvalue()


def _video(suffix: str, folder: Path) -> bytes:
    path = folder / f"good{suffix}"
    write_video(path, grey_clip())
    return path.read_bytes()


GOOD: Mapping[str, Callable[[Path], bytes]] = {
    ".npy": lambda _: _array(),
    ".npz": lambda _: _array(clips=np.stack([grey_clip()] * 2)),
    ".gif": lambda _: _images(format="GIF"),
    ".webp": lambda _: _images(format="WEBP", lossless=True),
    ".apng": lambda _: _images(format="PNG"),
    ".avi": lambda folder: _video(".avi", folder),
    ".mkv": lambda folder: _video(".mkv", folder),
}
TEXTS: Mapping[str, str] = {
    ".tsv": "0000.mp4\ta red circle\n0001.mp4\ta blue square\n",
    ".csv": "file_name,text\n0000.mp4,a red circle\n0001.mp4,a blue square\n",
    ".jsonl": '{"file_name": "0000.mp4", "text": "a red circle"}\n{"file_name": "0001.mp4", "text": "b"}\n',
    ".json": '{"0000.mp4": "a red circle", "0001.mp4": "a blue square"}',
    "manifest.csv": ",".join(COLUMNS) + "\n0,real,train,a.avi,0,1,0,0,64,64\n0,spare,train,b.avi,3,1,0,0,64,64\n",
    ".toml": '[run]\nmodel = "vdm"\nsteps = 5\n\n[data.verify]\nfull = true\n',
}


def read_clips(path: Path) -> None:
    folder = clips.detect(path.parent)
    for index, entry in enumerate(folder.entries):
        clips.measure(entry)
        clips.read_clip(folder, index, frames=4, start="hashed")


def read_features(path: Path) -> None:
    clips.read_features(clips.detect(path))


def read_texts(path: Path) -> None:
    if path.name.endswith("manifest.csv"):
        read_manifest(path)
    elif path.suffix == ".toml":
        load_defaults(path, command_line().commands)
    else:
        read_captions(path, "prompt", ["0000.mp4", "0001.mp4"])


def read_result(path: Path) -> None:
    (result,) = results.load([path])
    assert isinstance(result, Result)
    str(result.integrity)
    result.to_frame()
    gate.gate(result, result, ["fvd:+5%"])


def read_config(path: Path) -> None:
    ModelConfig.read(path, "vdm")


def message_of(read: Callable[[Any], object], source: Path | str) -> str:
    """Message of the `UserError` that reading ends in, or nothing; any other error fails the test."""
    try:
        read(source)
    except UserError as error:
        return str(error)
    return ""


def attempt(read: Callable[[Any], object], source: Path | str) -> None:
    """Read a file or text, which must end in a result or a message of readable length."""
    assert len(message_of(read, source)) < 4000


# Damage.

edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "repeat", "end"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 64),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    for kind, place, count, extra in changes:
        start = int(place * len(content))
        end = start + count
        content = {
            "flip": content[:start] + bytes(byte ^ extra[0] for byte in content[start:end]) + content[end:],
            "cut": content[:start] + content[end:],
            "insert": content[:start] + extra + content[start:],
            "repeat": content[:end] + content[start:end] * count + content[end:],
            "end": content[:start],
        }[kind]
    return content


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from([[], {}, [[]] * 3, {"a": {"b": []}}, "x" * 3000, "../../etc/passwd", "os.path", "=1+1", "\x1b[2J"]),
    st.integers(33, 2000).map(lambda depth: json.loads("[" * depth + "]" * depth) if depth < 900 else "[" * depth),
)


def changed(content: Any, path: list[int], value: Any) -> Any:
    """A copy of a JSON value with one of its parts, found by the numbers of `path`, replaced by `value`."""
    if not path or not isinstance(content, dict | list) or not content:
        return value
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = keys[path[0] % len(keys)]
    copy: Any = content.copy()
    copy[key] = changed(content[key], path[1:], value)
    return copy


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("good")
    return {suffix: make(folder) for suffix, make in GOOD.items()}


@pytest.mark.parametrize("suffix", GOOD)
@quick_enough
@given(changes=edits)
def test_damaged_clips(tmp_path: Path, good: dict[str, bytes], suffix: str, changes: Any) -> None:
    folder = tmp_path / str(next(_NUMBERS))
    folder.mkdir()
    path = folder / f"clip{suffix}"
    path.write_bytes(damaged(good[suffix], changes))
    attempt(read_clips, path)
    path.unlink()


@quick_enough
@given(changes=edits, compressed=st.booleans())
def test_damaged_features(tmp_path: Path, changes: Any, compressed: bool) -> None:
    features, content = np.zeros((20, 5), np.float32), io.BytesIO()
    (np.savez_compressed if compressed else np.save)(content, features)
    path = tmp_path / f"{next(_NUMBERS)}.{'npz' if compressed else 'npy'}"
    path.write_bytes(damaged(content.getvalue(), changes))
    attempt(read_features, path)


@pytest.mark.parametrize("name", TEXTS)
@quick_enough
@given(changes=edits, encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
def test_damaged_texts(tmp_path: Path, name: str, changes: Any, encoding: str) -> None:
    path = tmp_path / f"{next(_NUMBERS)}{name}"
    path.write_bytes(damaged(TEXTS[name].encode(encoding), changes))
    attempt(read_texts, path)


@pytest.mark.parametrize("kind", ["results", "config"])
@quick_enough
@given(path=st.lists(st.integers(0, 50), max_size=5), value=values, changes=st.one_of(st.just([]), edits))
def test_damaged_json(tmp_path: Path, kind: str, path: list[int], value: Any, changes: Any) -> None:
    shipped = json.loads((SHIPPED_FOLDER / "shapes" / "vdm" / "config.json").read_text())
    content = changed(record("vdm") if kind == "results" else shipped, path, value)
    file = tmp_path / f"{next(_NUMBERS)}.json"
    file.write_bytes(damaged(json.dumps(content).encode(errors="surrogatepass"), changes))
    attempt(read_result if kind == "results" else read_config, file)


@quick_enough
@given(
    text=st.one_of(
        st.text(max_size=60),
        st.builds("{}({}={!r})".format, st.sampled_from(["fvd", "is", "clipsim"]), st.text(max_size=8), values),
    )
)
def test_specs_and_rules(text: str) -> None:
    for read in (plugins.parse, lambda text: plugins.load("metric", text), lambda text: gate.parse([text])):
        attempt(read, text)


texts_and_flags = st.one_of(st.text(max_size=12), st.sampled_from(["--rule", "-0.5", "--", "--a=b"]))


@quick_enough
@given(arguments=st.lists(texts_and_flags, max_size=5))
def test_arguments(arguments: list[str]) -> None:
    assert all(isinstance(each, str) for each in normalise_arguments(arguments))
