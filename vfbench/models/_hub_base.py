"""A pretrained image diffusion model of diffusers as VideoFusion's base generator: a `UNet2DModel`.

The model keeps its noise levels and its prediction type: each time of vfbench maps to its timestep of nearest
signal-to-noise ratio. The conditioning vector replaces its class embedding, through a linear layer whose weight starts
at zero. The bias starts at zero, so that a model without classes is unchanged at first, or at the mean of the class
embeddings of a model with classes, which stands for no class in particular. `vfbench.models._unclip_base` takes the
decoders of the unCLIP family in the same way.

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
CONDITIONING_PREFIX = "base.conditioning."  # of the weights that the pretrained model does not have
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
    """An image model of diffusers with the interface of the image U-Net of `vfbench.nets.unet`.

    `network` is the model, `scheduler` the diffusers configuration of its noise levels, `schedule` the noise schedule
    of VideoFusion. The layer `conditioning` maps a conditioning vector (B, width) to the vector (B, inputs) that the
    model reads in its place.
    """

    timestep: Tensor

    def __init__(
        self, network: nn.Module, scheduler: Mapping[str, Any], schedule: Schedule, width: int, inputs: int
    ) -> None:
        super().__init__()
        self.parametrisation = _PREDICTION_TYPES[scheduler["prediction_type"]]
        self.network = network
        self.conditioning = nn.Linear(width, inputs)
        nn.init.zeros_(self.conditioning.weight)
        nn.init.zeros_(self.conditioning.bias)
        timesteps = nearest_timesteps(schedule.alpha_bar, scheduler_alpha_bar(scheduler))
        self.register_buffer("timestep", timesteps, persistent=False)

    def forward(self, frame: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """The output (B, 1, 3, H, W) for `frame` (B, 1, 3, H, W), vfbench's times `t` (B,) and `cond` (B, width)."""
        output = self.denoise(frame[:, 0], self.timestep[t], self.conditioning(cond))
        return output[:, None]

    def denoise(self, image: Tensor, timestep: Tensor, cond: Tensor) -> Tensor:
        """The output of the network (B, 3, H, W), given what stands in the place of the conditioning vector."""
        raise NotImplementedError


class HubUNet(HubBase):
    """A `UNet2DModel`; `options` are those of `load`: the network's configuration `hub`, and its `scheduler`."""

    def __init__(self, options: Mapping[str, Any], width: int, schedule: Schedule) -> None:
        network = diffusers().UNet2DModel.from_config(options["hub"])
        time_width = network.time_embedding.linear_2.out_features
        super().__init__(network, options["scheduler"], schedule, width, time_width)
        network.class_embedding = nn.Identity()

    def denoise(self, image: Tensor, timestep: Tensor, cond: Tensor) -> Tensor:
        """The network's output; `cond` is added to the embedding of the time."""
        output: Tensor = self.network(image, timestep, class_labels=cond, return_dict=False)[0]
        return output


def scheduler_alpha_bar(scheduler: Mapping[str, Any]) -> Tensor:
    """alpha_bar of each timestep of a diffusers scheduler, (steps,) in float64, decreasing."""
    fields = {name: scheduler[name] for name in _NOISE_FIELDS if name in scheduler}
    alpha_bar: Tensor = diffusers().DDPMScheduler(**fields).alphas_cumprod.double()
    return alpha_bar


def nearest_timesteps(ours: Tensor, theirs: Tensor) -> Tensor:
    """For each alpha_bar of `ours`, the index of the one in `theirs` with the nearest log signal-to-noise ratio."""
    our_log_snr, their_log_snr = ((a / (1 - a)).log() for a in (ours, theirs))
    return (our_log_snr[:, None] - their_log_snr).abs().argmin(dim=1)


class HubBaseCheckpoint(NamedTuple):
    """A pretrained model: its configuration, as in the option `base`, and weights by their names in the model."""

    options: Mapping[str, Any]
    state: Mapping[str, Tensor]


def load(folder: Path, shape: ClipShape) -> HubBaseCheckpoint:
    """Read the `UNet2DModel` of a folder, at its top or in the pipeline part `unet`, for frames of the shape's size.

    Raises `MissingData` where a file is missing or unreadable, and `UserError` where the model does not fit.
    """
    network_folder = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    model = read_model_config(network_folder / "config.json", shape, "UNet2DModel")
    if (kind := model.get("class_embed_type")) is not None:
        path = network_folder / "config.json"
        raise UserError(f"{path} has class_embed_type '{kind}': a base generator needs a class table, or no classes")
    scheduler = read_scheduler_config(folder, "scheduler")
    weights = read_part(diffusers().UNet2DModel, network_folder).state_dict()
    classes = weights.pop("class_embedding.weight", None)
    state = {f"network.{name}": tensor for name, tensor in weights.items()}
    if classes is not None:
        state["conditioning.bias"] = classes.mean(dim=0)
    return HubBaseCheckpoint({"hub": {**model, **_OVERRIDES}, "scheduler": scheduler}, state)


def read_part(kind: Any, folder: Path) -> Any:
    """A part of a pipeline, of the class `kind`; raises `MissingData` where it cannot be read."""
    try:
        with memory.require_memory(str(folder)):
            return kind.from_pretrained(folder, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise MissingData(f"{folder} holds no readable {kind.__name__} as safetensors ({error})") from error


def read_model_config(path: Path, shape: ClipShape, kind: str, outputs: int = 3) -> dict[str, Any]:
    """The fields of a `config.json`; raises `UserError` naming a field that does not fit RGB frames of the shape."""
    content = files.read_json(path)
    if content.get("_class_name") != kind:
        raise UserError(f"{path} describes a '{content.get('_class_name')}': choose a {kind} as base generator")
    for name, channels in (("in_channels", 3), ("out_channels", outputs)):
        if content.get(name, 3) != channels:
            raise UserError(f"{path} has {name} {content.get(name, 3)}: a base generator of RGB needs {channels}")
    side = content.get("sample_size") or [shape.height, shape.width]
    size = (side, side) if isinstance(side, int) else tuple(side) if isinstance(side, list) else (side,)
    if len(size) != 2:
        raise UserError(f"{path} has sample_size {side}: a base generator needs a height and a width")
    if size != (shape.height, shape.width):
        raise UserError(f"{path} makes images of {size[0]}x{size[1]}, the dataset has {shape.height}x{shape.width}")
    return {name: value for name, value in content.items() if not name.startswith("_")}


def read_scheduler_config(folder: Path, part: str) -> dict[str, Any]:
    """The fields of a scheduler for noise levels and prediction type; missing ones have the defaults of diffusers.

    `part` is the folder of the scheduler in a pipeline.
    """
    paths = [folder / part / "scheduler_config.json", folder / "scheduler_config.json"]
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


def diffusers() -> Any:
    """The library; raises `BadEnvironment` where it is not installed."""
    try:
        import diffusers as library
    except ImportError as error:
        raise BadEnvironment(
            "a base generator of diffusers needs diffusers: pip install 'vfbench[diffusers]'"
        ) from error
    return library
