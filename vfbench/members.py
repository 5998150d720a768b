"""What archives hold, looked at before anything is written: nothing may land outside, or in the place of another."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, NamedTuple, TypeAlias

from vfbench.errors import MissingData

Kind: TypeAlias = Literal["file", "folder", "link", "device"]


class Member(NamedTuple):
    """What an archive holds under a name.

    `target` is where a link leads, seen from the archive's top; empty where that is not known.
    """

    name: str
    kind: Kind = "file"
    size: int = 0
    target: str = ""

    @property
    def place(self) -> PurePosixPath:
        """Equal for names that are one to some disk: of another case, or with accents written otherwise."""
        return PurePosixPath(unicodedata.normalize("NFC", self.name).casefold().replace("\\", "/"))


def check(path: Path, found: Iterable[Member], before: Collection[PurePosixPath] = ()) -> set[PurePosixPath]:
    """The places of all members but folders.

    Raises `MissingData` naming the first member that no honest archive of a dataset has, or that stands in one of the
    places `before`, which archives unpacked in the same folder have.
    """
    members = [(member, member.place) for member in found]
    taken = {*before, *(place for member, place in members if member.kind != "folder")}
    places: set[PurePosixPath] = set()
    for member, place in members:
        if reason := _reason(member):
            raise refused(path, member, reason)
        if member.kind != "folder" and place in before:
            raise MissingData(f"{path}: {member.name} is in another of the archives, too: give each part once")
        if place in (taken if member.kind == "folder" else places):
            raise refused(path, member, "is there twice, where upper and lower case are one")
        if not taken.isdisjoint(place.parents):
            raise refused(path, member, "stands below a file or a link")
        if member.kind != "folder":
            places.add(place)
    return places


def refused(path: Path, member: Member, why: str) -> MissingData:
    """The error for an archive with such a member."""
    return MissingData(f"{path}: its member {member.name!r} {why}; nothing of it is used: get the official archive")


def _reason(member: Member) -> str:
    """Why a member is refused, whatever else there is; empty for one that is not."""
    if _leads_out(member.name) or ".." in member.place.parts or (member.kind == "link" and _leads_out(member.target)):
        return "leads outside of the folder it is unpacked in"
    if member.kind == "link" and not member.target:
        return "is a link"
    return "is a device or a pipe" if member.kind == "device" else ""


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
