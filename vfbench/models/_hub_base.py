"""A pretrained image diffusion model of diffusers (`UNet2DModel`) as VideoFusion's base generator.

The model keeps its noise levels and its prediction type: each time of vfbench maps to its timestep of nearest
signal-to-noise ratio. The conditioning vector replaces its class embedding, through a linear layer whose weight starts
at zero. The bias starts at zero, so that a model without classes is unchanged at first, or at the mean of the class
embeddings of a model with classes, which stands for no class in particular.

Dropout is set to 0. It would draw from torch's global generator, whose state a training does not save, so a resumed
training would differ; and a frozen model in training mode would drop units as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from vfbench.diffusion.schedule import Prediction, Schedule, to_prediction
from vfbench.errors import BadEnvironment, MissingData, UserError
from vfbench.interfaces import ClipShape
from vfbench.utils import files, memory

ImageParametrisation = Literal["eps", "v", "x0"]
_PREDICTION_TYPES: Mapping[str, ImageParametrisation] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
CONDITIONING_PREFIX = "base.network.class_embedding."  # of the weights that the pretrained model does not have
_NOISE_FIELDS = (  # fields of a scheduler that determine its noise levels
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"),
)
_OVERRIDES: Mapping[str, Any] = {"num_class_embeds": None, "dropout": 0.0}
FILES = ["*.json", "unet/*.json", "scheduler/*.json", "*model.safetensors", "unet/*model.safetensors"]


def image_prediction(output: Tensor, z: Tensor, alpha_bar: Tensor, parametrisation: ImageParametrisation) -> Prediction:
    """Read an image model's output as eps, v or x0: z = sqrt(a_t) x0 + sqrt(1 - a_t) eps."""
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if parametrisation == "x0":
        return Prediction(x0=output, eps=(z - signal * output) / noise)
    return to_prediction(output, z, signal, noise, parametrisation)


class HubBase(nn.Module):
    """A `UNet2DModel` with the interface of the image U-Net of `vfbench.nets.unet`.

    `model` and `scheduler` are the diffusers configurations of the network and of its noise levels, `width` the width
    of a conditioning vector and `schedule` the noise schedule of VideoFusion.
    """

    timestep: Tensor

    def __init__(self, model: Mapping[str, Any], scheduler: Mapping[str, Any], width: int, schedule: Schedule) -> None:
        super().__init__()
        self.parametrisation = _PREDICTION_TYPES[scheduler["prediction_type"]]
        self.network: nn.Module = _diffusers().UNet2DModel.from_config(model)
        time_width = self.network.get_submodule("time_embedding.linear_2").out_features
        assert isinstance(time_width, int)
        conditioning_layer = nn.Linear(width, time_width)
        nn.init.zeros_(conditioning_layer.weight)
        nn.init.zeros_(conditioning_layer.bias)
        self.network.class_embedding = conditioning_layer
        timesteps = nearest_timesteps(schedule.alpha_bar, scheduler_alpha_bar(scheduler))
        self.register_buffer("timestep", timesteps, persistent=False)

    def forward(self, frame: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """The output (B, 1, 3, H, W) for `frame` (B, 1, 3, H, W), vfbench's times `t` (B,) and `cond` (B, width)."""
        output: Tensor = self.network(frame[:, 0], self.timestep[t], class_labels=cond, return_dict=False)[0]
        return output[:, None]


def scheduler_alpha_bar(scheduler: Mapping[str, Any]) -> Tensor:
    """alpha_bar of each timestep of a diffusers scheduler, (steps,) in float64, decreasing."""
    fields = {name: scheduler[name] for name in _NOISE_FIELDS if name in scheduler}
    alpha_bar: Tensor = _diffusers().DDPMScheduler(**fields).alphas_cumprod.double()
    return alpha_bar


def nearest_timesteps(ours: Tensor, theirs: Tensor) -> Tensor:
    """For each alpha_bar of `ours`, the index of the one in `theirs` with the nearest log signal-to-noise ratio."""
    our_log_snr, their_log_snr = ((a / (1 - a)).log() for a in (ours, theirs))
    return (our_log_snr[:, None] - their_log_snr).abs().argmin(dim=1)


class HubBaseCheckpoint(NamedTuple):
    """A pretrained model: configurations of the network and of its noise levels, and weights by name."""

    model: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    state: Mapping[str, Tensor]


def load(folder: Path, shape: ClipShape) -> HubBaseCheckpoint:
    """Read the `UNet2DModel` of a folder, at its top or in the pipeline part `unet`, for frames of the shape's size.

    Raises `MissingData` where a file is missing or unreadable, and `UserError` where the model does not fit.
    """
    network_folder = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    model, scheduler = _read_model_config(network_folder / "config.json", shape), _read_scheduler_config(folder)
    try:
        with memory.require_memory(str(network_folder)):
            network = _diffusers().UNet2DModel.from_pretrained(network_folder, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise MissingData(f"{network_folder} holds no readable UNet2DModel as safetensors ({error})") from error
    state = network.state_dict()
    if (classes := state.pop("class_embedding.weight", None)) is not None:
        state["class_embedding.bias"] = classes.mean(dim=0)
    return HubBaseCheckpoint(model, scheduler, state)


def _read_model_config(path: Path, shape: ClipShape) -> dict[str, Any]:
    """The fields of a `config.json`; raises `UserError` naming a field that does not fit RGB frames of the shape."""
    content = files.read_json(path)
    if content.get("_class_name") != "UNet2DModel":
        raise UserError(f"{path} describes a '{content.get('_class_name')}': choose a UNet2DModel as base generator")
    for name in ("in_channels", "out_channels"):
        if content.get(name, 3) != 3:
            raise UserError(f"{path} has {name} {content[name]}: a base generator needs the 3 of RGB")
    side = content.get("sample_size") or [shape.height, shape.width]
    size = (side, side) if isinstance(side, int) else tuple(side) if isinstance(side, list) else (side,)
    if len(size) != 2:
        raise UserError(f"{path} has sample_size {side}: a base generator needs a height and a width")
    if size != (shape.height, shape.width):
        raise UserError(f"{path} makes images of {size[0]}x{size[1]}, the dataset has {shape.height}x{shape.width}")
    if (kind := content.get("class_embed_type")) is not None:
        raise UserError(f"{path} has class_embed_type '{kind}': a base generator needs a class table, or no classes")
    fields = {name: value for name, value in content.items() if not name.startswith("_")}
    return {**fields, **_OVERRIDES}


def _read_scheduler_config(folder: Path) -> dict[str, Any]:
    """The fields of a scheduler for noise levels and prediction type; missing ones have the defaults of diffusers."""
    paths = [folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise MissingData(f"no scheduler_config.json in {folder}, which has the noise levels: save the pipeline whole")
    content = files.read_json(path)
    if "beta_schedule" not in content:
        raise UserError(f"{path} is of '{content.get('_class_name')}', which has no beta_schedule: choose a DDPM model")
    prediction = content.get("prediction_type", "epsilon")
    if prediction not in tuple(_PREDICTION_TYPES):
        raise UserError(f"{path} has prediction_type '{prediction}': known are {', '.join(_PREDICTION_TYPES)}")
    return {"prediction_type": prediction, **{name: content[name] for name in _NOISE_FIELDS if name in content}}


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise BadEnvironment(
            "a UNet2DModel as base generator needs diffusers: pip install 'vfbench[diffusers]'"
        ) from error
    return diffusers
