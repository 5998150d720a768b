"""Crop and conditioning of training clips, as a dataset supports them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from vfbench.clips.inventory import inventory_of
from vfbench.errors import UserError
from vfbench.interfaces import Clips, Conditioning, Dataset, Split
from vfbench.training.options import CONDITIONS, TrainOptions

# Classifier-free guidance needs some clips without conditioning; the others let one model take captions and classes.
_DEFAULT_PROBS: Mapping[Conditioning, float] = {"text": 0.8, "class": 0.1, "none": 0.1}
_SINGLE_PROB, _NONE_PROB = 0.9, 0.1  # for a dataset with captions or classes alone


@runtime_checkable
class RandomCropDataset(Protocol):
    """Dataset that crops training clips at random from real videos."""

    def draw(self, split: Split, indices: Sequence[int], seeds: Sequence[int], *, crop: str, flip: bool) -> Clips:
        """One clip from each video, uint8 (B, T, 3, H, W), determined by the seed of that clip."""
        ...


class CropOptions(NamedTuple):
    """Crop (`random` or `centre`) and horizontal flip of training clips that are cut from real videos."""

    crop: str = "random"
    flip: bool = True


def crop_options(dataset: Dataset, options: TrainOptions) -> CropOptions | None:
    """Arguments of `RandomCropDataset.draw`; None for other datasets.

    Raises `UserError` for an option that the dataset does not support.
    """
    if not isinstance(dataset, RandomCropDataset):
        for name in CropOptions._fields:
            if getattr(options, name) is not None:
                raise UserError(f"--{name}: {dataset.name} has no videos to crop; leave out --{name}")
        return None
    default = CropOptions()
    flip = default.flip if options.flip is None else options.flip
    inventory = inventory_of(dataset)
    if inventory is None or not inventory.fitted:
        return CropOptions(options.crop or default.crop, flip)
    if options.crop == "random":
        raise UserError(
            f"--crop random: {dataset.name} was prepared, and is cropped already; leave out --crop, or give "
            "--data-root with the original videos"
        )
    return CropOptions("centre", flip)  # equal to the centre crop of the original videos


def conditioning_probs(dataset: Dataset, options: TrainOptions) -> dict[Conditioning, float]:
    """Probability of each kind of conditioning for a training clip: text, class, none, in this order.

    Raises `UserError` for a kind that the dataset does not have.
    """
    available = {"text": bool(dataset.words), "class": bool(dataset.classes), "none": True}
    weights = options.conditions or _default_weights(available)
    for name, weight in weights.items():
        if weight and not available[name]:
            lacking = {"text": "captions", "class": "classes"}[name]
            raise UserError(f"--conditions {name}={weight:g}: {dataset.name} has no {lacking}; leave out {name}")
    total = sum(weights.values())
    return {name: weights.get(name, 0.0) / total for name in CONDITIONS}


def _default_weights(available: Mapping[str, bool]) -> Mapping[str, float]:
    kinds = [name for name, has_it in available.items() if has_it and name != "none"]
    if len(kinds) == 2:
        return {str(name): weight for name, weight in _DEFAULT_PROBS.items()}
    return {**dict.fromkeys(kinds, _SINGLE_PROB), "none": _NONE_PROB}
