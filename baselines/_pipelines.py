"""Pipelines of the diffusers library: where they lie, whether they may be opened, and what comes out of them.

Nothing of a pipeline is executed or unpickled: its weights are safetensors, its classes are those of diffusers and
transformers themselves, and a folder that brings code of its own is refused.
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

READ = ("*.safetensors", "*.json", "*.txt", "*.model")  # all that a pipeline is made of


def library() -> Any:
    """The diffusers library; raises `BadEnvironment` where it is not installed, or not in working order."""
    try:
        import diffusers

        diffusers.DiffusionPipeline  # noqa: B018  # most of it is imported only when something of it is asked for
    except (ImportError, RuntimeError) as error:
        raise BadEnvironment(
            f'the model diffusers needs the library of that name ({error}): pip install "vfbench[diffusers]"'
        ) from error
    return diffusers


def pipeline_folder(name: str, revision: str | None, variant: str | None) -> Path:
    """The folder of a pipeline: `name` itself, or its snapshot in the hub's cache, fetched first where possible.

    Raises `MissingData` naming the id, the cache that was looked at and the command that fetches it.
    """
    if revision and Path(name).expanduser().is_dir():
        raise UserError(f"revision={revision!r} is of the hub, and {name} is a folder: leave one of them out")
    download = library().DiffusionPipeline.download

    def fetch() -> Path:
        try:
            return Path(download(name, revision=revision, variant=variant, use_safetensors=True))
        except (OSError, ValueError) as error:
            raise error.__cause__ or error from None  # diffusers hides what the hub said behind its own words

    return _folder("id", name, fetch, revision)


def adapter_folder(name: str) -> Path:
    """The folder of a motion adapter, as `pipeline_folder` finds that of a pipeline."""

    def fetch() -> Path:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=list(READ)))

    return _folder("adapter", name, fetch)


def _folder(option: str, name: str, fetch: Callable[[], Path], revision: str | None = None) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(checkpoint.HUB_NAME, name):
        raise MissingData(f"{option}={name!r}: no such folder, and no id of the Hugging Face hub, which is OWNER/NAME")
    patterns = [word for pattern in READ for word in ("--include", pattern)]
    command = shlex.join(["hf", "download", name, *(["--revision", revision] if revision else []), *patterns])
    what = f"{option}={name!r} is no folder here, and neither the hub nor the cache has it"
    with _quiet(), hf_hub.asking(what, name, command=command):
        return fetch()


def kind(folder: Path, wanted: str | None = None) -> Any:
    """The pipeline class that `model_index.json` names, or the one that is wanted in its place.

    Raises `MissingData` for code that is not diffusers' own, and `UserError` where it has no class that is wanted.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise MissingData(f"{folder} holds no pipeline: it has no model_index.json; give the folder that has it")
    content, own = files.read_json(index), library()
    named = content.get("_class_name")
    if (found := _class(named)) is None:
        raise MissingData(f"{index}: {named!r} is no pipeline of diffusers {own.__version__}; foreign code is not run")
    for part, told in content.items():
        if isinstance(told, list) and len(told) == 2 and isinstance(told[0], str) and not _trusted(told[0]):
            raise MissingData(f"{index}: its {part} is of {told[0]!r}, not of diffusers or transformers: it is not run")
        if code := next((folder / part).glob("*.py"), None):
            raise MissingData(f"{code}: a pipeline with code of its own is not opened; take the file out if you can")
    if wanted is None:
        return found
    if (found := _class(wanted)) is None:
        raise unknown("pipeline of diffusers", wanted, (name for name in dir(own) if name.endswith("VideoPipeline")))
    return found


def _class(name: Any) -> Any:
    """The pipeline class of that name, or None where diffusers has none."""
    found = getattr(library(), name, None) if isinstance(name, str) else None
    return found if isinstance(found, type) and issubclass(found, library().DiffusionPipeline) else None


def _trusted(origin: str) -> bool:
    """Whether a component comes from diffusers, also from one of its own pipelines, or from transformers."""
    return origin in ("diffusers", "transformers") or hasattr(library().pipelines, origin)


