"""Checkpoints on the Hugging Face hub: configuration, weights as safetensors, model card.

No other file of a repository or folder is downloaded or uploaded. Downloads and uploads are checked against the SHA-256
in `config.json`. Downloads go through huggingface_hub, with its cache below HF_HOME; with HF_HUB_OFFLINE=1 only the
cache is read.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from vfbench.diffusion.frame_embedding import LEARNT
from vfbench.diffusion.model_config import ModelConfig, require_unchanged
from vfbench.errors import MissingData, UserError
from vfbench.utils import files, tensor_files
from vfbench.utils.checkpoint import CONFIG, HUB_NAME, TENSORS, require_checkpoint
from vfbench.utils.hf_hub import HUB_PREFIX, hub_errors, snapshot

CARD_FILE = "README.md"
FILES = (CARD_FILE, TENSORS, CONFIG)  # the configuration is written last: where it exists, the weights do
_NAME = re.compile(rf"({HUB_PREFIX})?(?P<repo>{HUB_NAME})(@(?P<revision>\S+))?")


def resolve_checkpoint(text: Path | str) -> Path:
    """The folder of a checkpoint: a path unchanged, or the cache folder of `hub:owner/name[@revision]`.

    Raises `UserError` for an invalid hub name, and what `pull` raises.
    """
    return pull(str(text)) if str(text).startswith(HUB_PREFIX) else Path(text)


def parse_name(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """Repository and revision of `[hub:]owner/name[@revision]`; raises `UserError` for anything else."""
    match = _NAME.fullmatch(name)
    if match is None or (revision and match["revision"]):
        raise UserError(
            f"'{name}' is not a hub name: write owner/name, and a revision once, as --revision or owner/name@revision"
        )
    return match["repo"], match["revision"] or revision


def hub_name(name: str, revision: str | None = None) -> str:
    """The value of `--checkpoint` for a checkpoint on the hub: `hub:owner/name[@revision]`."""
    repo, revision = parse_name(name, revision)
    return f"{HUB_PREFIX}{repo}" + (f"@{revision}" if revision else "")


def read_config(folder: Path) -> ModelConfig:
    """The configuration of a checkpoint of any model; raises `MissingData` where there is none."""
    require_checkpoint(folder)
    return ModelConfig.read(folder / CONFIG)


def pull(name: str, *, revision: str | None = None, output: Path | None = None) -> Path:
    """Download `owner/name[@revision]` unless cached, and verify it; returns `output`, or the cache folder.

    Raises `MissingData` naming HF_HOME where neither hub nor cache has it, and where it is no vfbench checkpoint or its
    weights do not have the recorded hash; `UserError` where `output` holds another checkpoint.
    """
    repo, revision = parse_name(name, revision)
    folder = snapshot(repo, FILES, revision)
    for file in (CONFIG, TENSORS):
        if not (folder / file).is_file():
            raise MissingData(f"'{repo}' has no {file}: it is no vfbench checkpoint, choose another repository")
    sha256 = _verified_sha256(folder)
    if output is None:
        return folder
    path = output / CONFIG
    if path.is_file() and files.read_json(path).get("sha256") != sha256:
        raise UserError(f"{output} holds another checkpoint: choose another --output")
    _copy(folder, output)
    return output


def push(folder: Path, name: str, *, private: bool = False, revision: str | None = None) -> str:
    """Upload a checkpoint to the default branch or the branch `revision`; returns the URL of the commit.

    Creates the repository (private on request) and the branch if needed. Raises `MissingData` for an incomplete
    checkpoint and where the hub refuses, and `UserError` where `private` is asked for and the repository is public.
    """
    from huggingface_hub import HfApi

    repo, revision = parse_name(name, revision)
    config = read_config(folder)
    _verified_sha256(folder)
    _require_public_encoder(folder, config)
    require_unchanged(folder)
    api = HfApi()
    with hub_errors(f"the hub does not take '{repo}'", repo):
        api.create_repo(repo, private=private or None, exist_ok=True)
        public = private and not api.model_info(repo).private
    if public:
        raise UserError(f"'{repo}' is public: make it private in its settings on the hub, or choose another repository")
    with hub_errors(f"the hub does not take '{repo}'", repo):
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        message = f"{config.model} {config.preset} for {config.dataset}, weights {config.sha256[:12]}"
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, revision=revision, allow_patterns=list(FILES), commit_message=message
        )
    return str(commit.commit_url)


def _require_public_encoder(folder: Path, config: ModelConfig) -> None:
    """Raise `UserError` where the configuration names a CLIP folder of this machine."""
    encoder = (config.options.get("embedding") or {}).get("encoder", LEARNT)
    if encoder != LEARNT and (Path(encoder).is_absolute() or Path(encoder).exists()):
        raise UserError(
            f"{folder / CONFIG} names the local folder {encoder}: train with the hub id of that CLIP, "
            "--model \"...(embedding='owner/name')\""
        )


def _verified_sha256(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights; raises `MissingData` where it is not the recorded one."""
    sha256 = read_config(folder).sha256
    if not sha256:
        raise MissingData(f"{folder / CONFIG} records no SHA-256 of its weights: save the model again")
    return tensor_files.verify_sha256(folder / TENSORS, sha256)


def _copy(folder: Path, output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.write_error(output, error) from error
    for name in FILES:
        if (folder / name).is_file():
            with files.atomic_path(output / name) as file:
                shutil.copyfile(folder / name, file)
