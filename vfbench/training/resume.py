"""Training state on disk, for `--resume`: `training.pt` and the log."""

from __future__ import annotations

import json
import math
import pickle  # for its exception alone
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args, runtime_checkable
from zipfile import BadZipFile, ZipFile

import torch

from vfbench.diffusion import hub
from vfbench.diffusion.model_config import ModelConfig, conditions_flag
from vfbench.diffusion.priors import NoiseGenerator
from vfbench.errors import MissingData, UserError
from vfbench.training.clip_sampling import CropOptions
from vfbench.training.match_flops import MATCHED
from vfbench.training.options import TrainOptions
from vfbench.utils import checkpoint, files, memory, strict_json

FILE, LOG = "training.pt", "log.jsonl"
_READ_ERRORS = (
    *(OSError, RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError),
    *(pickle.UnpicklingError, BadZipFile),
)


@runtime_checkable
class Stateful(Protocol):
    """Model or optimiser with a state dict."""

    def state_dict(self) -> Any:
        """State to save."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore a saved state."""
        ...


_WEIGHT_NEUTRAL = (  # training options that do not change the weights
    *("device", "save_every", "sample_every", "half", "compile", "workers"),
    "log_to",
    *("accumulate", "checkpoint_activations"),  # up to the rounding of sums
)


@dataclass(frozen=True)
class Settings:
    """Settings that determine the trained weights; a run resumes only with equal ones.

    `data` is the fingerprint of the training clips. `options` are resolved: warm-up as a number, crop and flip as the
    dataset takes them, `init_from` as the hash of the initial weights. `noise` is the generator of the noise: that of
    the device on which a run began, which a resumed run keeps on any device.
    """

    config: ModelConfig
    data: str
    options: TrainOptions
    default_warmup: bool = False  # the warm-up was not given, but follows from the steps
    noise: NoiseGenerator = "mt19937"

    def to_json(self) -> dict[str, Any]:
        """Settings as JSON, without the options that do not change the weights."""
        excluded = [*_WEIGHT_NEUTRAL, "conditions"]  # the configuration has the conditions
        excluded += [name for name in CropOptions._fields if getattr(self.options, name) is None]
        excluded += ["lr_schedule"] if self.options.lr_schedule == "cosine" else []  # states of old trainings lack it
        options = {name: value for name, value in asdict(self.options).items() if name not in excluded}
        noise = {} if self.noise == "mt19937" else {"noise": self.noise}
        config = asdict(self.config)
        config["options"] = {name: value for name, value in config["options"].items() if name != "sampling"}
        content = {"config": config, "data": self.data, "options": options, **noise}
        as_read: dict[str, Any] = json.loads(json.dumps(content))
        return as_read


class Extension(NamedTuple):
    """Point at which a training of `before` steps was given more steps, `after` in all."""

    step: int
    before: int
    after: int

    def __str__(self) -> str:
        return f"extended at step {self.step:,} from {self.before:,} to {self.after:,} steps"


class SavedRun(NamedTuple):
    """Steps that a saved run has made, the seconds they took, its warm-up, extensions and generator of noise."""

    step: int
    seconds: float
    warmup: int
    extensions: tuple[Extension, ...]
    noise: NoiseGenerator


def save_state(
    folder: Path,
    parts: Mapping[str, Stateful],
    step: int,
    seconds: float,
    settings: Settings,
    extensions: Sequence[Extension] = (),
) -> None:
    """Write the state of each part after `step` steps, and the `seconds` they took."""
    state = {name: part.state_dict() for name, part in parts.items()}
    try:
        with files.atomic_path(folder / FILE) as file, memory.require_memory(str(folder / FILE)):
            spec, extended = json.dumps(settings.to_json()), json.dumps(extensions)
            torch.save({**state, "step": step, "seconds": seconds, "spec": spec, "extended": extended}, file)
    except RuntimeError as error:  # torch's error for a full disk
        raise files.write_error(folder / FILE, error) from error


def load_state(folder: Path, parts: Mapping[str, Stateful], settings: Settings) -> SavedRun:
    """Restore each part from `training.pt`; returns the saved progress, with an `Extension` for more steps than before.

    Raises `MissingData` for a missing or damaged file, and `UserError` with the settings that differ.
    """
    path = folder / FILE
    if not path.is_file():
        has_weights = (folder / checkpoint.TENSORS).is_file()
        from_weights = f"start from the weights in it with --init-from {folder} and another --output"
        raise MissingData(f"nothing to resume at {path}: {from_weights if has_weights else 'start without --resume'}")
    try:
        with memory.require_memory(str(path)):
            if damaged := ZipFile(path).testzip():  # torch does not verify the checksums
                raise ValueError(f"{damaged} has another checksum")
            state = torch.load(path, map_location="cpu", weights_only=True)  # each part has its own device
        saved, step, seconds = strict_json.parse(state["spec"]), int(state["step"]), float(state.get("seconds", 0))
        if not (0 <= step < 1 << 63 and 0 <= seconds < math.inf):
            raise ValueError(f"step {step} after {seconds} seconds")
        extensions = [Extension(*map(int, numbers)) for numbers in json.loads(state.get("extended", "[]"))]
        before, warmup = int(saved["options"]["steps"]), int(saved["options"]["warmup"])
        noise = saved.pop("noise", "mt19937")
        if noise not in get_args(NoiseGenerator):
            raise ValueError(f"noise of {noise!r}")
        current = replace(settings, noise="mt19937").to_json()
        if settings.options.steps > before:
            extensions.append(Extension(step, before, settings.options.steps))
            current["options"]["steps"] = before
        if settings.default_warmup:  # that of the number of steps with which the training began
            current["options"]["warmup"] = warmup
        changes = changed_settings(saved, current)
    except _READ_ERRORS as error:
        raise MissingData(f"{path} is damaged ({error}): train again with another --output") from error
    if changes:
        raise UserError(
            f"{path} is from a run with other settings ({'; '.join(changes)}): give the saved ones again, or start a "
            f"new run from its weights with --init-from {folder} and another --output"
        )
    for name, part in parts.items():
        try:
            part.load_state_dict(state[name])
        except torch.OutOfMemoryError:
            raise
        except _READ_ERRORS as error:
            problem = f"{path}: its state of {name} is damaged ({error})"
            raise MissingData(f"{problem}: train again with another --output") from error
    return SavedRun(step, seconds, warmup, tuple(extensions), noise)


