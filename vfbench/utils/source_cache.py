"""Cache of slow results that follow from the sources of vfbench, such as the FLOPs of a preset.

An entry is valid until a source file of the package or the version of torch changes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from vfbench.utils import files

_CACHE_FILE = "computed.json"  # below the cache folder
_Result = TypeVar("_Result")


def cached(key: object, compute: Callable[[], _Result]) -> _Result:
    """Result of `compute`, or of an earlier call with this key; both have to be JSON values."""
    digest, sources = files.json_digest(key), _sources_digest()
    entries = files.load_cache(_CACHE_FILE).get(sources, {})
    if digest in entries:
        earlier: _Result = entries[digest]
        return earlier
    result = compute()
    entries = files.load_cache(_CACHE_FILE).get(sources, {})  # `compute` may have cached results of its own
    files.save_cache(_CACHE_FILE, {sources: {**entries, digest: result}})  # drops those of other sources
    return result


@cache
def _sources_digest() -> str:
    package = Path(__file__).parent.parent
    sources = [files.file_key(path) for path in sorted((*package.glob("*.py"), *package.glob("*/*.py")))]
    return files.json_digest([version("torch"), sources])
