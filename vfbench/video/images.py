"""Pictures as pixels, decoded by Pillow: the images of a frame folder and the frames of an animation.

Pixels are as stored: an EXIF orientation is ignored, as Pillow and torchvision do. Only frames of a video are rotated,
by its display matrix; FFmpeg gives a JPEG inside a video such a matrix for its EXIF orientation.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from vfbench.errors import MissingData, UserError
from vfbench.utils.files import require_file
from vfbench.video.properties import MAX_PIXELS, TooLarge, require_size
from vfbench.video.rotation import Pixels

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # none of them can run a program
MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1")  # of 8 bits or less


@contextlib.contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[ImageFile.ImageFile]:
    """Context manager: an image or animation, opened by Pillow but not decoded.

    Errors of a damaged file become `MissingData` naming it, here and within; so do frames beyond `MAX_PIXELS`.
    """
    require_file(path)
    try:
        # Opened here, because Pillow leaves a damaged file open.
        with Path(path).open("rb") as file, Image.open(file, formats=FORMATS) as image:
            require_size(path, *image.size)
            yield image
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = f"{error}; the limit is {MAX_PIXELS:,} pixels"
        raise TooLarge(f"{os.fspath(path)}: {reason}; make it smaller or take it out") from error
    except Exception as error:  # Pillow's readers raise many errors for damaged files
        raise MissingData(f"{os.fspath(path)}: no readable image ({error}); get it again or take it out") from error


def read_image(path: str | os.PathLike[str]) -> Pixels:
    """Read an image as 8-bit RGB, (H, W, 3).

    Raises `MissingData` for a damaged file, 16 bits, transparency, other colour modes, and for an animated PNG.
    """
    with open_image(path) as image:
        if image.format == "PNG" and getattr(image, "is_animated", False):
            raise MissingData(f"{os.fspath(path)} is an animation: name it .apng, so that all its frames are read")
        return to_pixels(image, os.fspath(path))


def to_pixels(image: ImageFile.ImageFile, name: str) -> Pixels:
    """Pixels of the current frame of an image; `name` is for messages. Raises `MissingData` like `read_image`."""
    is_16_bit = any(";16" in str(part[3]) for part in image.tile)  # Pillow would cut it to 8 bits
    image.load()
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise MissingData(f"{name} is transparent: save it again as RGB, over the intended background")
    if is_16_bit or image.mode not in MODES:
        mode = f"{image.mode}{' of 16 bits' * is_16_bit}"
        raise MissingData(f"{name} is {mode}, needed: RGB or grey of 8 bits; save it again as such")
    return np.array(image.convert("RGB"))
