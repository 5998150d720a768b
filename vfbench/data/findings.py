"""Faults of a dataset on disk: kinds, severity and the step that mends each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vfbench.utils.escape import printable

NAMES_SHOWN = 5  # names of a finding in the text report; the JSON record has all

Level = Literal["error", "warning"]


class Kind(NamedTuple):
    """A kind of finding. An error makes scores impossible or wrong; a warning does not."""

    level: Level
    title: str
    mend: str


GET_AGAIN = "get these again, or take them out"
CHECK_COPY = "check which copy of the dataset this is: other sizes are resized differently"
KINDS: Mapping[str, Kind] = {
    "missing": Kind(
        "error", "missing: listed, not on disk", "unpack the archive again, or: python -m vfbench data status {name}"
    ),
    "partial": Kind(
        "error",
        "incomplete copy: fewer videos than the official one",
        "get the rest: python -m vfbench data status {name}",
    ),
    "unreadable": Kind("error", "unreadable", "give your user read permission (chmod u+r), or check the disk"),
    "empty": Kind("error", "empty", GET_AGAIN),
    "no video": Kind("error", "no video", GET_AGAIN),
    "cut off": Kind("error", "cut off", "copy or unpack these again, or take them out"),
    "undecodable": Kind("error", "undecodable", GET_AGAIN),
    "count": Kind("error", "with another number of frames than declared", GET_AGAIN),
    "sizes": Kind("error", "with frames of several sizes", "make these again in one size, or take them out"),
    "damaged": Kind("error", "damaged since preparation", "repeat the command that prepared the folder"),
    "lists": Kind(
        "warning",
        "lists cut off or changed: length differs from the official one",
        "get the lists again: python -m vfbench data status {name}",
    ),
    "extra": Kind("warning", "extra: on disk, in no list", "these are never scored: take them out, or check the lists"),
    "short": Kind(
        "warning",
        "short: fewer than {frames} frames",
        "a clip of {frames} frames does not fit into these: ask for shorter clips, or take these out",
    ),
    "gaps": Kind("warning", "with missing frames in between", "the motion jumps there: unpack these again"),
    "strangers": Kind(
        "warning", "with an image named unlike the other frames", "it is read as a frame: take it out if it is none"
    ),
    "rate": Kind(
        "warning",
        "with a variable frame rate",
        "clips take frames by number, so their motion is uneven: encode these again at one rate",
    ),
    "links": Kind("warning", "additional names of a file", "each name counts as a video: keep one of each"),
    "copies": Kind("warning", "copies of another", "each copy counts as a video: keep one of each"),
    "shared": Kind("warning", "leaked: same content in two splits", "keep each in one split"),
    "recordings": Kind(
        "warning",
        "recordings leaked: with clips in two splits",
        "keep each recording in one split, as official lists do",
    ),
    "resolution": Kind("warning", "of another size than most", CHECK_COPY),
    "several": Kind("warning", "of several sizes, without a majority", CHECK_COPY),
    "classes": Kind("warning", "classes without a clip", "check that the archive was unpacked completely"),
}


class Example(NamedTuple):
    """One video that a finding is about, with a detail; `others` are its copies or links."""

    name: str
    detail: str = ""
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """All examples of one kind, with the title and the mending step filled in."""

    kind: str
    examples: tuple[Example, ...]
    title: str
    mend: str

    @property
    def level(self) -> Level:
        """Severity: `error` or `warning`."""
        return KINDS[self.kind].level

    @property
    def count(self) -> int:
        """Number of affected names; in a group, all but the first."""
        return sum(len(example.others) or 1 for example in self.examples)

    def lines(self) -> list[str]:
        """Text report: title, the first names, and the mending step."""
        shown = [f"  {_line(example)}" for example in self.examples[:NAMES_SHOWN]]
        more = [f"  and {len(self.examples) - NAMES_SHOWN:,} more"] if len(self.examples) > NAMES_SHOWN else []
        return [f"{self.level}: {self.count:,} {self.title}", *shown, *more, f"  -> {self.mend}"]

    def record(self) -> dict[str, Any]:
        """JSON record with every name."""
        cases = [{"name": case.name, "detail": case.detail, "others": list(case.others)} for case in self.examples]
        fields = {"kind": self.kind, "level": self.level, "count": self.count, "title": self.title, "mend": self.mend}
        return {**fields, "cases": cases}


def make_findings(kind: str, examples: Iterable[Example], **fields: object) -> list[Finding]:
    """The finding of a kind, or an empty list without examples; `fields` fill the title and the mending step."""
    examples = tuple(examples)
    title, mend = (text.format(**fields) for text in KINDS[kind][1:])
    return [Finding(kind, examples, title, mend)] if examples else []


def _line(example: Example) -> str:
    return printable(f"{example.name} ({example.detail})" if example.detail else example.name)
