"""Video files and pixels: the only codec, and the only place where floats become bytes.

A clip is uint8 RGB (T, 3, H, W), as everywhere in vfbench. Frames come in the order in which the decoder gives them:
sorting by time stamp would shuffle the B-frames of AVI files. No frame is ever repeated or replaced by another.
"""

from vfbench.video.contact_sheet import FONT_SIZE, GAP, INK, PAPER, write_preview, write_sheet, write_webp
from vfbench.video.decode import DECODERS, chosen, count_frames, decode, frames, version
from vfbench.video.header import Header, check_whole, header
from vfbench.video.pixels import checked, to_bytes, to_uint8
from vfbench.video.rotation import Pixels

__all__ = [
    "DECODERS",
    "FONT_SIZE",
    "GAP",
    "INK",
    "PAPER",
    "Header",
    "Pixels",
    "check_whole",
    "checked",
    "chosen",
    "count_frames",
    "decode",
    "frames",
    "header",
    "to_bytes",
    "to_uint8",
    "version",
    "write_preview",
    "write_sheet",
    "write_webp",
]
