"""Checkpoints on the hub come back as they went, verified, and nothing else goes or comes."""

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
    """Repositories as folders; stands in for what we call of the hub's library."""

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
        found, cached = self.folder(repo, revision), self.root / "cache" / repo / (revision or "main")
        if not found.is_dir():
            raise gone(errors.RevisionNotFoundError if self.folder(repo).is_dir() else errors.RepositoryNotFoundError)
        _copy(found, cached, allow_patterns)
        return str(cached)


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        assert "*" not in name
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def gone(kind: type[errors.HfHubHTTPError], status: int = 404) -> errors.HfHubHTTPError:
    """An error as the hub's library raises it."""
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind(f"{status} Client Error.\n\nNot found for url", response=response)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    found = FakeHub(tmp_path / "fake")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.download)
    return found


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint as a training leaves it, with what is nobody else's business beside it."""
    folder = tmp_path / "saved"
    tiny_vdm().save(folder)
    (folder / hub.CARD_FILE).write_text("a card")
    for name in ("training.pt", "log.jsonl", ".lock", "notes.md"):
        (folder / name).write_text("mine")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def clips(model: str, folder: Path) -> Clips:
    sampler = plugins.load("model", f"{model}(steps=2)", BuildContext(DATA, CPU, checkpoint=folder))
    made: Clips = sampler.sample(requests(0, 1))
    return made


# There and back.


@pytest.mark.parametrize("model", TRAINABLE)
def test_a_model_comes_back_as_it_went(model: str, fake: FakeHub, tmp_path: Path) -> None:
    plugins.module("model", model).create(DATA, "tiny").save(tmp_path / "here")
    hub.push(tmp_path / "here", NAME)
    before = clips(model, tmp_path / "here")
    shutil.rmtree(tmp_path / "here")
    assert torch.equal(before, clips(model, hub.resolve_checkpoint(f"hub:{NAME}")))
    assert torch.equal(before, clips(model, hub.pull(NAME, output=tmp_path / "there")))


