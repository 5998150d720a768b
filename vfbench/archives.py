"""Archives that datasets come in, unpacked so that nothing lands outside: .zip, .tar and its packed forms, and .rar.

What an archive lists is looked at before anything is written (`vfbench.members`). Python unpacks zip and tar; for rar
one of some programs must be installed (`vfbench.rar`), and what it left is looked at again.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from vfbench import rar
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.files import unwritable
from vfbench.members import Member, check
from vfbench.progress import Progress

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGE = (
    *(OSError, EOFError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)
MARK = ".vfbench"  # in a temporary folder of ours


@contextlib.contextmanager
def unpacked(sources: Sequence[Path], folder: Path) -> Iterator[Path]:
    """The archives unpacked together in a temporary `folder`, which is made anew, and removed in the end.

    Raises `MissingData` for an archive that is damaged, or that lists a path which is absolute or climbs, a link that
    leads outside, a device, two members of one name, or one below a file or a link; `BadEnvironment` where nothing
    installed unpacks it, or the disk is too small; and `UserError` for a file of another kind, or where there is such
    a folder of another's.
    """
    _make(folder)
    inside, before = folder / "unpacked", set[PurePosixPath]()
    try:
        inside.mkdir()
        for source in sources:
            _unpack(source.expanduser().absolute(), inside, before)
        yield inside
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path) -> None:
    """Make the folder with our mark, without what a killed process left there; raises `UserError` for another's."""
    try:
        ours = folder.is_dir() and not folder.is_symlink() and ((folder / MARK).is_file() or not any(folder.iterdir()))
        if ours:
            shutil.rmtree(folder)
        elif os.path.lexists(folder):
            raise UserError(f"{folder} is in the way, and not of vfbench: move it, or choose another --output")
        folder.mkdir(parents=True)
        (folder / MARK).touch()
    except OSError as error:
        raise unwritable(folder, error) from error


def members(path: Path) -> list[Member]:
    """What an archive holds, in its order; raises as `unpacked` does for one that cannot be read."""
    name = path.name.lower()
    if not path.is_file():
        raise MissingData(f"{path} is not there: give the archive by its path")
    with _reading(path):
        if name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                return [_of_zip(info) for info in archive.infolist()]
        if name.endswith(TARS):
            with tarfile.open(path) as tar:
                return [_of_tar(info) for info in tar]
        if name.endswith(".rar"):
            return rar.members(path)
    raise UserError(f"{path.name} is no archive that can be unpacked: known are .zip, .rar, {', '.join(TARS)}")


def _unpack(path: Path, folder: Path, before: set[PurePosixPath]) -> None:
    """Unpack an archive; its members join those of the archives `before`."""
    found = members(path)
    before |= check(path, found, before)
    needed, free = max(sum(member.size for member in found), path.stat().st_size), shutil.disk_usage(folder).free
    if free < needed:
        said = f"{needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free"
        raise BadEnvironment(f"{path}: unpacked beside --output it takes {said}: choose another --output")
    with _reading(path):
        if path.name.lower().endswith(".rar"):
            rar.unpack(path, folder)
        else:
            _extract(path, folder, len(found))


def _extract(path: Path, folder: Path, count: int) -> None:
    """Unpack a zip or tar file that has been checked."""
    progress = Progress(f"unpacking {path.name}", count, "members")
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                archive.extract(info, folder)
                progress.advance(1)
        return
    # What leads outside was refused; besides, neither owners nor modes are taken over. The filter came with 3.11.4.
    care: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {"set_attrs": False}
    with tarfile.open(path) as tar:
        for member in tar:
            tar.extract(member, folder, **care)
            progress.advance(1)


def _of_zip(info: zipfile.ZipInfo) -> Member:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return Member(info.filename, "link", target="/")  # Python writes a text file in its place: no such are taken
    odd = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
    # What follows a zero byte in the stored name is not in `filename`.
    return Member(info.orig_filename, "device" if odd else "folder" if info.is_dir() else "file", info.file_size)


def _of_tar(info: tarfile.TarInfo) -> Member:
    if info.issym() or info.islnk():
        above = "" if info.islnk() or info.linkname.startswith("/") else f"{PurePosixPath(info.name).parent}/"
        return Member(info.name, "link", target=f"{above}{info.linkname}")
    return Member(info.name, "folder" if info.isdir() else "file" if info.isfile() else "device", info.size)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a damaged archive makes its reader raise, as `MissingData` that names it."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system; those of damage have no number
            where = f" of {error.filename}" if error.filename else ""
            said = f"{path}: cannot be unpacked ({error.strerror}{where})"
            raise BadEnvironment(f"{said}: mend that, or choose another --output") from error
        reason = str(error).partition("\n")[0]
        raise MissingData(f"{path}: cannot be unpacked ({reason}); get this archive again") from error
