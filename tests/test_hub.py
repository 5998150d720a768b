"""Tests of `vfbench.diffusion.hub` and `vfbench hub`: pushing checkpoints, pulling them, verifying their hashes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from conftest import Command
from helpers import CPU, requests, tiny_dataset, tiny_vdm
from huggingface_hub import constants, errors

from vfbench import plugins
from vfbench.diffusion import hub
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import BuildContext, Clips
from vfbench.training import model_card
from vfbench.utils import checkpoint, files, tensor_files
from vfbench.utils.files import file_sha256

TRAINABLE = [name for name in plugins.names("model") if hasattr(plugins.module("model", name), "create")]
DATA = tiny_dataset(side=16)
NAME = "someone/videos"


class FakeHub:
    """Repositories as folders; replaces the functions of huggingface_hub that vfbench calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: dict[str, bool] = {}
        self.messages: list[str] = []

    def folder(self, repo: str, revision: str | None = None) -> Path:
        return self.root / "hub" / repo / (revision or "main")

    def create_repo(self, repo: str, *, private: bool | None, exist_ok: bool) -> None:
        assert exist_ok
        self.private.setdefault(repo, bool(private))
        self.folder(repo).mkdir(parents=True, exist_ok=True)

    def create_branch(self, repo: str, *, branch: str, exist_ok: bool) -> None:
        assert exist_ok
        self.folder(repo, branch).mkdir(parents=True, exist_ok=True)

    def model_info(self, repo: str) -> Any:
        return SimpleNamespace(private=self.private[repo])

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, revision: str | None, allow_patterns: list[str], commit_message: str
    ) -> Any:
        self.messages.append(commit_message)
        _copy(folder_path, self.folder(repo_id, revision), allow_patterns)
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")

    def download(self, repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        source, cached = self.folder(repo, revision), self.root / "cache" / repo / (revision or "main")
        if not source.is_dir():
            raise hub_error(
                errors.RevisionNotFoundError if self.folder(repo).is_dir() else errors.RepositoryNotFoundError
            )
        _copy(source, cached, allow_patterns)
        return str(cached)


def _copy(source: Path, target: Path, file_names: Sequence[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in file_names:
        assert "*" not in name
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def hub_error(kind: type[errors.HfHubHTTPError], status: int = 404) -> errors.HfHubHTTPError:
    """Error of huggingface_hub with an HTTP response."""
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind(f"{status} Client Error.\n\nNot found for url", response=response)


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    hub = FakeHub(tmp_path / "fake")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.download)
    return hub


@pytest.fixture
def checkpoint_folder(tmp_path: Path) -> Path:
    """Output folder of a training: a checkpoint beside files that must not be pushed."""
    folder = tmp_path / "checkpoint"
    tiny_vdm().save(folder)
    (folder / hub.CARD_FILE).write_text("a card")
    for name in ("training.pt", "log.jsonl", ".lock", "notes.md"):
        (folder / name).write_text("mine")
    return folder


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sample(model: str, folder: Path) -> Clips:
    sampler = plugins.load("model", f"{model}(steps=2)", BuildContext(DATA, CPU, checkpoint=folder))
    clips: Clips = sampler.sample(requests(0, 1))
    return clips


# Push and pull.


@pytest.mark.slow
@pytest.mark.one_case
@pytest.mark.parametrize("model", TRAINABLE)
def test_a_pulled_model_samples_equal_clips(model: str, fake_hub: FakeHub, tmp_path: Path) -> None:
    plugins.module("model", model).create(DATA, "tiny").save(tmp_path / "local")
    hub.push(tmp_path / "local", NAME)
    before = sample(model, tmp_path / "local")
    shutil.rmtree(tmp_path / "local")
    assert torch.equal(before, sample(model, hub.resolve_checkpoint(f"hub:{NAME}")))
    assert torch.equal(before, sample(model, hub.pull(NAME, output=tmp_path / "pulled")))


def test_only_checkpoint_files_are_pushed_and_pulled(
    fake_hub: FakeHub, checkpoint_folder: Path, tmp_path: Path
) -> None:
    assert hub.push(checkpoint_folder, NAME) == f"https://huggingface.co/{NAME}/commit/1"
    assert file_names(fake_hub.folder(NAME)) == sorted(hub.FILES)
    (fake_hub.folder(NAME) / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (fake_hub.folder(NAME) / "setup.py").write_text("raise SystemExit")
    for folder in (hub.pull(NAME), hub.pull(NAME, output=tmp_path / "pulled")):
        assert file_names(folder) == sorted(hub.FILES)
        assert all((folder / name).read_bytes() == (checkpoint_folder / name).read_bytes() for name in hub.FILES)
    assert file_sha256(checkpoint_folder / checkpoint.TENSORS)[:12] in fake_hub.messages[0]


def test_a_revision_is_a_separate_branch(fake_hub: FakeHub, checkpoint_folder: Path) -> None:
    hub.push(checkpoint_folder, NAME)
    tiny_vdm(perturbed=False).save(checkpoint_folder)
    hub.push(checkpoint_folder, NAME, revision="v2")
    pulled = {
        revision: hub.read_config(hub.resolve_checkpoint(f"hub:{NAME}{revision}")).sha256 for revision in ("", "@v2")
    }
    assert pulled["@v2"] == hub.read_config(checkpoint_folder).sha256 != pulled[""]
    assert hub.pull(f"{NAME}@v2") == hub.pull(NAME, revision="v2")


def test_a_local_folder_resolves_to_itself(tmp_path: Path) -> None:
    assert hub.resolve_checkpoint("runs/mine") == Path("runs/mine")
    assert hub.resolve_checkpoint(tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["", "videos", "a/b/c", "../x", "someone/", "a/b@", "a/.b", "a b/c"])
def test_a_malformed_hub_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="owner/name"):
        hub.resolve_checkpoint(f"hub:{name}")


def test_two_revisions_are_refused() -> None:
    with pytest.raises(UserError, match="--revision"):
        hub.pull(f"{NAME}@v1", revision="v2")


# Private repositories.


def test_a_private_push_to_a_public_repository_is_refused(fake_hub: FakeHub, checkpoint_folder: Path) -> None:
    hub.push(checkpoint_folder, "someone/secret", private=True)
    assert fake_hub.private["someone/secret"]
    hub.push(checkpoint_folder, NAME)
    (fake_hub.folder(NAME) / hub.CARD_FILE).write_text("old card")
    with pytest.raises(UserError, match=f"'{NAME}' is public"):
        hub.push(checkpoint_folder, NAME, private=True)
    assert (fake_hub.folder(NAME) / hub.CARD_FILE).read_text() == "old card"


# Failed verification.


def test_weights_of_another_hash_are_not_pushed(fake_hub: FakeHub, checkpoint_folder: Path) -> None:
    tensor_files.write(checkpoint_folder / checkpoint.TENSORS, tiny_vdm(perturbed=False).state_dict())
    with pytest.raises(MissingData, match=r"model\.safetensors .*SHA-256"):
        hub.push(checkpoint_folder, NAME)
    assert fake_hub.private == {}


def test_a_changed_configuration_is_not_pushed(fake_hub: FakeHub, checkpoint_folder: Path) -> None:
    changed = files.read_json(checkpoint_folder / checkpoint.CONFIG)
    changed["options"]["schedule"] = "linear"
    files.write_json(checkpoint_folder / checkpoint.CONFIG, changed)
    with pytest.raises(MissingData, match=r"config\.json has changed"):
        hub.push(checkpoint_folder, NAME)
    assert fake_hub.private == {}


def test_changed_weights_on_the_hub_are_not_pulled(fake_hub: FakeHub, checkpoint_folder: Path, tmp_path: Path) -> None:
    hub.push(checkpoint_folder, NAME)
    path = fake_hub.folder(NAME) / checkpoint.TENSORS
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(MissingData, match=r"SHA-256 is .*, expected"):
        hub.pull(NAME, output=tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_a_configuration_without_a_hash_is_refused(fake_hub: FakeHub, checkpoint_folder: Path) -> None:
    files.write_json(
        checkpoint_folder / "config.json", {**files.read_json(checkpoint_folder / "config.json"), "sha256": ""}
    )
    with pytest.raises(MissingData, match=r"config\.json records no SHA-256"):
        hub.push(checkpoint_folder, NAME)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_repository_without_a_checkpoint_file_is_refused(
    fake_hub: FakeHub, checkpoint_folder: Path, missing: str
) -> None:
    hub.push(checkpoint_folder, NAME)
    (fake_hub.folder(NAME) / missing).rename(fake_hub.folder(NAME) / "pytorch_model.bin")
    shutil.rmtree(fake_hub.root / "cache", ignore_errors=True)
    with pytest.raises(MissingData, match=f"'{NAME}' has no {missing}"):
        hub.pull(NAME)


def test_another_checkpoint_is_not_overwritten(fake_hub: FakeHub, checkpoint_folder: Path, tmp_path: Path) -> None:
    hub.push(checkpoint_folder, NAME)
    tiny_vdm(perturbed=False).save(tmp_path / "other")
    before = (tmp_path / "other" / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"other holds another checkpoint: .*--output"):
        hub.pull(NAME, output=tmp_path / "other")
    assert (tmp_path / "other" / "config.json").read_bytes() == before
    assert hub.pull(NAME, output=tmp_path / "new") == hub.pull(
        NAME, output=tmp_path / "new"
    )  # a repeated pull succeeds


def test_an_output_below_a_file_is_refused(fake_hub: FakeHub, checkpoint_folder: Path, tmp_path: Path) -> None:
    hub.push(checkpoint_folder, NAME)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadEnvironment, match=r"cannot write .*file"):
        hub.pull(NAME, output=tmp_path / "file" / "pulled")


# Errors of the hub.

ERRORS = [
    (hub_error(errors.RepositoryNotFoundError), "check the name; .*hf auth login"),
    (hub_error(errors.RevisionNotFoundError), f"/{NAME}/branches"),
    (hub_error(errors.GatedRepoError, 403), f"access at .*/{NAME}"),
    (hub_error(errors.HfHubHTTPError, 401), "token .*hf auth login"),
    (errors.LocalTokenNotFoundError("no token"), "token .*hf auth login"),
    (ConnectionError("no network"), "connection"),
    (errors.XetDownloadError("broken off"), "connection"),
]


@pytest.mark.parametrize(("error", "remedy"), ERRORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("verb", ["pull", "push"])
def test_an_error_of_the_hub_exits_with_4_and_names_the_cache(
    verb: str, error: Exception, remedy: str, monkeypatch: pytest.MonkeyPatch, checkpoint_folder: Path, vfbench: Command
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(create_repo=fail))
    outcome = vfbench("hub", verb, *([checkpoint_folder] if verb == "push" else []), NAME)
    assert outcome.code == 4
    assert all(part in outcome.err for part in (NAME, str(constants.HF_HOME), str(error).splitlines()[0]))
    assert "Traceback" not in outcome.err
    with pytest.raises(MissingData, match=remedy):
        hub.pull(NAME) if verb == "pull" else hub.push(checkpoint_folder, NAME)


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_offline_mode_is_reported_with_the_cache(
    verb: str, monkeypatch: pytest.MonkeyPatch, checkpoint_folder: Path, vfbench: Command
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    outcome = vfbench("hub", verb, *([checkpoint_folder] if verb == "push" else []), NAME)
    assert outcome.code == 4
    assert f"HF_HOME={constants.HF_HOME}" in outcome.err
    assert "HF_HUB_OFFLINE" in outcome.err
    assert ("set HF_HOME" in outcome.err) is (verb == "pull")


def test_a_cached_checkpoint_is_found_offline(
    monkeypatch: pytest.MonkeyPatch, checkpoint_folder: Path, tmp_path: Path
) -> None:
    cached, commit = tmp_path / "cache" / "models--someone--videos", "0" * 40
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    shutil.copytree(checkpoint_folder, cached / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert hub.resolve_checkpoint(f"hub:{NAME}") == cached / "snapshots" / commit


# Commands.


def test_a_configuration_with_a_local_path_is_not_pushed(
    fake_hub: FakeHub, checkpoint_folder: Path, tmp_path: Path
) -> None:
    config = json.loads((checkpoint_folder / "config.json").read_text())
    config["options"]["embedding"] = {"encoder": str(tmp_path)}
    (checkpoint_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"local folder .*hub id"):
        hub.push(checkpoint_folder, NAME)


def test_push_and_pull_print_the_next_command(
    fake_hub: FakeHub, checkpoint_folder: Path, tmp_path: Path, vfbench: Command
) -> None:
    pushed = vfbench("hub", "push", checkpoint_folder, NAME, "--private", "--revision", "v1")
    assert (pushed.code, pushed.out) == (0, f"https://huggingface.co/{NAME}/commit/1\n")
    assert f"next: python -m vfbench hub pull hub:{NAME}@v1" in pushed.err
    pulled = vfbench("hub", "pull", f"hub:{NAME}@v1", "--output", tmp_path / "pulled")
    assert (pulled.code, pulled.out) == (0, f"{tmp_path / 'pulled'}\n")
    shape = "'shapes(frames=4, height=8, width=8)'"
    assert f"next: python -m vfbench run --model vdm --dataset {shape} --checkpoint {tmp_path / 'pulled'}" in pulled.err
    cached = vfbench("hub", "pull", NAME, "--revision", "v1")
    assert f"--checkpoint hub:{NAME}@v1" in cached.err
    assert "warning" not in pushed.err + pulled.err + cached.err


def test_a_push_without_a_model_card_warns(fake_hub: FakeHub, checkpoint_folder: Path, vfbench: Command) -> None:
    (checkpoint_folder / hub.CARD_FILE).unlink()
    outcome = vfbench("hub", "push", checkpoint_folder, NAME)
    assert outcome.code == 0
    assert "checkpoint has no README.md" in outcome.err
    assert file_names(fake_hub.folder(NAME)) == ["config.json", "model.safetensors"]


def test_the_next_command_of_a_downloaded_dataset_has_a_data_root(checkpoint_folder: Path) -> None:
    content = json.loads((checkpoint_folder / "config.json").read_text())
    files.write_json(checkpoint_folder / "config.json", {**content, "dataset": "ucf101"})
    command = model_card.command(hub.read_config(checkpoint_folder), "x")
    assert command[3:] == [
        "--dataset",
        "ucf101(frames=4, height=8, width=8)",
        "--data-root",
        "DATA",
        "--checkpoint",
        "x",
    ]