def test_only_the_checkpoint_goes_and_only_it_comes(fake: FakeHub, saved: Path, tmp_path: Path) -> None:
    assert hub.push(saved, NAME) == f"https://huggingface.co/{NAME}/commit/1"
    assert names(fake.folder(NAME)) == sorted(hub.FILES)
    (fake.folder(NAME) / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (fake.folder(NAME) / "setup.py").write_text("raise SystemExit")
    for folder in (hub.pull(NAME), hub.pull(NAME, output=tmp_path / "there")):
        assert names(folder) == sorted(hub.FILES)
        assert all((folder / name).read_bytes() == (saved / name).read_bytes() for name in hub.FILES)
    assert file_sha256(saved / checkpoint.TENSORS)[:12] in fake.messages[0]


def test_a_revision_is_a_branch_of_its_own(fake: FakeHub, saved: Path) -> None:
    hub.push(saved, NAME)
    tiny_vdm(perturbed=False).save(saved)
    hub.push(saved, NAME, revision="v2")
    recorded = {at: hub.read_config(hub.resolve_checkpoint(f"hub:{NAME}{at}")).sha256 for at in ("", "@v2")}
    assert recorded["@v2"] == hub.read_config(saved).sha256 != recorded[""]
    assert hub.pull(f"{NAME}@v2") == hub.pull(NAME, revision="v2")


def test_a_folder_stays_as_it_is(tmp_path: Path) -> None:
    assert hub.resolve_checkpoint("runs/mine") == Path("runs/mine")
    assert hub.resolve_checkpoint(tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["", "videos", "a/b/c", "../x", "someone/", "a/b@", "a/.b", "a b/c"])
def test_what_is_no_name_is_refused_before_anything_is_asked(name: str) -> None:
    with pytest.raises(UserError, match=r"is not a hub name: write owner/name"):
        hub.resolve_checkpoint(f"hub:{name}")


def test_two_revisions_are_refused() -> None:
    with pytest.raises(UserError, match="once, as --revision"):
        hub.pull(f"{NAME}@v1", revision="v2")


# What is private stays private.


def test_private_is_asked_for_and_a_public_repository_is_refused(fake: FakeHub, saved: Path) -> None:
    hub.push(saved, "someone/secret", private=True)
    assert fake.private["someone/secret"]
    hub.push(saved, NAME)
    (fake.folder(NAME) / hub.CARD_FILE).write_text("the old one")
    with pytest.raises(UserError, match=f"'{NAME}' is public: "):
        hub.push(saved, NAME, private=True)
    assert (fake.folder(NAME) / hub.CARD_FILE).read_text() == "the old one"


# What does not verify.


def test_weights_that_are_not_those_recorded_go_nowhere(fake: FakeHub, saved: Path) -> None:
    tensor_files.write(saved / checkpoint.TENSORS, tiny_vdm(perturbed=False).state_dict())
    with pytest.raises(MissingData, match=r"model\.safetensors is damaged or of another training: its SHA-256 is"):
        hub.push(saved, NAME)
    assert fake.private == {}


def test_a_configuration_that_is_not_that_of_the_weights_goes_nowhere(fake: FakeHub, saved: Path) -> None:
    changed = files.read_json(saved / checkpoint.CONFIG)
    changed["options"]["schedule"] = "linear"
    files.write_json(saved / checkpoint.CONFIG, changed)
    with pytest.raises(MissingData, match=r"config\.json has changed since its weights were saved"):
        hub.push(saved, NAME)
    assert fake.private == {}


def test_weights_that_changed_on_the_hub_are_refused(fake: FakeHub, saved: Path, tmp_path: Path) -> None:
    hub.push(saved, NAME)
    path = fake.folder(NAME) / checkpoint.TENSORS
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(MissingData, match=r"its SHA-256 is .*, expected"):
        hub.pull(NAME, output=tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_configuration_without_a_hash_is_refused(fake: FakeHub, saved: Path) -> None:
    files.write_json(saved / "config.json", {**files.read_json(saved / "config.json"), "sha256": ""})
    with pytest.raises(MissingData, match=r"config\.json records no SHA-256"):
        hub.push(saved, NAME)


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors"])
def test_a_repository_of_something_else_is_refused(fake: FakeHub, saved: Path, lacking: str) -> None:
    hub.push(saved, NAME)
    (fake.folder(NAME) / lacking).rename(fake.folder(NAME) / "pytorch_model.bin")
    shutil.rmtree(fake.root / "cache", ignore_errors=True)
    with pytest.raises(MissingData, match=f"'{NAME}' has no {lacking}"):
        hub.pull(NAME)


def test_another_checkpoint_is_not_written_over(fake: FakeHub, saved: Path, tmp_path: Path) -> None:
    hub.push(saved, NAME)
    tiny_vdm(perturbed=False).save(tmp_path / "other")
    before = (tmp_path / "other" / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"other holds another checkpoint: choose another --output"):
        hub.pull(NAME, output=tmp_path / "other")
    assert (tmp_path / "other" / "config.json").read_bytes() == before
    assert hub.pull(NAME, output=tmp_path / "new") == hub.pull(NAME, output=tmp_path / "new")  # again is no harm


def test_a_place_that_cannot_be_written_is_named(fake: FakeHub, saved: Path, tmp_path: Path) -> None:
    hub.push(saved, NAME)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadEnvironment, match=r"cannot write .*file"):
        hub.pull(NAME, output=tmp_path / "file" / "there")


# What the hub says.

ERRORS = [
    (gone(errors.RepositoryNotFoundError), "check the name; for a private one log in: hf auth login"),
    (gone(errors.RevisionNotFoundError), f"its revisions: .*/{NAME}/branches"),
    (gone(errors.GatedRepoError, 403), f"ask for access at .*/{NAME}, then log in"),
    (gone(errors.HfHubHTTPError, 401), "log in with a token that may do this: hf auth login"),
    (errors.LocalTokenNotFoundError("no token"), "log in with a token that may do this: hf auth login"),
    (ConnectionError("no network"), "check the connection"),
    (errors.XetDownloadError("broken off"), "check the connection"),
]


@pytest.mark.parametrize(("error", "said"), ERRORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("verb", ["pull", "push"])
def test_what_the_hub_refuses_ends_with_4_and_says_where_was_looked(
    verb: str, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, saved: Path, vfbench: Command
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(create_repo=fails))
    done = vfbench("hub", verb, *([saved] if verb == "push" else []), NAME)
    assert done.code == 4
    assert f"'{NAME}' (HF_HOME={constants.HF_HOME}): {str(error).splitlines()[0]}" in done.err
    assert "Traceback" not in done.err
    with pytest.raises(MissingData, match=said):
        hub.pull(NAME) if verb == "pull" else hub.push(saved, NAME)


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_the_hubs_own_library_offline_is_told_so(
    verb: str, monkeypatch: pytest.MonkeyPatch, saved: Path, vfbench: Command
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = vfbench("hub", verb, *([saved] if verb == "push" else []), NAME)
    assert done.code == 4
    assert f"HF_HOME={constants.HF_HOME}" in done.err
    assert "HF_HUB_OFFLINE is set: unset it" in done.err
    assert ("set HF_HOME to a cache" in done.err) is (verb == "pull")


def test_what_the_hubs_own_cache_holds_is_found_offline(
    monkeypatch: pytest.MonkeyPatch, saved: Path, tmp_path: Path
) -> None:
    place, commit = tmp_path / "cache" / "models--someone--videos", "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(saved, place / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert hub.resolve_checkpoint(f"hub:{NAME}") == place / "snapshots" / commit


# The commands.


def test_a_configuration_that_names_a_folder_of_ours_is_not_pushed(fake: FakeHub, saved: Path, tmp_path: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["options"]["embedding"] = {"encoder": str(tmp_path)}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"names the local folder .*: train with the hub id"):
        hub.push(saved, NAME)


def test_push_and_pull_say_what_comes_next(fake: FakeHub, saved: Path, tmp_path: Path, vfbench: Command) -> None:
    pushed = vfbench("hub", "push", saved, NAME, "--private", "--revision", "v1")
    assert (pushed.code, pushed.out) == (0, f"https://huggingface.co/{NAME}/commit/1\n")
    assert f"next: python -m vfbench hub pull hub:{NAME}@v1" in pushed.err
    pulled = vfbench("hub", "pull", f"hub:{NAME}@v1", "--output", tmp_path / "there")
    assert (pulled.code, pulled.out) == (0, f"{tmp_path / 'there'}\n")
    shape = "'shapes(frames=4, height=8, width=8)'"
    assert f"next: python -m vfbench run --model vdm --dataset {shape} --checkpoint {tmp_path / 'there'}" in pulled.err
    cached = vfbench("hub", "pull", NAME, "--revision", "v1")
    assert f"--checkpoint hub:{NAME}@v1" in cached.err
    assert "warning" not in pushed.err + pulled.err + cached.err


def test_a_checkpoint_without_a_card_goes_with_a_warning(fake: FakeHub, saved: Path, vfbench: Command) -> None:
    (saved / hub.CARD_FILE).unlink()
    done = vfbench("hub", "push", saved, NAME)
    assert done.code == 0
    assert "saved has no README.md, so the hub shows no model card" in done.err
    assert names(fake.folder(NAME)) == ["config.json", "model.safetensors"]


def test_the_next_command_of_files_of_others_says_where_they_are(saved: Path) -> None:
    content = json.loads((saved / "config.json").read_text())
    files.write_json(saved / "config.json", {**content, "dataset": "ucf101"})
    found = model_card.command(hub.read_config(saved), "x")
    assert found[3:] == ["--dataset", "ucf101(frames=4, height=8, width=8)", "--data-root", "DATA", "--checkpoint", "x"]
