"""Reading of regular files only, atomic writes, JSON, the cache folder, file hashes, and locked folders."""

from __future__ import annotations

import codecs
import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vfbench.errors import BadEnvironment, MissingData
from vfbench.utils import console, process_id, strict_json

_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LOCK_SECONDS = 20.0  # to wait for another process that writes a result
LARGEST_TEXT, LARGEST_JSON = 2**28, 2**27  # bytes of a file that is read whole


def cache_folder() -> Path:
    """Cache folder: VFBENCH_CACHE, or `vfbench` in the user's cache folder.

    A user without a home folder, as in many containers, gets a folder of their own among the temporary files.
    """
    if cache := os.environ.get("VFBENCH_CACHE"):
        return Path(cache)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "vfbench"
    try:
        return Path.home() / ".cache" / "vfbench"
    except RuntimeError:  # neither HOME nor an entry among the users of the machine
        return _temporary_cache()


@functools.cache
def _temporary_cache() -> Path:
    """Cache among the temporary files, where others cannot write: a cache file of theirs would be believed."""
    advice = "set VFBENCH_CACHE to a folder of your own"
    folder = Path(tempfile.gettempdir()) / f"vfbench-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise BadEnvironment(f"no home folder, and {folder} cannot be made ({error.strerror}): {advice}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise BadEnvironment(f"no home folder, and {folder} is not yours alone: {advice}")
    console.warn(f"no home folder: files are cached in {folder}; to keep them, {advice}")
    return folder


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Context manager: a temporary path beside `path`, renamed to it when the block succeeds; see `temporary_path`.

    Raises `BadEnvironment` where the file cannot be written.
    """
    target = Path(path)
    temporary = temporary_path(target)
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Path `.<name>.<machine>.<process>.tmp` beside `path`, of this process alone among all that share the folder."""
    return beside(path, f"{process_id.process_id()}.tmp")


def beside(path: Path, suffix: str) -> Path:
    """Hidden path `.<name>.<suffix>` in the same folder, also for `.` and `..`, which have no name."""
    path = path if path.name not in ("", "..") else path.resolve()
    return path.with_name(f".{path.name}.{suffix}")


def write_error(path: Path, error: Exception) -> BadEnvironment:
    """Error for a failed write. The advice is to make room on a full disk, and where torch gives no error number."""
    reason, full = getattr(error, "strerror", None) or error, (None, errno.ENOSPC, errno.EDQUOT)
    advice = "make room there" if getattr(error, "errno", None) in full else "choose another place"
    return BadEnvironment(f"cannot write {path} ({reason}): {advice}, then repeat the command")


def as_json(content: object) -> str:
    """JSON text with indentation, keys in their order: tables show metrics in that order.

    Raises ValueError for NaN, which is not valid JSON.
    """
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""
    with atomic_path(path) as file:
        file.write_text(text, encoding="utf-8")


