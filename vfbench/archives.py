"""Archives that datasets come in, unpacked so that nothing lands outside: .zip, .tar and its packed forms, and .rar.

What an archive lists is looked at before anything is written. Python unpacks zip and tar; for rar, whose format is not
free, one of `UNPACKERS` must be installed, and what it left is looked at again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, NamedTuple

from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.progress import Progress

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGE = (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError, zlib.error)


class Member(NamedTuple):
    """What an archive holds under a name; `target` is where a link leads, seen from the archive's top."""

    name: str
    kind: Literal["file", "folder", "link", "device"] = "file"
    size: int = 0
    target: str = ""


class Unpacker(NamedTuple):
    """A program that unpacks rar files: how it is asked for names and to unpack, and how its list of names is read."""

    listing: tuple[str, ...]
    unpacking: tuple[str, ...]
    names: Callable[[str], list[str]]


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def _paths(text: str) -> list[str]:
    return [line.removeprefix("Path = ") for line in text.splitlines() if line.startswith("Path = ")]


def _contents(text: str) -> list[str]:
    return [item["XADFileName"] for item in json.loads(text)["lsarContents"]]


# In the order in which they are tried; {} is the archive, {folder} where to. No password is asked for.
UNPACKERS = {
    "unrar": Unpacker(("unrar", "lb", "-p-", "{}"), ("unrar", "x", "-idq", "-p-", "-o-", "{}", "{folder}/"), _lines),
    "7z": Unpacker(("7z", "l", "-slt", "-ba", "-p", "{}"), ("7z", "x", "-bd", "-y", "-p", "-o{folder}", "{}"), _paths),
    "unar": Unpacker(("lsar", "-j", "{}"), ("unar", "-q", "-D", "-s", "-o", "{folder}", "{}"), _contents),
    "bsdtar": Unpacker(("bsdtar", "-tf", "{}"), ("bsdtar", "-xf", "{}", "-C", "{folder}"), _lines),
}


@contextlib.contextmanager
def unpacked(sources: Sequence[Path], folder: Path) -> Iterator[Path]:
    """The archives unpacked together in a temporary `folder`, which is made anew, and removed in the end.

    Raises `MissingData` for an archive that is damaged, or that lists a path which is absolute or climbs, a link that
    leads outside, a device, or two members of one name; `BadEnvironment` where nothing installed unpacks it, or the
    disk is too small; and `UserError` for a file of another kind.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    inside = folder / "unpacked"
    try:
        inside.mkdir(parents=True)
        for source in sources:
            _unpack(source.expanduser().absolute(), inside)
        yield inside
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
            unpacker = _unpacker(path)
            return [Member(name) for name in unpacker.names(_run(unpacker.listing, path))]
    raise UserError(f"{path.name} is no archive that can be unpacked: known are .zip, .rar, {', '.join(TARS)}")


def check(path: Path, found: Iterable[Member]) -> None:
    """Raise `MissingData` naming the first member that no honest archive of a dataset has."""
    names: set[PurePosixPath] = set()
    for member in found:
        name = PurePosixPath(member.name)
        if _leads_out(member.name) or (member.kind == "link" and _leads_out(member.target)):
            raise _refused(path, member, "leads outside of the folder it is unpacked in")
        if member.kind == "device":
            raise _refused(path, member, "is a device or a pipe")
        if member.kind != "folder" and name in names:
            raise _refused(path, member, "is there twice")
        if member.kind != "folder":
            names.add(name)


def _unpack(path: Path, folder: Path) -> None:
    found = members(path)
    check(path, found)
    if twice := [member.name for member in found if member.kind != "folder" and (folder / member.name).is_file()]:
        raise MissingData(f"{path}: {twice[0]} is in another of the archives, too: give each part once")
    needed, free = max(sum(member.size for member in found), path.stat().st_size), shutil.disk_usage(folder).free
    if free < needed:
        said = f"{needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free"
        raise BadEnvironment(f"{path}: unpacked beside --output it takes {said}: choose another --output")
    with _reading(path):
        if path.name.lower().endswith(".rar"):
            print(f"unpacking {path}", file=sys.stderr)
            _run(_unpacker(path).unpacking, path, folder)
            _look_again(path, folder)
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
    if not hasattr(tarfile, "data_filter"):  # it came with 3.11.4
        raise BadEnvironment(f"{path}: this Python unpacks tar files with no care; use 3.11.4 or newer")
    with tarfile.open(path) as tar:
        for member in tar:
            tar.extract(member, folder, filter="data")
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


def _leads_out(name: str) -> bool:
    """Whether a path is absolute, or climbs above where it begins, on any system."""
    if name.startswith(("/", "\\")) or PureWindowsPath(name).drive or "\0" in name:
        return True
    depth = 0
    for part in name.replace("\\", "/").split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return False


def _refused(path: Path, member: Member, why: str) -> MissingData:
    return MissingData(f"{path}: its member {member.name!r} {why}; nothing of it is used: get the official archive")


def _unpacker(path: Path) -> Unpacker:
    """The first that is installed."""
    for unpacker in UNPACKERS.values():
        if shutil.which(unpacker.listing[0]) and shutil.which(unpacker.unpacking[0]):
            return unpacker
    raise BadEnvironment(
        f"{path}: nothing is installed that unpacks rar files ({', '.join(UNPACKERS)}): "
        "apt install unar, or brew install unar; or unpack it yourself and give the folder by --data-root"
    )


def _run(command: Sequence[str], path: Path, folder: Path | str = "") -> str:
    words = [word.replace("{folder}", str(folder)) if "{folder}" in word else word for word in command]
    words = [str(path) if word == "{}" else word for word in words]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True)  # noqa: S603  # no shell
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise MissingData(f"{path}: {words[0]} cannot read it ({said[-1] if said else done.returncode}); get it again")
    return done.stdout.decode(errors="surrogateescape")


def _look_again(path: Path, folder: Path) -> None:
    """Raise `MissingData` for whatever a program has unpacked that is no plain file or folder, or stands outside."""
    if beside := [item.name for item in folder.parent.iterdir() if item != folder]:
        raise _refused(path, Member(beside[0]), "was unpacked outside of its folder")
    for above, names, others in os.walk(folder):
        for name in [*names, *others]:
            mode = (Path(above) / name).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise _refused(path, Member(name), "is a link or a device")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a damaged archive makes its reader raise, as `MissingData` that names it."""
    try:
        yield
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0]
        raise MissingData(f"{path}: cannot be unpacked ({reason}); get this archive again") from error
