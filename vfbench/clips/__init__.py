"""Clips on disk, read from any folder: detect the layout, read frames, hash content, compare two folders.

    videos     folder/[any depth/][class/]clip.mp4     also animated .gif, .webp and .apng
    frames     folder/[class/]clip/0001.png            png or jpg, one or two levels
    arrays     folder/samples.npz                      uint8 (B, T, H, W, 3), any depth
    features   folder/features.safetensors             floats (N, D), .npy and .npz as well

Clips are in natural order (`frame_9` before `frame_10`). Files that are not clips are listed in the notes; two layouts
in one folder raise an error. Hidden folders, `__MACOSX` and split lists are skipped.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vfbench.clips.fingerprint import content_hash, frame_warnings, mismatches, require_frame_sizes, too_short
    from vfbench.clips.layout import DEEP_HASH, LIGHT_HASH, ClipFile, ClipFolder, HashDepth, detect
    from vfbench.clips.probe import measure_all
    from vfbench.clips.read import (
        START_CHOICES,
        count_frames,
        decoder_versions,
        measure,
        read_clip,
        read_clips,
        read_features,
        read_frames,
        resolution,
        row_sources,
    )
    from vfbench.clips.text import class_caption, first_few, natural_key

_NAMES = {  # of each module
    "fingerprint": ("content_hash", "frame_warnings", "mismatches", "require_frame_sizes", "too_short"),
    "layout": ("ClipFile", "ClipFolder", "DEEP_HASH", "HashDepth", "LIGHT_HASH", "detect"),
    "probe": ("measure_all",),
    "read": (
        "START_CHOICES",
        "count_frames",
        "decoder_versions",
        "measure",
        "read_clip",
        "read_clips",
        "read_features",
        "read_frames",
        "resolution",
        "row_sources",
    ),
    "text": ("class_caption", "first_few", "natural_key"),
}


def __getattr__(name: str) -> object:
    """Import the module of a name on first use: file names are listed without torch, which takes seconds to import."""
    module = next((module for module, names in _NAMES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


__all__ = [
    "DEEP_HASH",
    "LIGHT_HASH",
    "START_CHOICES",
    "ClipFile",
    "ClipFolder",
    "HashDepth",
    "class_caption",
    "content_hash",
    "count_frames",
    "decoder_versions",
    "detect",
    "first_few",
    "frame_warnings",
    "measure",
    "measure_all",
    "mismatches",
    "natural_key",
    "read_clip",
    "read_clips",
    "read_features",
    "read_frames",
    "require_frame_sizes",
    "resolution",
    "row_sources",
    "too_short",
]