def write_first(path: Path, text: str) -> None:
    """Write text to a new file, atomically; where another process has written it first, its file stays."""
    temporary = temporary_path(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        try:
            os.link(temporary, path)  # unlike a rename, it fails where the file exists
        except FileExistsError:
            return
        except OSError:  # a file system without links
            if not path.exists():
                temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write an object as JSON, atomically."""
    write_text(path, as_json(content))


def require_file(path: str | os.PathLike[str]) -> None:
    """Raise `MissingData` unless `path` is a regular file or a link to one: opening a pipe would wait for ever."""
    try:
        _require_regular(Path(path))
    except OSError as error:
        raise MissingData(f"{os.fspath(path)}: {error.strerror}; get this file again or take it out") from error


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes; raises OSError where it cannot be opened, `MissingData` for a pipe."""
    _require_regular(path)
    return path.open("rb")


def _require_regular(path: Path) -> None:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise MissingData(f"{path}: {kind}, not a file; take it out, or give a file")


def read_bytes(path: Path, largest: int = LARGEST_TEXT) -> bytes:
    """Content of a file; raises OSError, and `MissingData` for a pipe or for more than `largest` bytes."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > largest:
            raise MissingData(f"{path} has more than {largest:,} bytes: vfbench has no such file, give another")
        return file.read()


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """Text of a file in UTF-8, or in UTF-16 with a byte order mark, with line feeds as the only line ends.

    Raises `MissingData` naming the file, and whether it is missing, cannot be opened, has more than `largest` bytes, or
    is in another encoding.
    """
    try:
        content = read_bytes(path, largest)
        text = content.decode("utf-16" if content.startswith(_UTF_16_MARKS) else "utf-8-sig")
        if "\0" in text:  # UTF-16 without a mark
            raise UnicodeDecodeError("utf-8", content, content.index(b"\0"), content.index(b"\0") + 1, "a null byte")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise MissingData(f"{path} is not UTF-8 text: {reason}; save it in UTF-8") from error
    except FileNotFoundError as error:
        raise MissingData(f"{path} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        raise MissingData(f"{path} cannot be opened: {getattr(error, 'strerror', error)}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `MissingData` naming the file where it is missing or `strict_json` refuses it."""
    try:
        return strict_json.parse(read_text(path, LARGEST_JSON))
    except ValueError as error:
        raise MissingData(f"{path} is not valid JSON: {error}") from error


def json_digest(content: object) -> str:
    """SHA-256 of an object's canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_cache(name: str) -> dict[str, Any]:
    """Read what `save_cache` wrote under a name; empty, with a warning, where the file cannot be read."""
    path = cache_folder() / name
    if not path.exists():
        return {}
    try:
        return read_json(path)
    except MissingData as error:
        console.warn(f"{error}; computing it again")
        return {}


def save_cache(name: str, content: Mapping[str, Any]) -> None:
    """Cache slow results as JSON under a name; prints a warning where the file cannot be written."""
    path = cache_folder() / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    except (OSError, BadEnvironment) as error:
        console.warn(f"results are not cached in {path} ({error})")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; raises the errors of `open_file`."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_key(path: Path) -> str:
    """Cache key of a file: path, size, mtime; raises `MissingData` naming a file that does not exist."""
    try:
        stat = path.stat()
    except OSError as error:
        raise MissingData(f"{path}: {error.strerror}; get this file again or take it out") from error
    return f"{path.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"


@contextlib.contextmanager
def locked_folder(folder: Path, holder: str = "run", advice: str = "choose another --output") -> Iterator[None]:
    """Context manager: create a folder and lock it for this process, until the block or the process ends.

    Raises `BadEnvironment` with `advice` where the folder cannot be written or another process holds the lock;
    `holder` names that process. Removes the folder at the end if it created it and nothing was written.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise BadEnvironment(f"{folder} is in use by another {holder}: wait for it, or {advice}") from error
    except OSError as error:
        raise BadEnvironment(f"cannot write to {folder} ({error.strerror}): {advice}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # another process makes a file in it, or somebody has removed it
            if [path.name for path in folder.iterdir()] == [".lock"]:  # nothing was written
                (folder / ".lock").unlink()  # while it is locked, so that nobody else has the folder
                if is_new:
                    folder.rmdir()
        lock.release()


@contextlib.contextmanager
def one_at_a_time(folder: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Context manager: lock `folder` while one of its files is read and written anew.

    The block runs without the lock after `seconds`, or where the file system has no locks.
    """
    lock = FileLock(folder / ".lock", timeout=seconds)
    with contextlib.suppress(Timeout, OSError, NotImplementedError):  # the files are whole in any case
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def require_writable(path: Path) -> None:
    """Raise `BadEnvironment` unless `path` is a writable folder or can be created as one."""
    existing = _existing(path)
    if not existing.is_dir():
        raise BadEnvironment(f"cannot write to {path}: {existing} is not a folder; choose another --output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise BadEnvironment(f"cannot write to {path}: no permission to write in {existing}; choose another --output")


def require_space(path: Path, needed: int) -> None:
    """Raise `BadEnvironment` where the disk of a run folder cannot hold `needed` bytes, existing chunks included."""
    used = sum(chunk.stat().st_size for chunk in (path / "chunks").glob("*.safetensors"))
    free = shutil.disk_usage(_existing(path)).free
    if free + used < needed:
        raise BadEnvironment(
            f"{path} needs about {(needed - used) / 1e6:,.0f} MB and its disk has {free / 1e6:,.0f} MB free: "
            "choose another --output, fewer --num-samples, or leave out --keep-clips"
        )


def _existing(path: Path) -> Path:
    """`path` or the nearest folder above it that exists."""
    absolute = path.absolute()
    return next(folder for folder in (absolute, *absolute.parents) if os.access(folder, os.F_OK))
