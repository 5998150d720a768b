"""Pipelines of the diffusers library: find, check and load them, and convert their output.

No code of a pipeline is executed or unpickled: weights are safetensors, classes are those of diffusers and
transformers, and a folder that contains code is refused.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from vfbench import video
from vfbench.errors import BadEnvironment, MissingData, UserError, unknown
from vfbench.interfaces import Clips, Quantise
from vfbench.utils import checkpoint, files, hf_hub, memory
from vfbench.utils.files import file_sha256

PIPELINE_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


def library() -> Any:
    """Import the diffusers library; raises `BadEnvironment` where it is missing or broken."""
    try:
        import diffusers

        diffusers.DiffusionPipeline  # noqa: B018  # diffusers imports most of itself on first access
    except (ImportError, RuntimeError) as error:
        raise BadEnvironment(
            f'the model diffusers needs the diffusers library ({error}): pip install "vfbench[diffusers]"'
        ) from error
    return diffusers


def pipeline_folder(name: str, revision: str | None, variant: str | None) -> Path:
    """The folder of a pipeline: `name` itself, or the snapshot of the hub id `name`, downloaded if needed.

    Raises `MissingData` naming the id, the cache and the download command.
    """
    if revision and Path(name).expanduser().is_dir():
        raise UserError(f"revision={revision!r} needs a hub id, and {name} is a folder: leave one of them out")
    download = library().DiffusionPipeline.download

    def fetch() -> Path:
        try:
            return Path(download(name, revision=revision, variant=variant, use_safetensors=True))
        except (OSError, ValueError) as error:
            raise error.__cause__ or error from None  # diffusers hides the message of the hub

    return _folder("id", name, fetch, revision)


def adapter_folder(name: str) -> Path:
    """The folder of a motion adapter: `name` itself, or the snapshot of the hub id `name`, downloaded if needed."""

    def fetch() -> Path:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=list(PIPELINE_FILES)))

    return _folder("adapter", name, fetch)


def _folder(option: str, name: str, fetch: Callable[[], Path], revision: str | None = None) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(checkpoint.HUB_NAME, name):
        raise MissingData(f"{option}={name!r}: no such folder, and no Hugging Face hub id, which is OWNER/NAME")
    patterns = [argument for pattern in PIPELINE_FILES for argument in ("--include", pattern)]
    command = shlex.join(["hf", "download", name, *(["--revision", revision] if revision else []), *patterns])
    problem = f"{option}={name!r} is no folder here, and neither the hub nor the cache has it"
    with _quiet(), hf_hub.hub_errors(problem, name, command=command):
        return fetch()


def pipeline_class(folder: Path, class_name: str | None = None) -> Any:
    """The pipeline class of `class_name`, by default the one that `model_index.json` names.

    Raises `MissingData` for a folder with classes or code from outside diffusers and transformers, and `UserError` for
    an unknown `class_name`.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise MissingData(f"{folder} holds no pipeline: it has no model_index.json; give the folder that has it")
    content, diffusers = files.read_json(index), library()
    saved_name = content.get("_class_name")
    if (saved_class := _find_class(saved_name)) is None:
        version = diffusers.__version__
        raise MissingData(f"{index}: {saved_name!r} is no pipeline of diffusers {version}; foreign code is not run")
    for part, origin in content.items():
        if isinstance(origin, list) and len(origin) == 2 and isinstance(origin[0], str) and not _trusted(origin[0]):
            raise MissingData(f"{index}: {part} is of {origin[0]!r}, not of diffusers or transformers: it is not run")
        if code := next((folder / part).glob("*.py"), None):
            raise MissingData(f"{code}: a pipeline that contains code is not opened; remove the file if possible")
    if class_name is None:
        return saved_class
    if (requested_class := _find_class(class_name)) is None:
        video_pipelines = (name for name in dir(diffusers) if name.endswith("VideoPipeline"))
        raise unknown("pipeline of diffusers", class_name, video_pipelines)
    return requested_class


def _find_class(name: Any) -> Any:
    """The pipeline class of that name; None where diffusers has none."""
    attribute = getattr(library(), name, None) if isinstance(name, str) else None
    is_pipeline = isinstance(attribute, type) and issubclass(attribute, library().DiffusionPipeline)
    return attribute if is_pipeline else None


def _trusted(origin: str) -> bool:
    """True for the library names diffusers and transformers, and for the pipeline modules of diffusers."""
    if origin in ("diffusers", "transformers"):
        return True
    return origin.isidentifier() and not origin.startswith("_") and hasattr(library().pipelines, origin)


def folders_sha256(*folders: Path) -> str:
    """SHA-256 of the names and contents of all `PIPELINE_FILES` in the folders, 64 hexadecimal digits."""
    sha256 = hashlib.sha256()
    for folder in folders:
        for path in sorted({path for pattern in PIPELINE_FILES for path in folder.rglob(pattern)}):
            sha256.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return sha256.hexdigest()


