"""Moving Shapes: the embedded dataset, rendered from its index, so that the main job needs no download.

A clip shows one coloured shape with a dark mark (so that a circle can be seen to spin) over a textured background.
Every attribute is a function of the clip's index through an integer hash, and pixels use only correctly rounded
arithmetic, so that the same index gives the same bytes on every machine. The class is motion x shape; the caption names
every attribute: "a small red triangle moves left over blue stripes".
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vfbench.errors import UserError
from vfbench.interfaces import Clips, ClipShape, Split
from vfbench.protocol.protocol import JUDGED

SHAPES = ("circle", "square", "triangle")
MOTIONS = (
    "moves left",
    "moves right",
    "moves up",
    "moves down",
    "spins clockwise",
    "spins counterclockwise",
    "grows",
    "shrinks",
    "bounces",
    "stays still",
)
SIZES = {"small": 0.14, "large": 0.22}  # radius as a part of the short side
TEXTURES = ("stripes", "checks", "dots", "gradient")
COLOURS = {
    "red": (230, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (240, 225, 60),
    "green": (50, 190, 70),
    "cyan": (60, 210, 225),
    "blue": (60, 90, 235),
    "pink": (235, 90, 200),
    "white": (240, 240, 240),
}
MARK = 20.0  # the grey level of the mark
CLASSES = tuple(f"{shape} {motion}" for motion in MOTIONS for shape in SHAPES)
# Train and test are two ranges of one index space, so no clip can be in both.
RANGES: dict[Split, range] = {"train": range(0, 1 << 20), "test": range(1 << 20, (1 << 20) + (1 << 17))}
# Every value in float64, against 2,048 real clips of the train split.
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "shapes": {
        "start": "zero",
        "geometry": "native",
        "filter": "none",
        "antialias": False,
        "n_real": 2048,
        "measures": JUDGED,
    }
}
# What a preset of the field, made for real video, cannot ask of these clips: they are drawn, at the size asked for.
SETTLED: Mapping[str, Any] = {
    "height": 32,
    "width": 32,
    "stride": 1,
    "start": "zero",
    "geometry": "native",
    "filter": "none",
    "antialias": False,
}
VERSION = 1  # raise it whenever a pixel of any clip changes: it is part of the fingerprint
BATCH = 32  # clips rendered at once: the working set stays in a core's cache


def build(*, frames: int = 16, height: int = 32, width: int = 32) -> Shapes:
    """The dataset at any length and resolution; `train` holds 2^20 clips and `test` 2^17."""
    if frames < 1 or min(height, width) < 8:
        raise UserError(f"shapes: {frames}x{height}x{width} is too small: at least 1 frame of 8x8 pixels")
    return Shapes(ClipShape(frames, height, width))


@dataclass(frozen=True)
class Scene:
    """The attributes of a batch of clips, each an integer tensor (B,) into the tables above."""

    motion: Tensor
    shape: Tensor
    colour: Tensor
    size: Tensor
    texture: Tensor
    ground: Tensor
    jitter: Tensor  # (B, 3) in 0..255: place across, place along, phase of the texture


def describe(index: Tensor) -> Scene:
    """The scene of each global index (B,). Each run of 30 indices holds every class once, in a hashed order."""
    block = index // len(CLASSES)
    label = (index * 7 + _hash(block, 0)) % len(CLASSES)
    colour = _hash(index, 1) % len(COLOURS)
    ground = (colour + 1 + _hash(index, 2) % (len(COLOURS) - 1)) % len(COLOURS)  # never the shape's own colour
    return Scene(
        motion=label // len(SHAPES),
        shape=label % len(SHAPES),
        colour=colour,
        size=_hash(index, 3) % len(SIZES),
        texture=_hash(index, 4) % len(TEXTURES),
        ground=ground,
        jitter=torch.stack([_hash(index, salt) & 255 for salt in (5, 6, 7)], dim=1),
    )


def _hash(index: Tensor, salt: int) -> Tensor:
    """32 well-mixed bits of (index, salt): the murmur3 finaliser in wrapping int64 arithmetic."""
    h = (index * 0x9E3779B1 + salt * 0x7F4A7C15 + 0x165667B1) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = ((h ^ (h >> shift)) * factor) & 0xFFFFFFFF
    return h ^ (h >> 16)


class Shapes:
    """Moving Shapes at one length and resolution (see the module's text)."""

    name = "shapes"
    classes = CLASSES
    words = tuple(
        sorted(
            {w for words in (MOTIONS, SHAPES, SIZES, TEXTURES, COLOURS, ("a over",)) for s in words for w in s.split()}
        )
    )

    def __init__(self, shape: ClipShape) -> None:
        self.shape = shape
        self.fingerprint = hashlib.sha256(f"shapes/{VERSION}/{shape}".encode()).hexdigest()

    def size(self, split: Split) -> int:
        """How many clips the split holds."""
        return len(RANGES[split])

    def clips(self, split: Split, indices: Sequence[int], device: torch.device | None = None) -> Clips:
        """The clips at `indices`, uint8 (B, T, 3, H, W), rendered on `device`."""
        index = self._global(split, indices).to(device)
        return torch.cat([render(describe(part), self.shape) for part in torch.split(index, BATCH)])

    def labels(self, split: Split, indices: Sequence[int]) -> list[int]:
        """The class of each clip, an index into `classes`."""
        scene = describe(self._global(split, indices))
        return [int(label) for label in scene.motion * len(SHAPES) + scene.shape]

    def captions(self, split: Split, indices: Sequence[int]) -> list[str]:
        """The caption of each clip, naming all its attributes."""
        scene = describe(self._global(split, indices))
        colours, sizes = list(COLOURS), list(SIZES)
        phrase = "a {} {} {} {} over {} {}".format
        return [
            phrase(sizes[size], colours[colour], SHAPES[shape], MOTIONS[motion], colours[ground], TEXTURES[texture])
            for size, colour, shape, motion, ground, texture in zip(
                scene.size, scene.colour, scene.shape, scene.motion, scene.ground, scene.texture, strict=True
            )
        ]

    def _global(self, split: Split, indices: Sequence[int]) -> Tensor:
        return torch.tensor([RANGES[split][i] for i in indices], dtype=torch.int64)


def render(scene: Scene, shape: ClipShape) -> Clips:
    """Draw the scenes, uint8 (B, T, 3, H, W), on the device of their tensors.

    Coordinates are in units of the short side. Only + - * / sqrt, min, max and comparisons touch pixels: these are
    correctly rounded by IEEE 754, so the bytes agree across machines; sines come from the host's table in `_rotation`.
    """
    device = scene.shape.device
    short = min(shape.height, shape.width)
    # Divided on the host: CUDA divides by a number through its reciprocal, which rounds differently.
    y = ((torch.arange(shape.height) + 0.5) / short).to(device)
    x = ((torch.arange(shape.width) + 0.5) / short).to(device)
    palette = torch.tensor(list(COLOURS.values()), device=device, dtype=torch.float32)
    ground = _background(scene, palette[scene.ground], y, x)[:, None]  # (B, 1, 3, H, W): it does not move
    body, mark = _masks(scene, shape, y, x)  # (B, T, H, W) in [0, 1]
    # Three layers, back to front; the sums are kept per colour so that each pixel is touched as seldom as possible.
    lit = (body - body * mark)[:, :, None]
    clips = ground * (1.0 - body)[:, :, None]
    clips += lit * palette[scene.colour][:, None, :, None, None]
    clips += (body * mark * MARK)[:, :, None]
    return clips.add_(0.5).to(torch.uint8)  # all values lie in 0..255, so adding a half and cutting rounds


def _masks(scene: Scene, shape: ClipShape, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each pixel the shape and its mark cover, (B, T, H, W), edges one pixel soft."""
    centre_x, centre_y, radius, cos, sin = _trajectory(scene, shape)
    dx = (x - centre_x[..., None]) / radius[..., None]  # (B, T, W)
    dy = (y - centre_y[..., None]) / radius[..., None]  # (B, T, H)
    u = (cos[..., None] * dx)[:, :, None, :] + (sin[..., None] * dy)[:, :, :, None]
    v = (cos[..., None] * dy)[:, :, :, None] - (sin[..., None] * dx)[:, :, None, :]
    softness = (radius * min(shape.height, shape.width))[..., None, None]
    distance = torch.empty_like(u)
    for kind, outline in enumerate((_circle, _square, _triangle)):
        chosen = (scene.shape == kind).nonzero()[:, 0]
        distance[chosen] = outline(u[chosen], v[chosen])
    hand = torch.maximum(u.abs() - 0.18, (v + 0.35).abs() - 0.4)  # a clock's hand from the centre upwards
    return _cover(distance, softness), _cover(hand, softness)


def _cover(distance: Tensor, softness: Tensor) -> Tensor:
    """Signed distance in radii to coverage: 1 inside, 0 outside, linear over one pixel."""
    return distance.mul_(-softness).add_(0.5).clamp_(0.0, 1.0)


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return (u * u + v * v).sqrt_() - 1.0


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.85


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(v, u.abs() * 0.8660254 - v * 0.5) - 0.6


def _trajectory(scene: Scene, shape: ClipShape) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Centre x and y, radius, and cosine and sine of the turn for every frame, each (B, T)."""
    device = scene.motion.device
    short = min(shape.height, shape.width)
    time = (torch.arange(shape.frames) / max(shape.frames - 1, 1)).to(device)
    travel = time - 0.5  # -1/2 .. 1/2 over the clip
    fall = (time * 2.0) % 1.0
    bounce = 0.22 - 1.76 * fall * (1.0 - fall)  # two arcs over the clip, 0.22 below the middle to 0.22 above
    still = torch.zeros_like(time)
    table = {
        "moves left": (-0.5 * travel, still, still),
        "moves right": (0.5 * travel, still, still),
        "moves up": (still, -0.5 * travel, still),
        "moves down": (still, 0.5 * travel, still),
        "grows": (still, still, 0.9 * travel),
        "shrinks": (still, still, -0.9 * travel),
        "bounces": (still, bounce, still),
    }
    rows = torch.stack([torch.stack(table.get(motion, (still, still, still))) for motion in MOTIONS])
    moved = rows[scene.motion]  # (B, 3, T)
    place = (torch.arange(256) / 255 - 0.5).to(device)[scene.jitter[:, :2]] * 0.2
    centre_x = shape.width / short * 0.5 + place[:, 0, None] + moved[:, 0]
    centre_y = shape.height / short * 0.5 + place[:, 1, None] + moved[:, 1]
    sizes = torch.tensor(list(SIZES.values()), device=device, dtype=torch.float32)
    radius = sizes[scene.size, None] * (1.0 + moved[:, 2])
    cos, sin = _rotation(shape.frames)
    return centre_x, centre_y, radius, cos.to(device)[scene.motion], sin.to(device)[scene.motion]


def _rotation(frames: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the turn, (motions, T), three eighths of a turn over the clip.

    Rounded to multiples of 2^-12, which hides the last-digit differences between maths libraries.
    """
    direction = [{"spins clockwise": 1, "spins counterclockwise": -1}.get(motion, 0) for motion in MOTIONS]
    angles = [[0.75 * math.pi * sign * t / max(frames - 1, 1) for t in range(frames)] for sign in direction]
    cos = [[round(math.cos(angle) * 4096) / 4096 for angle in row] for row in angles]
    sin = [[round(math.sin(angle) * 4096) / 4096 for angle in row] for row in angles]
    return torch.tensor(cos), torch.tensor(sin)


def _background(scene: Scene, colour: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The texture behind the shape, (B, 3, H, W): two shades of one colour, eight cells across."""
    phase = (scene.jitter[:, 2, None] & 3).float() / 16.0
    col = (x + phase) * 8.0  # (B, W)
    row = (y + phase) * 8.0
    col_odd, row_odd = (col.floor() % 2)[:, None, :], (row.floor() % 2)[:, :, None]
    dot_x, dot_y = (col % 2 - 1.0)[:, None, :], (row % 2 - 1.0)[:, :, None]
    stripes = col_odd + 0.0 * row_odd
    checks = (col_odd - row_odd).abs()
    dots = (dot_x * dot_x + dot_y * dot_y < 0.5).float()
    gradient = (y / y[-1])[None, :, None] + 0.0 * col_odd
    pattern = torch.stack([stripes, checks, dots, gradient], dim=1)[torch.arange(len(colour)), scene.texture]
    return colour[:, :, None, None] * (0.3 + 0.3 * pattern)[:, None]
