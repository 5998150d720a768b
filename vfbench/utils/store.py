"""Folders on object stores by fsspec URLs, such as `s3://bucket/run`, and the copy of each in the cache folder.

All work is done in the copy, `remote/<hash of the URL>` in the cache folder: files are fetched into it where size or
time in the store differ, and published from it when they are whole. A store has no rename and needs none: an object
appears in one step. A file that belongs to the first of several processes is put on the condition that there is none.

`file://` URLs are local paths. fsspec is imported for other URLs only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from vfbench.errors import BadEnvironment, UserError, nearest
from vfbench.utils import files
from vfbench.utils.process_id import process_id

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(/+)(.*)", re.IGNORECASE | re.DOTALL)
_LOCAL = ("file", "local")
_MODIFIED = ("LastModified", "last_modified", "mtime", "updated", "created")  # keys of the stores' listings
TIME_STEP = 1.0  # seconds: some stores list an object's time to the millisecond, and head it to the second
EXTRA = "pip install 'vfbench[remote]'"
CREDENTIALS = "set its credentials, such as AWS_PROFILE or GOOGLE_APPLICATION_CREDENTIALS"


class Entry(NamedTuple):
    """An object: bytes, and seconds since 1970 when it was written."""

    size: int
    modified: float


def url_of(path: str | os.PathLike[str]) -> str | None:
    """URL on an object store; None for a local path. A `Path` of a URL, which has lost a slash, counts as one."""
    match = _SCHEME.fullmatch(os.fspath(path))
    if not match or match[1].lower() in _LOCAL or (isinstance(path, str) and len(match[2]) < 2):
        return None
    return f"{match[1].lower()}://{match[3].rstrip('/')}"


def name(path: str | os.PathLike[str]) -> str:
    """A path or URL for a message."""
    return url_of(path) or os.fspath(path)


def local_path(path: str | os.PathLike[str]) -> Path:
    """Path on this machine: of a URL the copy in the cache folder, of `file://` the path in it, else the path."""
    if url := url_of(path):
        return files.cache_folder() / "remote" / hashlib.sha256(url.encode()).hexdigest()[:16]
    match = _SCHEME.fullmatch(os.fspath(path))
    return Path(f"/{match[3]}") if match and match[1].lower() in _LOCAL else Path(path)


def require_local(flag: str, path: str | os.PathLike[str] | None) -> None:
    """Raise `UserError` for a URL, where only a folder of this machine will do."""
    if path is not None and (url := url_of(path)):
        raise UserError(f"{flag} {url}: only `run` writes to an object store; give a folder, and copy it there")


class Store:
    """A folder on an object store, and its `copy` on this machine."""

    def __init__(self, url: str, copy: Path | None = None) -> None:
        self.url, self.copy = url, copy or local_path(url)
        self._files = _filesystem(url)
        with self._told("use"):
            self._root = str(self._files._strip_protocol(url)).rstrip("/")

    @classmethod
    @contextlib.contextmanager
    def aside(cls, url: str) -> Iterator[Store]:
        """Context manager: the store with an empty copy for a while, so that no worker of this machine is disturbed."""
        with tempfile.TemporaryDirectory(prefix="vfbench-") as folder:
            yield cls(url, Path(folder))

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Store | None:
        """The store of a URL; None for a local path. Raises `UserError` for a scheme or a package that is not there."""
        url = url_of(path)
        return cls(url) if url else None

    def entries(self, folder: str = "") -> dict[str, Entry]:
        """Objects of a folder below this one by name, without those of folders in it; none where it does not exist."""
        with self._told("read"):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._key(folder), detail=True)
            except FileNotFoundError:
                return {}
        names = {str(each["name"]).rpartition("/")[2]: each for each in found if each["type"] == "file"}
        return {name: _entry(each) for name, each in names.items() if name and not name.startswith(".")}

    def fetch(self, *names: str) -> bool:
        """Fetch files by their names below this folder, where they differ from the copy; True where all exist."""
        found = {name: entry for name in names if (entry := self._info(name))}
        self._fetch(found)
        return len(found) == len(names)

    def fetch_folder(self, folder: str, is_needed: Callable[[str], bool] = bool) -> None:
        """Fetch the files of a folder that differ from the copy, and are needed by their names."""
        found = self.entries(folder).items()
        self._fetch({f"{folder}/{name}": entry for name, entry in found if is_needed(name)})

    def mirror_names(self, folder: str, is_own: Callable[[str], bool]) -> None:
        """Mirror names and times of a store's folder in the copy; a new or changed file becomes an empty placeholder.

        Files for which `is_own` is true are skipped: this machine writes them.
        """
        there, place = self.entries(folder), self.copy / folder
        for path in place.iterdir():
            if path.name not in there and not path.name.startswith(".") and not is_own(path.name):
                path.unlink(missing_ok=True)
        for name, entry in there.items():
            if not is_own(name) and not _has_time(place / name, entry):
                (place / name).write_bytes(b"")
                _set_time(place / name, entry)

    def _fetch(self, found: Mapping[str, Entry]) -> None:
        missing = {name: entry for name, entry in found.items() if not self._is_same(name, entry)}
        temporary = {name: files.temporary_path(self.copy / name) for name in missing}
        try:
            for path in temporary.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError), self._told("read"):  # removed just now
                self._files.get([self._key(name) for name in missing], [str(path) for path in temporary.values()])
            for name, entry in missing.items():
                if temporary[name].exists() and temporary[name].stat().st_size == entry.size:
                    _set_time(temporary[name], entry)
                    temporary[name].replace(self.copy / name)
        except OSError as error:
            raise files.write_error(self.copy, error) from error
        finally:
            for path in temporary.values():
                path.unlink(missing_ok=True)

    def publish(self, *paths: Path, first: bool = False) -> None:
        """Put files of the copy, or all of a folder in it, into the store.

        With `first`, a file that is there stays, and takes the place of that in the copy.
        """
        for path in paths:
            if path.is_dir():
                self.publish(*(each for each in sorted(path.iterdir()) if not each.name.startswith(".")), first=first)
                continue
            name, content = path.relative_to(self.copy).as_posix(), path.read_bytes()
            try:
                with self._told("write to"):
                    self._files.pipe_file(self._key(name), content, mode="create" if first else "overwrite")
            except FileExistsError:
                self.fetch(name)
                continue
            if entry := self._info(name):
                if first and entry.size != len(content):
                    self.remove(name)
                    raise BadEnvironment(
                        f"{self.url}/{name} has {entry.size:,} of {len(content):,} bytes: repeat the command"
                    )
                _set_time(path, entry)

    def remove(self, name: str) -> None:
        """Remove an object, which another process may have removed before."""
        with self._told("write to"), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._key(name))

    def require_writable(self) -> None:
        """Put and remove an empty object; raises `BadEnvironment` where the bucket or the permission is missing."""
        probe = f".vfbench.{process_id()}"
        with self._told("write to"):
            self._files.pipe_file(self._key(probe), b"")
        self.remove(probe)

    def _key(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _info(self, name: str) -> Entry | None:
        with self._told("read"):
            self._files.invalidate_cache()
            try:
                return _entry(self._files.info(self._key(name)))
            except FileNotFoundError:
                return None

    def _is_same(self, name: str, entry: Entry) -> bool:
        """True where the copy has a file of the size and the time of an object."""
        path = self.copy / name
        return _has_time(path, entry) and path.stat().st_size == entry.size

    @contextlib.contextmanager
    def _told(self, action: str) -> Iterator[None]:
        """Context manager: turn errors of the store into `BadEnvironment`.

        FileExistsError always passes, FileNotFoundError only when reading: the caller handles them.
        """
        try:
            yield
        except (FileExistsError, FileNotFoundError) as error:
            if isinstance(error, FileExistsError) or action == "read":
                raise
            raise self._error(action, error, "make the bucket, or give another") from error
        except Exception as error:  # each store has errors of its own
            if isinstance(error, PermissionError) or re.search("redential|Forbidden", f"{type(error)} {error}"):
                raise self._error(action, error, CREDENTIALS) from error
            raise self._error(action, error, "see that it can be reached, then repeat the command") from error

    def _error(self, action: str, error: Exception, advice: str) -> BadEnvironment:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        return BadEnvironment(f"cannot {action} {self.url} ({reason}): {advice}")


def _filesystem(url: str) -> Any:
    """fsspec's file system for a URL; raises `UserError` for an unknown scheme or a package that is not installed."""
    import fsspec

    scheme, _, rest = url.partition("://")
    if scheme not in fsspec.available_protocols():
        near = nearest(scheme, fsspec.available_protocols())
        hint = f": did you mean {near}://?" if near else ": s3://, gs:// and others of fsspec are known"
        raise UserError(f"{url}: no URL scheme called {scheme}{hint}")
    if not rest.strip("/"):
        raise UserError(f"{url}: name a bucket and a folder in it, as {scheme}://bucket/run")
    try:
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        raise UserError(
            f"{url} needs a package that is not installed ({error}); for s3:// and gs://, {EXTRA}"
        ) from error
    except Exception as error:  # such as for a host that the URL lacks
        raise UserError(f"{url} cannot be used ({error}): give s3://bucket/folder or the like") from error


def _entry(info: Mapping[str, Any]) -> Entry:
    moment = next((info[key] for key in _MODIFIED if info.get(key) is not None), 0.0)
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return Entry(int(info["size"] or 0), moment.timestamp() if isinstance(moment, datetime) else float(moment))


def _has_time(path: Path, entry: Entry) -> bool:
    try:
        return abs(path.stat().st_mtime - entry.modified) < TIME_STEP
    except OSError:
        return False


def _set_time(path: Path, entry: Entry) -> None:
    """Set the time of a local copy to that of its object: equal size and time mean that the copy is current."""
    os.utime(path, (entry.modified, entry.modified))
