"""`vfbench weights fetch`: get a network from the first of its sources that still works, then import it."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from vfbench.errors import MissingData
from vfbench.utils.files import file_sha256, unwritable
from vfbench.utils.progress import Progress
from vfbench.weights import cache, catalogue, convert, verify
from vfbench.weights.catalogue import Download, Network, Source
from vfbench.weights.verify import Judgement

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20
PARTIAL, TOO_FAR = HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
TRUE = {"1", "on", "true", "yes"}  # as huggingface_hub reads HF_HUB_OFFLINE


class _Failed(Exception):
    """One address did not give the file; the message says why."""


def fetch(network: Network) -> tuple[Path, Judgement]:
    """Download, convert and prove the weights, and say where they are now and what proves them.

    Nothing is asked for when they are here. What has come of a file is kept, and the same command goes on there.
    Raises `MissingData` naming every address and what was wrong with it, and how to import a file from elsewhere; with
    HF_HUB_OFFLINE=1 nothing is tried.
    """
    if done := _here(network):
        return done
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in TRUE:
        raise _nothing(network, "HF_HUB_OFFLINE is set, so nothing is downloaded; it is at", network.urls)
    notes: list[str] = []
    with cache.downloads() as place:
        for source in network.sources:
            try:
                return _from_source(network, source, place)
            except MissingData as error:
                notes.append(str(error))
    raise _nothing(network, f"no source of {network.name} works", notes)


def _here(network: Network) -> tuple[Path, Judgement] | None:
    """The weights in the folder, unless they are missing, damaged, or others than the published ones."""
    path = cache.place(network.name)
    try:
        judgement = verify.judge(verify.read(network, path)[0])
    except MissingData:
        return None
    return (path, judgement) if judgement.standard or network.proof == "none" else None


def _nothing(network: Network, what: str, lines: list[str]) -> MissingData:
    places = [*lines, *(f"{place} (by hand)" for place in network.manual)]
    listed = "".join(f"\n  {line}" for line in places)
    return MissingData(
        f"{what}{listed}\nget a file from one of these places and import it:\n  {catalogue.importing(network.name)}"
    )


def _from_source(network: Network, source: Source, place: Path) -> tuple[Path, Judgement]:
    """All files of one source, imported and then removed; wrong ones, too, so that the next try gets them anew."""
    files = [download(file, place) for file in source.files]
    try:
        done = convert.convert(network, files[0], mean=files[1] if network.name == "c3d" else None)
    except MissingData as error:
        _remove(files)
        raise MissingData(f"{source.files[0].urls[0]}: {error}") from error
    _remove(files)
    return done


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def download(file: Download, place: Path) -> Path:
    """The file in `place`, whole and with the right hash; raises `MissingData` naming each mirror and its failure."""
    target = place / file.name
    notes = []
    for url in () if target.is_file() else file.urls:
        try:
            _mirror(file, url, place).replace(target)
            break
        except _Failed as error:
            notes.append(f"{url}: {error}")
    if not target.is_file():
        raise MissingData("\n  ".join(notes))
    return target


def _mirror(file: Download, url: str, place: Path) -> Path:
    """The whole file from one address, under a name of its own; it may break off as often as more comes each time."""
    part = place / f"{file.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"
    before = -1
    while not _more(file, url, part):
        if (now := _size(part)) <= before:
            raise _Failed(f"broke off at byte {now}; the same command goes on there")
        before = now
    if file.sha256 and (found := file_sha256(part)) != file.sha256:
        part.unlink()
        raise _Failed(f"its SHA-256 is {found}, expected {file.sha256}")
    return part


def _more(file: Download, url: str, part: Path) -> bool:
    """Ask for what is missing of a file and save what comes; whether it is whole now."""
    have = _size(part)
    headers = {"User-Agent": "vfbench", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        answer = urlopen(Request(url, headers=headers), timeout=TIMEOUT)  # noqa: S310  # the catalogue's own address
    except HTTPError as error:
        with error:
            if error.code != TOO_FAR:
                raise _Failed(f"HTTP {error.code} {error.reason}") from error
            return _was_whole(part, error.headers.get("Content-Range"))
    except (OSError, HTTPException) as error:
        raise _Failed(str(getattr(error, "reason", error))) from error
    with answer:
        total = _total(file, answer, have)
        start = have if answer.status == PARTIAL else 0
        progress = Progress(file.name, _kilobytes(total), "kB", done=_kilobytes(start)) if total else None
        _save(_chunks(answer, total), part, start, progress)
    return total is None or _size(part) == total


def _was_whole(part: Path, span: str | None) -> bool:
    """Whether there was nothing to go on with because all had come; a file that is too long is begun anew."""
    if span == f"bytes */{_size(part)}":
        return True
    part.unlink(missing_ok=True)
    return False


def _total(file: Download, answer: HTTPResponse, have: int) -> int | None:
    """How long the whole file is, as far as the server tells."""
    length = answer.headers.get("Content-Length", "")
    if answer.status == PARTIAL:
        span = answer.headers.get("Content-Range", "")
        if not (found := re.fullmatch(rf"bytes {have}-\d+/(\d+|\*)", span)):
            raise _Failed(f"asked to go on at byte {have}, it sent '{span}'")
        length = found[1]
    size = int(length) if length.isdecimal() else None
    if file.size and size not in (None, file.size):
        raise _Failed(f"it has {size} bytes, expected {file.size}")
    return size


def _chunks(answer: HTTPResponse, total: int | None) -> Iterator[bytes]:
    """What comes until it ends or breaks off: where the length is known, that tells which."""
    try:
        while chunk := answer.read1(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        if total is None:
            raise _Failed(f"broke off ({error})") from error


def _save(chunks: Iterable[bytes], part: Path, start: int, progress: Progress | None) -> None:
    """Append to the file, or begin it anew; raises `BadEnvironment` when the disk does not take it."""
    try:
        with part.open("ab" if start else "wb") as file:
            for chunk in chunks:
                file.write(chunk)
                if progress and (more := _kilobytes(file.tell()) - progress.done):
                    progress.advance(more)
    except OSError as error:
        raise unwritable(part, error) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _kilobytes(size: int) -> int:
    return math.ceil(size / 1000)
