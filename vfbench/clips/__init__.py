"""Clips that others made, read from any folder: what is there, its frames, its hash, and whether two sides compare.

    videos     folder/[any depth/][class/]clip.mp4
    frames     folder/[class/]clip/0001.png            png or jpg, one or two levels
    arrays     folder/samples.npz                      uint8 (B, T, H, W, 3), any depth
    features   folder/features.safetensors             floats (N, D), .npy and .npz as well

The order is natural (`frame_9` before `frame_10`). Nothing is passed over in silence: what is no clip is in the notes,
and two layouts in one folder are refused. Hidden folders, `__MACOSX` and split lists are not entered.
"""

from vfbench.clips.fingerprint import DEEP, LIGHT, Depth, content_hash, mismatches, too_short
from vfbench.clips.layout import ClipFile, ClipFolder, detect
from vfbench.clips.probe import measures
from vfbench.clips.read import STARTS, clip, clips, count, decoder, features, measure, read, resolution
from vfbench.clips.text import few, in_words, natural, printable

__all__ = [
    "DEEP",
    "LIGHT",
    "STARTS",
    "ClipFile",
    "ClipFolder",
    "Depth",
    "clip",
    "clips",
    "content_hash",
    "count",
    "decoder",
    "detect",
    "features",
    "few",
    "in_words",
    "measure",
    "measures",
    "mismatches",
    "natural",
    "printable",
    "read",
    "resolution",
    "too_short",
]
