"""Networks of the Hugging Face hub: the folder that holds one, from the cache or downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vfbench.errors import MissingData


def fetched(name: str, patterns: Sequence[str], kind: str = "model") -> Path:
    """The folder of a model of the hub, downloaded unless it is in the cache; raises `MissingData` where it is not.

    `patterns` are the files that are wanted, `kind` says what the error calls the model.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise MissingData(
            f"'{name}' is no folder here, and no {kind} that the hub gave or HF_HOME={constants.HF_HOME} holds "
            f"({error})"
        ) from error