def exists(folder: Path) -> bool:
    """True where a folder holds a training state to resume."""
    return (folder / FILE).exists()


def require_new(folder: Path) -> None:
    """Raise `UserError` where a folder holds a training run, or a file that one would overwrite."""
    if exists(folder):
        raise UserError(f"{folder} holds a training run already: add --resume to continue, or choose another --output")
    if existing := next((name for name in (*hub.FILES, "run.json") if (folder / name).exists()), None):
        raise UserError(f"{folder} holds a {existing}, which is not overwritten: choose another --output")


def append_log(folder: Path, entry: Mapping[str, Any]) -> None:
    """Append an entry to the log, as one line of JSON."""
    with (folder / LOG).open("a") as file:
        file.write(json.dumps(entry) + "\n")


def truncate_log(folder: Path, step: int) -> None:
    """Drop log entries after `step`: those steps were lost and will be repeated."""
    path = folder / LOG
    if path.is_file():
        steps = {line: _logged_step(line) for line in path.read_text("utf-8", "replace").splitlines()}
        files.write_text(path, "".join(f"{line}\n" for line, logged in steps.items() if 0 < logged <= step))


def _logged_step(line: str) -> int:
    """Step of a log line, 0 for a line that a killed process left unfinished."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0


_DATA_DEPENDENT = ("config.classes", "config.words", "data")
_IMPLIED = {  # settings that change with a setting, by their prefixes: differences() does not list them beside it
    "config.model": ("config.preset", "config.options."),
    "config.preset": ("config.options.",),
    "config.match_flops": ("config.options.",),
    "config.dataset": ("config.shape.", *_DATA_DEPENDENT, "options.crop", "options.flip"),
    "config.shape.": _DATA_DEPENDENT,
    "config.options.base_sha256": ("config.options.new_condition", "config.options.new_embedding"),
    "data": _DATA_DEPENDENT[:2],
    "options.steps": ("options.warmup",),  # the default warm-up depends on the steps
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


def changed_settings(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Differences between a saved run's settings and the current ones, such as `--lr 0.001 saved, 0.01 now`.

    Settings have `config` (of the model), `data` (the fingerprint of the clips) and `options`, as read from JSON.
    """
    before, after = (_flatten(_as_flags(settings)) for settings in (saved, current))
    changed = [key for key in {**after, **before} if before.get(key) != after.get(key)]
    implied = tuple(
        prefix for key, prefixes in _IMPLIED.items() if any(c.startswith(key) for c in changed) for prefix in prefixes
    )
    return [_difference(key, before.get(key), after.get(key)) for key in changed if not key.startswith(implied)]


def _as_flags(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with one value for each flag: `match_flops` split from the preset, mappings joined to text."""
    config = dict(settings.get("config", {}))
    config["preset"], _, reference = str(config.get("preset")).partition(MATCHED)
    if reference:
        config["match_flops"] = reference.replace(" ", ":", 1)
    if probs := config.get("conditions"):
        config["conditions"] = conditions_flag(probs)
    if embedding := config.get("options", {}).get("embedding"):
        encoder = " ".join(filter(None, (embedding["encoder"], embedding.get("sha256", "")[:12])))
        config["options"] = {**config["options"], "embedding": encoder}
    return {**settings, "config": config}


def _difference(key: str, saved: Any, current: Any) -> str:
    if key == "options.flip" and None not in (saved, current):
        return f"{'--flip' if saved else '--no-flip'} saved, {'--flip' if current else '--no-flip'} now"
    values = ["none" if value is None else value for value in (saved, current)]
    return f"{_flag(key)} {values[0]} saved, {values[1]} now"


def _flag(key: str) -> str:
    """Command-line flag that sets a flattened setting."""
    if key in _FLAGS:
        return _FLAGS[key]
    if key.startswith("options."):
        return f"--{key.removeprefix('options.').replace('_', '-')}"
    if key.startswith("config.options."):
        return f"--model with {key.removeprefix('config.options.')}"
    return f"--dataset with {key.rpartition('.')[2]}"


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, child in tree.items() for k, v in _flatten(child, f"{prefix}.{key}".lstrip(".")).items()}