def digest(*folders: Path) -> str:
    """SHA-256 of the names and bytes of all files that pipelines are made of, 64 hexadecimal digits."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted({path for pattern in READ for path in folder.rglob(pattern)}):
            found.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return found.hexdigest()


def load(
    folder: Path,
    dtypes: Mapping[str, torch.dtype],
    variant: str | None,
    adapter: Path | None,
    wanted: str | None = None,
    *,
    doubtful: str = "",
) -> Any:
    """The pipeline of a folder on the CPU, each component in its type of `dtypes` (`default` is that of the others).

    `wanted` names the class to open it as, where the folder serves several. With an `adapter` it is AnimateDiff: the
    folder is an image pipeline, whose scheduler becomes the one that the documentation of diffusers gives AnimateDiff.
    `doubtful` are the options that may be wrong where the folder does not open, in words.
    Raises `MissingData` naming the folder where it is damaged, lacks a tensor or holds no safetensors, and
    `BadEnvironment` where a library is missing.
    """
    found = kind(folder, wanted)
    try:
        with _quiet(), memory.needed(str(folder)):
            parts = _text_parts(folder, dtypes, variant)
            if adapter:
                found = library().AnimateDiffPipeline
                parts |= _animatediff(folder, adapter)
            given: dict[str, Any] = {"dtype": dict(dtypes), "variant": variant, **parts}
            pipe = found.from_pretrained(folder, use_safetensors=True, local_files_only=True, **given)
    except ImportError as error:
        raise BadEnvironment(f'{folder} needs a library ({error}): pip install "vfbench[diffusers]"') from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise MissingData(f"{folder}: this pipeline cannot be opened ({error}); {_mend(folder, doubtful)}") from error
    _require_cleaner(found)
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):  # diffusers leaves a tensor that it has not found without a place
            _require_whole(folder / name, [name for name, tensor in part.named_parameters() if tensor.is_meta])
    return pipe


def _mend(folder: Path, doubtful: str) -> str:
    """What may help where a pipeline cannot be opened."""
    pickled = (path for path in folder.rglob("*.bin") if not next(path.parent.glob("*.safetensors"), None))
    if found := next(pickled, None):
        return f"{found} is a pickle, which is never opened: save as safetensors"
    return f"leave out {doubtful}, or fetch it again" if doubtful else "fetch it again"


def _require_cleaner(found: Any) -> None:
    """Raise `BadEnvironment` for a pipeline that mends prompts by ftfy where that is there, else does not or breaks."""
    if hasattr(source := inspect.getmodule(found), "is_ftfy_available") and not hasattr(source, "ftfy"):
        raise BadEnvironment(f'{found.__name__} cleans prompts with ftfy: pip install "vfbench[diffusers]"')


def _text_parts(folder: Path, dtypes: Mapping[str, torch.dtype], variant: str | None) -> dict[str, Any]:
    """The networks that come from transformers, which draws at random whatever tensor is not there, and says so only
    to those who load a network by itself."""
    import transformers

    found: dict[str, Any] = {}
    for name, told in files.read_json(folder / "model_index.json").items():
        network: Any = (
            getattr(transformers, told[1], None) if isinstance(told, list) and told[0] == "transformers" else None
        )
        if isinstance(network, type) and issubclass(network, transformers.PreTrainedModel):
            given: dict[str, Any] = {
                "dtype": dtypes.get(name, dtypes["default"]),
                "variant": variant if variant and any((folder / name).glob(f"*.{variant}*.safetensors")) else None,
            }
            load_one: Any = network.from_pretrained
            found[name], read = load_one(
                folder / name, use_safetensors=True, local_files_only=True, output_loading_info=True, **given
            )
            _require_whole(folder / name, sorted(read["missing_keys"]))
    return found


def _require_whole(folder: Path, lost: Sequence[str]) -> None:
    if lost:
        raise MissingData(f"{folder} lacks {len(lost)} tensors, the first is '{lost[0]}'; fetch or save it again")


def _animatediff(folder: Path, adapter: Path) -> dict[str, Any]:
    """What AnimateDiff has beside or instead of the parts of an image pipeline."""
    own = library()
    return {
        "motion_adapter": own.MotionAdapter.from_pretrained(adapter, use_safetensors=True),
        "scheduler": own.DDIMScheduler.from_pretrained(folder / "scheduler", **_ANIMATEDIFF),
    }


_ANIMATEDIFF = {"clip_sample": False, "timestep_spacing": "linspace", "beta_schedule": "linear", "steps_offset": 1}


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, no library draws a progress bar over ours, and none tells of what it reads."""
    import transformers

    both = (library().utils.logging, transformers.utils.logging)
    before = [(logging.get_verbosity(), logging.is_progress_bar_enabled()) for logging in both]
    for logging in both:
        logging.set_verbosity(logging.CRITICAL)  # what fails is raised as well, and told once
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging, (level, drawn) in zip(both, before, strict=True):
            logging.set_verbosity(level)
            if drawn:
                logging.enable_progress_bar()


def to_clips(pictures: Any, quantise: Quantise) -> Clips:
    """What a pipeline gives, as uint8 (B, T, 3, H, W) on the CPU.

    `pictures` are floats in [0, 1] or bytes, as a tensor, an array or lists of PIL images, of clips or of single
    images, which are clips of one frame. Three channels may stand last, second or, in clips, third. Raises ValueError
    for any other shape, and for NaN.
    """
    x = _tensor(pictures)
    if x.ndim == 4:
        x = x[:, None]
    channels = next((axis for axis in (-1, 2, 1) if x.ndim == 5 and x.shape[axis] == 3), None)
    if channels is None:
        raise ValueError(f"the pipeline gave {tuple(x.shape)}: needed are RGB clips, such as (B, T, H, W, 3)")
    x = x.movedim(channels, 2)
    return (x if x.dtype == torch.uint8 else video.to_uint8(x.float(), quantise)).contiguous().cpu()


def _tensor(pictures: Any) -> Tensor:
    if isinstance(pictures, Sequence):
        return torch.stack([_tensor(part) for part in pictures])
    if isinstance(pictures, Tensor):
        return pictures
    return torch.from_numpy(np.array(pictures))  # an array, or a PIL image of 8 bits
