"""`vfbench weights fetch`: download a network from the first source that works, then import it."""

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
from vfbench.utils.files import file_sha256, write_error
from vfbench.utils.progress import Progress
from vfbench.weights import cache, catalogue, convert, verify
from vfbench.weights.catalogue import Download, Network, Source
from vfbench.weights.verify import VerificationResult

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20  # bytes
PARTIAL, OUT_OF_RANGE = HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
TRUE_VALUES = {"1", "on", "true", "yes"}  # as huggingface_hub reads HF_HUB_OFFLINE


class _DownloadError(Exception):
    """Failure of one address; the message gives the reason."""


def fetch(network: Network) -> tuple[Path, VerificationResult]:
    """Download, convert and verify the weights; returns the converted file and the verification result.

    Requests nothing when valid weights are installed. Keeps partial files, and resumes them on the next call.
    Raises `MissingData` with every address and its failure, and the command that imports a file from elsewhere; with
    HF_HUB_OFFLINE=1 it tries no address.
    """
    if installed := _installed(network):
        return installed
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in TRUE_VALUES:
        raise _fetch_error(network, "HF_HUB_OFFLINE is set, so nothing is downloaded; the sources are", network.urls)
    failures: list[str] = []
    with cache.locked_downloads() as downloads:
        for source in network.sources:
            try:
                return _import_from_source(network, source, downloads)
            except MissingData as error:
                failures.append(str(error))
    raise _fetch_error(network, f"no source of {network.name} works", failures)


def _installed(network: Network) -> tuple[Path, VerificationResult] | None:
    """Converted file and result; None if it is missing, damaged or not the published one."""
    path = cache.weights_path(network.name)
    try:
        result = verify.verify_weights(verify.read_converted(network, path)[0])
    except MissingData:
        return None
    return (path, result) if result.verified or network.verification == "none" else None


def _fetch_error(network: Network, problem: str, lines: list[str]) -> MissingData:
    places = [*lines, *(f"{address} (by hand)" for address in network.manual)]
    listed = "".join(f"\n  {line}" for line in places)
    command = catalogue.import_command(network.name)
    return MissingData(f"{problem}{listed}\nget a file from one of these places and import it:\n  {command}")


def _import_from_source(network: Network, source: Source, downloads: Path) -> tuple[Path, VerificationResult]:
    """Import all files of one source, then remove them; also after a failure, so that the next call downloads again."""
    files = [download(file, downloads) for file in source.files]
    try:
        imported = convert.import_weights(network, files[0], mean=files[1] if network.name == "c3d" else None)
    except MissingData as error:
        _remove(files)
        raise MissingData(f"{source.files[0].urls[0]}: {error}") from error
    _remove(files)
    return imported


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def download(file: Download, downloads: Path) -> Path:
    """Complete file in folder `downloads`, hash verified; raises `MissingData` with the failure of each mirror."""
    target = downloads / file.name
    failures = []
    for url in () if target.is_file() else file.urls:
        try:
            _download_from(file, url, downloads).replace(target)
            break
        except _DownloadError as error:
            failures.append(f"{url}: {error}")
    if not target.is_file():
        raise MissingData("\n  ".join(failures))
    return target


def _download_from(file: Download, url: str, downloads: Path) -> Path:
    """Complete file from one address, under a name unique to it; reconnects while each attempt gets further."""
    part = downloads / f"{file.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"
    previous = -1
    while not _request_rest(file, url, part):
        if (current := _size(part)) <= previous:
            raise _DownloadError(f"broke off at byte {current}; run the same command again to resume")
        previous = current
    if file.sha256 and (actual := file_sha256(part)) != file.sha256:
        part.unlink()
        raise _DownloadError(f"its SHA-256 is {actual}, expected {file.sha256}")
    return part


def _request_rest(file: Download, url: str, part: Path) -> bool:
    """Request the missing bytes of a file and save them; True when the file is complete."""
    offset = _size(part)
    headers = {"User-Agent": "vfbench", **({"Range": f"bytes={offset}-"} if offset else {})}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)  # noqa: S310  # an address of the catalogue
    except HTTPError as error:
        with error:
            if error.code != OUT_OF_RANGE:
                raise _DownloadError(f"HTTP {error.code} {error.reason}") from error
            return _is_complete(part, error.headers.get("Content-Range"))
    except (OSError, HTTPException) as error:
        raise _DownloadError(str(getattr(error, "reason", error))) from error
    with response:
        total = _total_size(file, response, offset)
        start = offset if response.status == PARTIAL else 0
        size = _kilobytes(total or file.size or 0)
        with Progress(file.name, size, "kB", done=_kilobytes(start)) as progress:
            _append_to(part, _read_chunks(response, total), start, progress)
    return total is None or _size(part) == total


def _is_complete(part: Path, content_range: str | None) -> bool:
    """True where the server reports exactly the size of `part`; otherwise delete `part`, which is too long."""
    if content_range == f"bytes */{_size(part)}":
        return True
    part.unlink(missing_ok=True)
    return False


def _total_size(file: Download, response: HTTPResponse, offset: int) -> int | None:
    """Size of the complete file in bytes; None if the server does not report it."""
    length = response.headers.get("Content-Length", "")
    if response.status == PARTIAL:
        content_range = response.headers.get("Content-Range", "")
        if not (match := re.fullmatch(rf"bytes {offset}-\d+/(\d+|\*)", content_range)):
            raise _DownloadError(f"asked to resume at byte {offset}, the server sent '{content_range}'")
        length = match[1]
    size = int(length) if length.isdecimal() else None
    if file.size and size not in (None, file.size):
        raise _DownloadError(f"it has {size} bytes, expected {file.size}")
    return size


def _read_chunks(response: HTTPResponse, total: int | None) -> Iterator[bytes]:
    """Chunks until the connection ends or breaks; a break is an error only if the total size is unknown."""
    try:
        while chunk := response.read1(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        if total is None:
            raise _DownloadError(f"broke off ({error})") from error


def _append_to(part: Path, chunks: Iterable[bytes], start: int, progress: Progress) -> None:
    """Append to the file, or overwrite it where `start` is 0; raises `BadEnvironment` if the disk refuses."""
    try:
        with part.open("ab" if start else "wb") as file:
            for chunk in chunks:
                file.write(chunk)
                if new := _kilobytes(file.tell()) - progress.done:
                    progress.advance(new)
    except OSError as error:
        raise write_error(part, error) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _kilobytes(size: int) -> int:
    return math.ceil(size / 1000)
