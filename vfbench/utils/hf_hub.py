"""The Hugging Face hub, asked through its own library: what it gives lies in a cache below HF_HOME, and what it refuses
is an error that names the cache and says what to do. With HF_HUB_OFFLINE=1 that cache alone is looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vfbench.errors import MissingData

PREFIX = "hub:"  # of a name that could be taken for a folder's


def folder(name: Path | str, patterns: Sequence[str]) -> Path:
    """A folder as it is, or else the one in the cache with the files of these names of the repository `name`.

    Raises `MissingData` naming HF_HOME where it is no folder, and neither hub nor cache has it.
    """
    if os.path.isdir(name):  # noqa: PTH112  # which a name that no file can have does not break
        return Path(name)
    repo = str(name).removeprefix(PREFIX)
    with asking(f"'{repo}' is no folder here, and neither the hub nor the cache has it", repo):
        return _downloaded(repo, patterns)


def snapshot(repo: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """The folder in the cache with a repository's files of these names, downloaded where they are not there yet.

    Raises `MissingData` naming HF_HOME where neither hub nor cache has it.
    """
    with asking(f"neither the hub nor the cache gives '{repo}'{f' at {revision}' if revision else ''}", repo):
        return _downloaded(repo, patterns, revision)


def _downloaded(repo: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))


@contextmanager
def asking(what: str, repo: str, *, command: str = "") -> Iterator[None]:
    """Within, the hub is asked of a repository: an error of it becomes a `MissingData` that begins with `what`.

    It says what to do, and the `command` that fills the cache where there is one. The errors have no base in common:
    OSError, ValueError, those of its HTTP library.
    """
    from huggingface_hub import constants

    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        mend = _mend(error, repo) + (f"; the cache is filled by\n  {command}" if command else "")
        raise MissingData(f"{what} (HF_HOME={constants.HF_HOME}): {reason}\n{mend}") from error


def _mend(error: Exception, repo: str) -> str:
    """What to do about an error of the hub."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.HFValidationError):
        return "give a folder that is there, or the name of a repository of the hub, owner/name"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if constants.HF_HUB_OFFLINE:
        cached = ", or set HF_HOME to a cache that holds it" * isinstance(error, errors.LocalEntryNotFoundError)
        return f"HF_HUB_OFFLINE is set: unset it{cached}"
    if isinstance(error, errors.GatedRepoError):
        return f"ask for access at {constants.ENDPOINT}/{repo}, then log in: hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "check the name; for a private one log in: hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"its revisions: {constants.ENDPOINT}/{repo}/branches"
    if isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
        return "log in with a token that may do this: hf auth login"
    return "check the connection and the name, then give the same command again"
