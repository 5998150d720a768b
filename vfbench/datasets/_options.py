"""Options that the datasets of real videos share, each with its choices and purpose; imports no torch."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from vfbench.protocol.protocol import CHOICES
from vfbench.utils.options import DECODERS

SHORT_CHOICES = ("refuse", "skip")

Root: TypeAlias = Annotated[str | None, "Folder of the dataset, or one above it; VFBENCH_DATA by default."]
Frames: TypeAlias = Annotated[int, "Frames of a clip."]
Height: TypeAlias = Annotated[int, "Height of a clip in pixels."]
Width: TypeAlias = Annotated[int, "Width of a clip in pixels."]
Stride: TypeAlias = Annotated[int, "Distance of the frames of a clip, in frames of the video."]
DropFirst: TypeAlias = Annotated[int, "Frames to leave out at the start of a video."]
Start: TypeAlias = Annotated[
    str, CHOICES["start"], "First frame of a clip; every and chunks give several clips of a video."
]
Geometry: TypeAlias = Annotated[
    str, CHOICES["geometry"], "What is cut from a frame, and whether before it is resized; see Datasets in the docs."
]
Filter: TypeAlias = Annotated[str, CHOICES["filter"], "Filter that resizes a frame; none does not resample."]
Antialias: TypeAlias = Annotated[bool, "Widen the bilinear filter when shrinking; lanczos always does so."]
Short: TypeAlias = Annotated[str, SHORT_CHOICES, "Videos too short for a clip: raise an error, or leave them out."]
Decoder: TypeAlias = Annotated[str, DECODERS, "Decoder of video files; auto is PyAV."]
