"""Decode, encode and preview video; convert float pixels to bytes, here and nowhere else.

A clip is uint8 RGB (T, 3, H, W). Frames keep the order of the decoder: sorting by time stamp would shuffle the B-frames
of AVI files. No frame is repeated or replaced by another.
"""

from vfbench.utils.options import DECODERS
from vfbench.video.contact_sheet import BACKGROUND, FONT_SIZE, GAP, TEXT_GREY, write_preview, write_sheet, write_webp
from vfbench.video.decode import choose_decoder, count_frames, decode, decoder_version, frame_groups
from vfbench.video.header import check_complete, header
from vfbench.video.pixels import NotFinitePixels, require_byte_range, to_bytes, to_uint8
from vfbench.video.properties import Header
from vfbench.video.rotation import Pixels

__all__ = [
    "BACKGROUND",
    "DECODERS",
    "FONT_SIZE",
    "GAP",
    "TEXT_GREY",
    "Header",
    "NotFinitePixels",
    "Pixels",
    "check_complete",
    "choose_decoder",
    "count_frames",
    "decode",
    "decoder_version",
    "frame_groups",
    "header",
    "require_byte_range",
    "to_bytes",
    "to_uint8",
    "write_preview",
    "write_sheet",
    "write_webp",
]
