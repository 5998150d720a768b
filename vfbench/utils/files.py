"""Files that are whole or not there, written under a temporary name and renamed; folders: the cache, and held ones."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vfbench.errors import BadEnvironment, MissingData


def cache() -> Path:
    """Where vfbench keeps what it can make or get again: VFBENCH_CACHE, or `vfbench` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("VFBENCH_CACHE") or Path(base) / "vfbench")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path`, `.<name>.<process>.tmp`, that takes its name only when the block ends well.

    Raises `BadEnvironment` when the disk does not take it.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: Exception) -> BadEnvironment:
    """The error for a disk that does not take a file: room helps where it is full, or torch says no more than that."""
    reason, full = getattr(error, "strerror", None) or error, (None, errno.ENOSPC, errno.EDQUOT)
    mend = "make room there" if getattr(error, "errno", None) in full else "choose another place"
    return BadEnvironment(f"cannot write {path} ({reason}): {mend}, then give the same command again")


def as_json(content: object) -> str:
    """JSON as it stands in every file of ours, keys in the order given: a table shows its metrics in that order.

    Raises ValueError for NaN, which no reader but Python's knows.
    """
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write text, whole or not at all."""
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write an object as JSON, whole or not at all."""
    write_text(path, as_json(content))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises `MissingData` naming the file when it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MissingData(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise MissingData(f"{path} holds {type(content).__name__}, expected a JSON object")
    return content


def load_cache(name: str) -> dict[str, Any]:
    """What `save_cache` kept in the cache under a name; nothing, saying so, where the file cannot be read."""
    path = cache() / name
    if not path.exists():
        return {}
    try:
        return read_json(path)
    except MissingData as error:
        print(f"{path} cannot be used: {error}; looking again", file=sys.stderr)
        return {}


def save_cache(name: str, found: Mapping[str, Any]) -> None:
    """Keep what took long to find out; where that cannot be written, says so and goes on: it is found out again."""
    path = cache() / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    except (OSError, BadEnvironment) as error:
        print(f"warning: what was found out is not kept in {path} ({error})", file=sys.stderr)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(path: Path) -> str:
    """By which a file is known that has not changed: its place, size and time; raises `MissingData` naming it."""
    try:
        stat = path.stat()
    except OSError as error:
        raise MissingData(f"{path}: {error.strerror}; get this file again or take it out") from error
    return f"{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"


@contextlib.contextmanager
def held(folder: Path, by: str = "run", mend: str = "choose another --output") -> Iterator[None]:
    """Make a folder and lock it for this process; the lock ends with the process, however it ends.

    Raises `BadEnvironment` where it cannot be written, saying what mends that, or another process `by` holds it.
    """
    ours = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise BadEnvironment(f"{folder} is in use by another {by}: wait for it, or {mend}") from error
    except OSError as error:
        raise BadEnvironment(f"cannot write to {folder} ({error.strerror}): {mend}") from error
    try:
        yield
    finally:
        lock.release()
        if [path.name for path in folder.iterdir()] == [".lock"]:  # nothing came of it
            with contextlib.suppress(OSError):  # another process took it up
                (folder / ".lock").unlink()
                if ours:
                    folder.rmdir()


def require_writable(path: Path) -> None:
    """Raise `BadEnvironment` unless `path` is, or could be made, a folder that can be written to."""
    existing = _existing(path)
    if not existing.is_dir():
        raise BadEnvironment(f"cannot write to {path}: {existing} is not a folder; choose another --output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise BadEnvironment(f"cannot write to {path}: no permission to write in {existing}; choose another --output")


def require_space(path: Path, needed: int) -> None:
    """Raise `BadEnvironment` when the disk of a run folder cannot hold `needed` bytes, its present chunks included."""
    there = sum(chunk.stat().st_size for chunk in (path / "chunks").glob("*.safetensors"))
    free = shutil.disk_usage(_existing(path)).free
    if free + there < needed:
        raise BadEnvironment(
            f"{path} needs about {(needed - there) / 1e6:,.0f} MB and its disk has {free / 1e6:,.0f} MB free: "
            "choose another --output, fewer --num-samples, or leave out --keep-clips"
        )


def _existing(path: Path) -> Path:
    """`path` or the nearest folder above it that exists."""
    absolute = path.absolute()
    return next(place for place in (absolute, *absolute.parents) if os.access(place, os.F_OK))
