"""An image diffusion model of the diffusers hub (`UNet2DModel`) as VideoFusion's base generator.

The hub's model keeps its own noise levels and its own reading of what it predicts: a time of ours becomes the one of
its timesteps whose signal-to-noise ratio is nearest. Our condition enters where the hub's class embedding would,
through a layer that begins at zero, so that at first a model without classes answers as it did on the hub. That of a
model with classes gives way to the layer, which begins at the mean of its embeddings: the answer is then the hub's for
that embedding, which is the one of no class in particular.

Whatever dropout the hub's model was trained with, here it has none: torch's global generator would draw it, whose state
no training keeps, so that a resumed training would be another one, and a frozen model would drop out as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from vfbench.diffusion.schedule import Prediction, Schedule, split
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import ClipShape
from vfbench.utils import files, memory

ImageKind = Literal["eps", "v", "x0"]  # what an image model predicts
_KINDS: Mapping[str, ImageKind] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
ADDED = "base.network.class_embedding."  # weights that are ours, not the hub's
_LEVELS = (  # fields of a scheduler that say its noise levels
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"),
)
_CHANGED: Mapping[str, Any] = {"num_class_embeds": None, "dropout": 0.0}  # of the hub's configuration
FILES = ["*.json", "unet/*.json", "scheduler/*.json", "*model.safetensors", "unet/*model.safetensors"]


def read(output: Tensor, z: Tensor, alpha_bar: Tensor, kind: ImageKind) -> Prediction:
    """What an output says of z = sqrt(a_t) x0 + sqrt(1 - a_t) eps."""
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if kind == "x0":
        return Prediction(x0=output, eps=(z - signal * output) / noise)
    return split(output, z, signal, noise, kind)


class HubBase(nn.Module):
    """A `UNet2DModel` behind the interface of our image U-Net.

    `model` is its configuration and `scheduler` that of its noise levels, both as the hub's files have them; `width` is
    that of the condition, `schedule` ours.
    """

    timestep: Tensor

    def __init__(self, model: Mapping[str, Any], scheduler: Mapping[str, Any], width: int, schedule: Schedule) -> None:
        super().__init__()
        self.kind = _KINDS[scheduler["prediction_type"]]
        self.network: nn.Module = _diffusers().UNet2DModel.from_config(model)
        inside = self.network.get_submodule("time_embedding.linear_2").out_features
        assert isinstance(inside, int)
        own = nn.Linear(width, inside)
        nn.init.zeros_(own.weight)
        nn.init.zeros_(own.bias)
        self.network.class_embedding = own
        self.register_buffer("timestep", nearest(schedule.alpha_bar, levels(scheduler)), persistent=False)

    def forward(self, frame: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """`frame` (B, 1, 3, H, W), our times `t` (B,), `condition` (B, width): its output, of the frame's shape."""
        output: Tensor = self.network(frame[:, 0], self.timestep[t], class_labels=condition, return_dict=False)[0]
        return output[:, None]


def levels(scheduler: Mapping[str, Any]) -> Tensor:
    """alpha_bar of each of the hub model's timesteps, in float64, decreasing."""
    found = _diffusers().DDPMScheduler(**{name: scheduler[name] for name in _LEVELS if name in scheduler})
    alpha_bar: Tensor = found.alphas_cumprod.double()
    return alpha_bar


def nearest(ours: Tensor, theirs: Tensor) -> Tensor:
    """For each of our levels the index of theirs whose log signal-to-noise ratio is nearest."""
    one, two = ((a / (1 - a)).log() for a in (ours, theirs))
    return (one[:, None] - two).abs().argmin(dim=1)


class HubFolder(NamedTuple):
    """A hub model: configuration of the network and of its noise levels, and weights by name."""

    model: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    state: Mapping[str, Tensor]


def load(folder: Path, shape: ClipShape) -> HubFolder:
    """The `UNet2DModel` in a folder, which holds it alone or as the pipeline's part `unet`, for frames of a shape."""
    place = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    model, scheduler = _model(place / "config.json", shape), _scheduler(folder)
    try:
        with memory.needed(str(place)):
            network = _diffusers().UNet2DModel.from_pretrained(place, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise MissingData(f"{place} holds no readable UNet2DModel as safetensors ({error})") from error
    state = network.state_dict()
    if (classes := state.pop("class_embedding.weight", None)) is not None:
        state["class_embedding.bias"] = classes.mean(dim=0)
    return HubFolder(model, scheduler, state)


def _model(path: Path, shape: ClipShape) -> dict[str, Any]:
    """The fields of a `config.json`; raises `UserError` naming the one that does not fit frames of our kind."""
    content = files.read_json(path)
    if content.get("_class_name") != "UNet2DModel":
        raise UserError(f"{path} describes a '{content.get('_class_name')}': a base generator is a UNet2DModel")
    for name in ("in_channels", "out_channels"):
        if content.get(name, 3) != 3:
            raise UserError(f"{path} has {name} {content[name]}: a base generator reads and predicts the 3 of RGB")
    side = content.get("sample_size")
    made = (side, side) if isinstance(side, int) else tuple(side or (shape.height, shape.width))
    if made != (shape.height, shape.width):
        raise UserError(f"{path} makes images of {made[0]}x{made[1]}, the dataset has {shape.height}x{shape.width}")
    if (kind := content.get("class_embed_type")) is not None:
        raise UserError(f"{path} has class_embed_type '{kind}': a base generator has a table of classes, or none")
    own = {name: value for name, value in content.items() if not name.startswith("_")}
    return {**own, **_CHANGED}


def _scheduler(folder: Path) -> dict[str, Any]:
    """What a scheduler's file says of noise levels and prediction; what it leaves out is the hub's default."""
    places = [folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise MissingData(f"no scheduler_config.json in {folder}: it says at which noise levels the model was trained")
    content = files.read_json(path)
    if "beta_schedule" not in content:
        raise UserError(f"{path} is of '{content.get('_class_name')}', which has no beta_schedule: choose a DDPM model")
    kind = content.get("prediction_type", "epsilon")
    if kind not in _KINDS:
        raise UserError(f"{path} has prediction_type '{kind}': known are {', '.join(_KINDS)}")
    return {"prediction_type": kind, **{name: content[name] for name in _LEVELS if name in content}}


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise BadEnvironment("a base generator of the hub needs diffusers: pip install 'vfbench[diffusers]'") from error
    return diffusers
