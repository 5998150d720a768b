"""Rar files, by one of `UNPACKERS` that is installed: their format is not free.

Links are refused: a file that a program writes below one lands elsewhere. bsdtar, which does not tell of links, by
itself writes nothing below them (its manual, at -P).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vfbench.errors import BadEnvironment, MissingData
from vfbench.members import Kind, Member, refused

FULL = 1 << 20  # bytes: a program that fails with less than that free has filled the disk


class Unpacker(NamedTuple):
    """A program that unpacks rar files: how it is asked for members and to unpack, and how its list is read."""

    listing: tuple[str, ...]
    unpacking: tuple[str, ...]
    members: Callable[[str], list[Member]]


def members(path: Path) -> list[Member]:
    """What a rar file holds; raises `MissingData` for one that is damaged, `BadEnvironment` where nothing reads it."""
    unpacker = _unpacker(path)
    return unpacker.members(_run(unpacker.listing, path))


def unpack(path: Path, folder: Path) -> None:
    """Unpack a rar file whose members have been checked into a folder that stands in one of ours.

    Raises as `members`, `MissingData` for what is no plain file or folder then, and `BadEnvironment` for a full disk.
    """
    print(f"unpacking {path}", file=sys.stderr)
    there = set(folder.parent.iterdir())
    _run(_unpacker(path).unpacking, path, folder)
    if beside := sorted(set(folder.parent.iterdir()) - there):
        raise refused(path, Member(beside[0].name), "was unpacked outside of its folder")
    for above, names, others in os.walk(folder):
        for name in [*names, *others]:
            mode = (Path(above) / name).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise refused(path, Member(name), "is a link or a device")


def _unpacker(path: Path) -> Unpacker:
    """The first that is installed."""
    for unpacker in UNPACKERS.values():
        if shutil.which(unpacker.listing[0]) and shutil.which(unpacker.unpacking[0]):
            return unpacker
    raise BadEnvironment(
        f"{path}: nothing is installed that unpacks rar files ({', '.join(UNPACKERS)}): "
        "apt install unar, or brew install unar; or unpack it yourself and give the folder by --data-root"
    )


def _run(command: Sequence[str], path: Path, folder: Path | None = None) -> str:
    words = [word.replace("{folder}", str(folder)) if "{folder}" in word else word for word in command]
    words = [str(path) if word == "{}" else word for word in words]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True)  # noqa: S603  # no shell
    if done.returncode and folder and shutil.disk_usage(folder).free < FULL:
        raise BadEnvironment(f"{path}: the disk of {folder.parent} is full: make room, or choose another --output")
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        if said and "Unsupported Method" in said[-1]:  # of 7z as most systems have it
            raise BadEnvironment(f"{path}: this {words[0]} cannot unpack rar: apt install unar, or brew install unar")
        raise MissingData(f"{path}: {words[0]} cannot read it ({said[-1] if said else done.returncode}); get it again")
    return done.stdout.decode(errors="surrogateescape")


def _of_unrar(text: str) -> list[Member]:
    kinds: dict[str, Kind] = {"Directory": "folder", "File": "file"}
    return [_member(one["Name"], kinds.get(one.get("Type", ""), "link"), one) for one in _blocks(text, "Name", ": ")]


def _of_7z(text: str) -> list[Member]:
    found = []
    for one in _blocks(text, "Path", " = "):
        mode = f"{one.get('Attributes', '')} {one.get('Mode', '')}"
        leads = any(one.get(f"{kind} Link") for kind in ("Symbolic", "Hard", "Copy"))
        linked, folder = leads or re.search(r"(^|\s)l[r-][w-]", mode), one.get("Folder") == "+"
        found.append(_member(one["Path"], "link" if linked else "folder" if folder else "file", one))
    return found


def _blocks(text: str, first: str, mark: str) -> list[dict[str, str]]:
    """Lines of a name, a mark and a value, in parts that begin with the name `first`."""
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        name, _, value = line.lstrip().partition(mark)
        if name == first:
            found.append({})
        if found:  # what a name with a line break says of itself does not hide what the program says of it
            said = found[-1].get(name)
            found[-1][name] = value if said is None else f"{said}\n{value}"
    return found


def _of_lsar(text: str) -> list[Member]:
    return [
        _member(
            one["XADFileName"],
            "link" if one.get("XADIsLink") else "folder" if one.get("XADIsDirectory") else "file",
            {"Size": str(one.get("XADFileSize", 0))},
        )
        for one in json.loads(text)["lsarContents"]
    ]


def _of_bsdtar(text: str) -> list[Member]:
    """Of names alone: a folder is what others stand in."""
    names = [line for line in text.splitlines() if line]
    above = {str(parent) for name in names for parent in Path(name).parents}
    return [Member(name, "folder" if name.endswith("/") or name in above else "file") for name in names]


def _member(name: str, kind: Kind, told: Mapping[str, str]) -> Member:
    size = told.get("Size", "")
    return Member(name, kind, int(size) if size.isdecimal() else 0)


# In the order in which they are tried; {} is the archive, {folder} where to. No password is asked for.
UNPACKERS = {
    "unrar": Unpacker(("unrar", "lt", "-p-", "{}"), ("unrar", "x", "-idq", "-p-", "-o-", "{}", "{folder}/"), _of_unrar),
    "unar": Unpacker(("lsar", "-j", "{}"), ("unar", "-q", "-D", "-s", "-o", "{folder}", "{}"), _of_lsar),
    "7z": Unpacker(("7z", "l", "-slt", "-ba", "-p", "{}"), ("7z", "x", "-bd", "-y", "-p", "-o{folder}", "{}"), _of_7z),
    "bsdtar": Unpacker(("bsdtar", "-tf", "{}"), ("bsdtar", "-xf", "{}", "-C", "{folder}"), _of_bsdtar),
}
