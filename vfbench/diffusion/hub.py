"""Checkpoints on the Hugging Face hub: a model's configuration, its weights as safetensors, its card, and nothing else.

Whatever else a repository or a folder holds is neither downloaded nor uploaded. What goes and what comes is checked
against the SHA-256 in its `config.json`. The hub is asked through its own library, which keeps what it gets in a cache
below HF_HOME; with HF_HUB_OFFLINE=1 that cache alone is looked at.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from vfbench.diffusion.frame_embedding import LEARNT
from vfbench.diffusion.model import ModelConfig, require_unchanged
from vfbench.errors import MissingData, UserError
from vfbench.utils import files, tensor_files
from vfbench.utils.checkpoint import CONFIG, HUB_NAME, TENSORS, require_checkpoint
from vfbench.utils.hf_hub import PREFIX, asking, snapshot

CARD = "README.md"
FILES = (CARD, TENSORS, CONFIG)  # in the order of writing: a configuration promises its weights
_NAME = re.compile(rf"({PREFIX})?(?P<repo>{HUB_NAME})(@(?P<revision>\S+))?")


def checkpoint(text: Path | str) -> Path:
    """The folder of a checkpoint: a path as it is, or for `hub:owner/name[@revision]` where the hub's cache has it.

    Raises `UserError` for a name that is none, and what `pull` raises.
    """
    return pull(str(text)) if str(text).startswith(PREFIX) else Path(text)


def parse(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """Repository and revision of `[hub:]owner/name[@revision]`; raises `UserError` for anything else."""
    found = _NAME.fullmatch(name)
    if found is None or (revision and found["revision"]):
        raise UserError(f"'{name}' is no name of the hub: write owner/name, with one --revision or owner/name@revision")
    return found["repo"], found["revision"] or revision


def named(name: str, revision: str | None = None) -> str:
    """What `--checkpoint` takes for a checkpoint of the hub."""
    repo, revision = parse(name, revision)
    return f"{PREFIX}{repo}" + (f"@{revision}" if revision else "")


def config(folder: Path) -> ModelConfig:
    """The configuration of a checkpoint, of whichever model; raises `MissingData` where there is none."""
    require_checkpoint(folder)
    path = folder / CONFIG
    return ModelConfig.read(path, str(files.read_json(path)["model"]))


def pull(name: str, *, revision: str | None = None, output: Path | None = None) -> Path:
    """Download `owner/name[@revision]`, unless the cache has it, and check it; returns `output`, or its folder there.

    Raises `MissingData` naming HF_HOME where neither hub nor cache gives it, and where it is none of ours or its
    weights are not those that its configuration records; `UserError` where `output` holds another checkpoint.
    """
    repo, revision = parse(name, revision)
    folder = snapshot(repo, FILES, revision)
    for needed in (CONFIG, TENSORS):
        if not (folder / needed).is_file():
            raise MissingData(f"'{repo}' has no {needed}: a checkpoint of vfbench has it, and no other file is opened")
    recorded = _verified(folder)
    if output is None:
        return folder
    there = output / CONFIG
    if there.is_file() and files.read_json(there).get("sha256") != recorded:
        raise UserError(f"{output} holds another checkpoint: choose another --output")
    _copy(folder, output)
    return output


def push(folder: Path, name: str, *, private: bool = False, revision: str | None = None) -> str:
    """Upload a checkpoint, as private if that is asked for, to a branch `revision` if one is named; returns its URL.

    The repository and the branch are made unless they are there. Raises `MissingData` for a folder that is no whole
    checkpoint and where the hub refuses, and `UserError` where something private would go to a public repository.
    """
    from huggingface_hub import HfApi

    repo, revision = parse(name, revision)
    made = config(folder)
    _verified(folder)
    _require_public(folder, made)
    require_unchanged(folder)
    api = HfApi()
    with asking(f"the hub does not take '{repo}'", repo):
        api.create_repo(repo, private=private or None, exist_ok=True)
        public = private and not api.model_info(repo).private
    if public:
        raise UserError(f"'{repo}' is public already: make it private in its settings on the hub, or choose another")
    with asking(f"the hub does not take '{repo}'", repo):
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        message = f"{made.model} {made.preset} for {made.dataset}, weights {made.sha256[:12]}"
        done = api.upload_folder(
            repo_id=repo, folder_path=folder, revision=revision, allow_patterns=list(FILES), commit_message=message
        )
    return str(done.commit_url)


def _require_public(folder: Path, made: ModelConfig) -> None:
    """Raise `UserError` where the configuration names what only this machine has."""
    encoder = (made.options.get("embedding") or {}).get("encoder", LEARNT)
    if encoder != LEARNT and (Path(encoder).is_absolute() or Path(encoder).exists()):
        raise UserError(
            f"{folder / CONFIG} names the folder {encoder}: nobody else has it; train with the id of that CLIP "
            "on the hub, --model \"...(embedding='owner/name')\""
        )


def _verified(folder: Path) -> str:
    """The hash of a checkpoint's weights, which must be the one recorded beside them."""
    recorded = config(folder).sha256
    if not recorded:
        raise MissingData(f"{folder / CONFIG} records no SHA-256 of its weights: save the model again")
    return tensor_files.verified(folder / TENSORS, recorded)


def _copy(folder: Path, output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.unwritable(output, error) from error
    for name in FILES:
        if (folder / name).is_file():
            with files.replacing(output / name) as file:
                shutil.copyfile(folder / name, file)