def load(
    folder: Path,
    dtypes: Mapping[str, torch.dtype],
    variant: str | None,
    adapter: Path | None,
    class_name: str | None = None,
    *,
    suspect_options: str = "",
) -> Any:
    """Load the pipeline of a folder on the CPU, each component in its type of `dtypes`, others in `default`.

    `class_name` is the class to open it as, for a folder that serves several. With an `adapter` the pipeline is
    AnimateDiff: the folder is an image pipeline, and its scheduler becomes that of AnimateDiff in the documentation of
    diffusers. `suspect_options` are the options to name where the folder does not open. Raises `MissingData` naming a
    folder that is damaged, lacks a tensor or holds no safetensors, and `BadEnvironment` where a library is missing.
    """
    opened_class = pipeline_class(folder, class_name)
    try:
        with _quiet(), memory.require_memory(str(folder)):
            parts = _transformers_networks(folder, dtypes, variant)
            if adapter:
                opened_class = library().AnimateDiffPipeline
                parts |= _animatediff_parts(folder, adapter)
            arguments: dict[str, Any] = {"dtype": dict(dtypes), "variant": variant, **parts}
            pipe = opened_class.from_pretrained(folder, use_safetensors=True, local_files_only=True, **arguments)
    except ImportError as error:
        raise BadEnvironment(f'{folder} needs a library ({error}): pip install "vfbench[diffusers]"') from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise MissingData(
            f"{folder}: this pipeline cannot be opened ({error}); {_advice(folder, suspect_options)}"
        ) from error
    _require_ftfy(opened_class)
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):  # diffusers leaves missing tensors on the meta device
            _require_complete(folder / name, [name for name, tensor in part.named_parameters() if tensor.is_meta])
    return pipe


def _advice(folder: Path, suspect_options: str) -> str:
    """Advice for a pipeline that cannot be opened, to end an error message."""
    pickles = (path for path in folder.rglob("*.bin") if not next(path.parent.glob("*.safetensors"), None))
    if pickle := next(pickles, None):
        return f"{pickle} is a pickle, which is never opened: save as safetensors"
    return f"leave out {suspect_options}, or fetch it again" if suspect_options else "fetch it again"


def _require_ftfy(opened_class: Any) -> None:
    """Raise `BadEnvironment` where a pipeline cleans prompts with ftfy and ftfy is missing.

    Without ftfy such a pipeline fails, or silently uses other prompts.
    """
    if hasattr(source := inspect.getmodule(opened_class), "is_ftfy_available") and not hasattr(source, "ftfy"):
        raise BadEnvironment(f'{opened_class.__name__} cleans prompts with ftfy: pip install "vfbench[diffusers]"')


def _transformers_networks(folder: Path, dtypes: Mapping[str, torch.dtype], variant: str | None) -> dict[str, Any]:
    """The components that are transformers networks, by name; raises `MissingData` where one lacks a tensor.

    They are loaded one by one: transformers initialises missing tensors at random, and reports them only then.
    """
    import transformers

    networks: dict[str, Any] = {}
    for name, origin in files.read_json(folder / "model_index.json").items():
        is_transformers = isinstance(origin, list) and origin[0] == "transformers"
        network_class: Any = getattr(transformers, origin[1], None) if is_transformers else None
        if isinstance(network_class, type) and issubclass(network_class, transformers.PreTrainedModel):
            arguments: dict[str, Any] = {
                "dtype": dtypes.get(name, dtypes["default"]),
                "variant": variant if variant and any((folder / name).glob(f"*.{variant}*.safetensors")) else None,
            }
            from_pretrained: Any = network_class.from_pretrained
            networks[name], info = from_pretrained(
                folder / name, use_safetensors=True, local_files_only=True, output_loading_info=True, **arguments
            )
            _require_complete(folder / name, sorted(info["missing_keys"]))
    return networks


def _require_complete(folder: Path, missing: Sequence[str]) -> None:
    if missing:
        raise MissingData(f"{folder} lacks {len(missing)} tensors, the first is '{missing[0]}'; fetch or save it again")


def _animatediff_parts(folder: Path, adapter: Path) -> dict[str, Any]:
    """The components that turn an image pipeline into AnimateDiff: motion adapter and scheduler."""
    diffusers = library()
    return {
        "motion_adapter": diffusers.MotionAdapter.from_pretrained(adapter, use_safetensors=True),
        "scheduler": diffusers.DDIMScheduler.from_pretrained(folder / "scheduler", **_ANIMATEDIFF),
    }


_ANIMATEDIFF = {"clip_sample": False, "timestep_spacing": "linspace", "beta_schedule": "linear", "steps_offset": 1}


@contextmanager
def _quiet() -> Iterator[None]:
    """Context manager: turn off progress bars and log messages of diffusers and transformers."""
    import transformers

    loggers = (library().utils.logging, transformers.utils.logging)
    settings = [(logging.get_verbosity(), logging.is_progress_bar_enabled()) for logging in loggers]
    for logging in loggers:
        logging.set_verbosity(logging.CRITICAL)  # errors are raised as well
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging, (level, progress_bar) in zip(loggers, settings, strict=True):
            logging.set_verbosity(level)
            if progress_bar:
                logging.enable_progress_bar()


def to_clips(output: Any, quantise: Quantise) -> Clips:
    """The output of a pipeline as uint8 (B, T, 3, H, W) on the CPU.

    `output` are floats in [0, 1] or bytes, as a tensor, an array or lists of PIL images. Single images become clips of
    one frame. The channel axis of size 3 may be last, second or, in clips, third. Raises ValueError for any other
    shape, and for NaN.
    """
    x = _to_tensor(output)
    if x.ndim == 4:
        x = x[:, None]
    channels = next((axis for axis in (-1, 2, 1) if x.ndim == 5 and x.shape[axis] == 3), None)
    if channels is None:
        raise ValueError(f"the pipeline gave {tuple(x.shape)}: RGB clips are needed, such as (B, T, H, W, 3)")
    x = x.movedim(channels, 2)
    return (x if x.dtype == torch.uint8 else video.to_uint8(x.float(), quantise)).contiguous().cpu()


def _to_tensor(output: Any) -> Tensor:
    if isinstance(output, Sequence):
        return torch.stack([_to_tensor(part) for part in output])
    if isinstance(output, Tensor):
        return output
    return torch.from_numpy(np.array(output))  # an array, or a PIL image of 8 bits
