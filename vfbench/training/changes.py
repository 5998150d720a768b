"""What is no longer as it was when a training began, said in its flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vfbench.diffusion.model import flag_of
from vfbench.matching import MATCHED

_CLIPS = ("config.classes", "config.words", "data")
_BRINGS = {  # what changes with a change of the first, and is not to be told beside it
    "config.model": ("config.preset", "config.options."),
    "config.preset": ("config.options.",),
    "config.match_flops": ("config.options.",),
    "config.dataset": ("config.shape.", *_CLIPS, "options.crop", "options.flip"),
    "config.shape.": _CLIPS,
    "config.options.base_sha256": ("config.options.new_condition", "config.options.new_embedding"),
    "data": _CLIPS[:2],
    "options.steps": ("options.warmup",),  # which may be a part of them
}
_FLAGS = {
    "config.model": "--model",
    "config.preset": "--preset",
    "config.match_flops": "--match-flops",
    "config.dataset": "--dataset",
    "config.conditions": "--conditions",
    "config.options.base_init": "--base-init",
    "config.options.base_sha256": "--base-from",
    "data": "--dataset or --data-root with the clips",
}


def told(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each difference of two records of a training, such as `--lr 0.001 there, 0.01 now`; none where they are alike.

    A record has `config` (of the model), `data` (the fingerprint of the clips) and `options`, as JSON has them.
    """
    before, after = (_flat(_as_given(record)) for record in (there, now))
    changed = [key for key in {**after, **before} if before.get(key) != after.get(key)]
    brought = tuple(
        key for first, keys in _BRINGS.items() if any(each.startswith(first) for each in changed) for key in keys
    )
    return [_told(key, before.get(key), after.get(key)) for key in changed if not key.startswith(brought)]


def _as_given(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with what a user gives as one thing in one place."""
    config = dict(record.get("config", {}))
    config["preset"], _, reference = str(config.get("preset")).partition(MATCHED)
    if reference:
        config["match_flops"] = reference.replace(" ", ":", 1)
    if weights := config.get("conditions"):
        config["conditions"] = flag_of(weights)
    if embedding := config.get("options", {}).get("embedding"):
        named = " ".join(filter(None, (embedding["encoder"], embedding.get("sha256", "")[:12])))
        config["options"] = {**config["options"], "embedding": named}
    return {**record, "config": config}


def _told(key: str, there: Any, now: Any) -> str:
    if key == "options.flip" and None not in (there, now):
        yes, no = "--flip", "--no-flip"
        return f"{yes if there else no} there, {yes if now else no} now"
    values = ["none" if value is None else value for value in (there, now)]
    return f"{_flag(key)} {values[0]} there, {values[1]} now"


def _flag(key: str) -> str:
    """Where a user says what a record has under `key`."""
    if key in _FLAGS:
        return _FLAGS[key]
    if key.startswith("options."):
        return f"--{key.removeprefix('options.').replace('_', '-')}"
    if key.startswith("config.options."):
        return f"--model with {key.removeprefix('config.options.')}"
    return f"--dataset with {key.rpartition('.')[2]}"


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, child in tree.items() for k, v in _flat(child, f"{prefix}.{key}".lstrip(".")).items()}
