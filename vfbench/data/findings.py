"""What can be wrong with a dataset on disk: each kind with its name, its weight and what mends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vfbench.clips import printable

SHOWN = 5  # names of a finding in a text; a record has all

Level = Literal["error", "warning"]


class Kind(NamedTuple):
    """A kind of finding; an error is what a score could not be made from, or would be wrong by."""

    level: Level
    title: str
    mend: str


AGAIN = "get these again, or take them out"
ONE_COPY = "check which copy this is: sizes are resized by other steps"
KINDS: Mapping[str, Kind] = {
    "missing": Kind(
        "error", "missing: listed, not on disk", "unpack the archive again, or: python -m vfbench data where {name}"
    ),
    "partial": Kind(
        "error",
        "incomplete copy: fewer videos than the official one",
        "get the rest: python -m vfbench data where {name}",
    ),
    "unreadable": Kind("error", "unreadable", "let your user read these (chmod u+r), or look at the disk"),
    "empty": Kind("error", "empty", AGAIN),
    "no video": Kind("error", "no video", AGAIN),
    "cut off": Kind("error", "cut off", "copy or unpack these again, or take them out"),
    "undecodable": Kind("error", "undecodable", AGAIN),
    "count": Kind("error", "with another number of frames than declared", AGAIN),
    "sizes": Kind("error", "with frames of several sizes", "make these again in one size, or take them out"),
    "damaged": Kind("error", "damaged since it was prepared", "give the command again that prepared the folder"),
    "lists": Kind(
        "warning",
        "of the lists cut off or changed: of another length than the official one",
        "get the lists again: python -m vfbench data where {name}",
    ),
    "extra": Kind("warning", "extra: on disk, in no list", "these are never scored: take them out, or check the lists"),
    "short": Kind(
        "warning",
        "short: fewer than {frames} frames",
        "no clip of {frames} frames can be cut from these: ask for shorter ones, or take these out",
    ),
    "gaps": Kind("warning", "with frames missing in between", "the motion jumps there: unpack these again"),
    "rate": Kind(
        "warning",
        "with a variable frame rate",
        "a clip takes frames by their number, so that its motion is uneven: make these again at one rate",
    ),
    "links": Kind("warning", "more names of a file", "each name counts as a video: keep one of each"),
    "copies": Kind("warning", "copies of another", "each copy counts as a video: keep one of each"),
    "shared": Kind("warning", "leaked: in two splits by content", "keep each in one split"),
    "recordings": Kind(
        "warning",
        "recordings leaked: with clips in two splits",
        "keep each recording in one split, as official lists do",
    ),
    "resolution": Kind("warning", "of another size than most", ONE_COPY),
    "several": Kind("warning", "of several sizes, none that of most", ONE_COPY),
    "classes": Kind("warning", "classes without a clip", "check that the archive was unpacked whole"),
}


class Example(NamedTuple):
    """One name, what is to say of it, and the other names that it stands with."""

    name: str
    detail: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """All that was found of one kind."""

    kind: str
    cases: tuple[Example, ...]
    title: str
    mend: str

    @property
    def level(self) -> Level:
        """How bad it is."""
        return KINDS[self.kind].level

    @property
    def count(self) -> int:
        """How many names it is about; of names that stand together, how many too many."""
        return sum(len(case.others) or 1 for case in self.cases)

    def lines(self) -> list[str]:
        """Title, the first names, and what mends it."""
        shown = [f"  {_line(case)}" for case in self.cases[:SHOWN]]
        more = [f"  and {len(self.cases) - SHOWN:,} more"] if len(self.cases) > SHOWN else []
        return [f"{self.level}: {self.count:,} {self.title}", *shown, *more, f"  -> {self.mend}"]

    def record(self) -> dict[str, Any]:
        """The same for machines, with every name."""
        told = {"kind": self.kind, "level": self.level, "count": self.count, "title": self.title, "mend": self.mend}
        cases = [{"name": case.name, "detail": case.detail, "others": list(case.others)} for case in self.cases]
        return {**told, "cases": cases}


def finding(kind: str, cases: Iterable[Example], **words: object) -> list[Finding]:
    """The finding of a kind, or none where there is no case; `words` fill its title and what mends it."""
    found = tuple(cases)
    title, mend = (text.format(**words) for text in KINDS[kind][1:])
    return [Finding(kind, found, title, mend)] if found else []


def _line(case: Example) -> str:
    return printable(f"{case.name} ({case.detail})" if case.detail else case.name)
