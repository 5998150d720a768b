"""Files from the Hugging Face hub, cached below HF_HOME; its errors become `MissingData` with advice.

With HF_HUB_OFFLINE=1 only the cache is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vfbench.errors import MissingData

HUB_PREFIX = "hub:"  # marks a name as a repository, not a folder


def resolve_folder(name: Path | str, patterns: Sequence[str]) -> Path:
    """The folder `name`, or the cached snapshot of the repository `name` with the files that match `patterns`.

    Raises `MissingData` naming HF_HOME where it is not a folder, and neither hub nor cache has it.
    """
    if os.path.isdir(name):  # noqa: PTH112  # Path.is_dir raises for names that no file can have
        return Path(name)
    repo = str(name).removeprefix(HUB_PREFIX)
    with hub_errors(f"'{repo}' is no folder here, and neither the hub nor the cache has it", repo):
        return _download(repo, patterns)


def snapshot(repo: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """Cached snapshot of a repository with the files that match `patterns`, downloaded where it is missing.

    Raises `MissingData` naming HF_HOME where neither hub nor cache has it.
    """
    with hub_errors(f"neither the hub nor the cache gives '{repo}'{f' at {revision}' if revision else ''}", repo):
        return _download(repo, patterns, revision)


def _download(repo: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))


@contextmanager
def hub_errors(what: str, repo: str, *, command: str = "") -> Iterator[None]:
    """Context manager: turn hub errors about a repository into `MissingData` that begins with `what`.

    The message ends with advice, and with the `command` that fills the cache, if any. Hub errors have no common base
    class: OSError, ValueError, errors of the HTTP library.
    """
    from huggingface_hub import constants

    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        advice = _advice(error, repo) + (f"; the cache is filled by\n  {command}" if command else "")
        raise MissingData(f"{what} (HF_HOME={constants.HF_HOME}): {reason}\n{advice}") from error


def _advice(error: Exception, repo: str) -> str:
    """Advice for an error of the hub."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.HFValidationError):
        return "give an existing folder, or a repository on the hub, owner/name"
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
    return "check the connection and the name, then repeat the command"
