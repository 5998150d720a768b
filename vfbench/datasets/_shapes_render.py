"""Pixels of Moving Shapes, the same bytes on every machine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vfbench.datasets._shapes_scene import COLOURS, MOTIONS, SIZES, Scene
from vfbench.interfaces import Clips, ClipShape
from vfbench.utils.device import to_device

MARK_GREY = 20.0  # grey level of the mark, 0..255


def render(scene: Scene, shape: ClipShape) -> Clips:
    """Render scenes as uint8 (B, T, 3, H, W), on the device of their tensors.

    Coordinates are in units of the short side. Pixels depend only on + - * / sqrt, min, max and comparisons, which IEEE
    754 rounds correctly, so the bytes agree across machines. `_rotation` computes sines on the CPU.
    """
    device = scene.shape.device
    short = min(shape.height, shape.width)
    # Divide on the CPU: CUDA multiplies by the reciprocal of a scalar, which rounds differently.
    y = to_device((torch.arange(shape.height) + 0.5) / short, device)
    x = to_device((torch.arange(shape.width) + 0.5) / short, device)
    palette = to_device(torch.tensor(list(COLOURS.values()), dtype=torch.float32), device)
    background = _background(scene, palette[scene.background], y, x)[:, None]  # (B, 1, 3, H, W), static
    body, mark = _masks(scene, shape, y, x)  # (B, T, H, W) in [0, 1]
    # Sum of three layers: background, shape, mark.
    lit = (body - body * mark)[:, :, None]
    clips = background * (1.0 - body)[:, :, None]
    clips += lit * palette[scene.colour][:, None, :, None, None]
    clips += (body * mark * MARK_GREY)[:, :, None]
    return clips.add_(0.5).to(torch.uint8)  # values in 0..255: add 0.5 and truncate to round


def _masks(scene: Scene, shape: ClipShape, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage of each pixel by the shape and by its mark, each (B, T, H, W) in [0, 1], with edges one pixel soft."""
    centre_x, centre_y, radius, cos, sin = _trajectory(scene, shape)
    dx = (x - centre_x[..., None]) / radius[..., None]  # (B, T, W)
    dy = (y - centre_y[..., None]) / radius[..., None]  # (B, T, H)
    u = (cos[..., None] * dx)[:, :, None, :] + (sin[..., None] * dy)[:, :, :, None]
    v = (cos[..., None] * dy)[:, :, :, None] - (sin[..., None] * dx)[:, :, None, :]
    radius_pixels = (radius * min(shape.height, shape.width))[..., None, None]
    distance = _distance(scene, u, v)
    bar = torch.maximum(u.abs() - 0.18, (v + 0.35).abs() - 0.4)  # a bar from the centre upwards, like a clock hand
    return _coverage(distance, radius_pixels), _coverage(bar, radius_pixels)


def _distance(scene: Scene, u: Tensor, v: Tensor) -> Tensor:
    """Signed distance of each pixel from the outline of its clip's shape, (B, T, H, W)."""
    outlines = (_circle, _square, _triangle)
    if u.is_cuda:  # every outline for every clip: the host would wait for the number of rows of each
        circle, square, triangle = (outline(u, v) for outline in outlines)
        shape = scene.shape[:, None, None, None]
        return torch.where(shape == 0, circle, torch.where(shape == 1, square, triangle))
    distance = torch.empty_like(u)
    for kind, outline in enumerate(outlines):
        rows = (scene.shape == kind).nonzero()[:, 0]
        distance[rows] = outline(u[rows], v[rows])
    return distance


def _coverage(distance: Tensor, radius_pixels: Tensor) -> Tensor:
    """Coverage from signed distance in radii (overwritten): 1 inside, 0 outside, linear over one pixel."""
    return distance.mul_(-radius_pixels).add_(0.5).clamp_(0.0, 1.0)


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return (u * u + v * v).sqrt_() - 1.0


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.85


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(v, u.abs() * 0.8660254 - v * 0.5) - 0.6


def _trajectory(scene: Scene, shape: ClipShape) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Centre x and y, radius, and cosine and sine of the rotation for every frame, each (B, T)."""
    device = scene.motion.device
    short = min(shape.height, shape.width)
    time = to_device(torch.arange(shape.frames) / max(shape.frames - 1, 1), device)
    travel = time - 0.5  # -0.5 to 0.5 over the clip
    phase = (time * 2.0) % 1.0
    bounce = 0.22 - 1.76 * phase * (1.0 - phase)  # two arcs over the clip, from 0.22 below the middle to 0.22 above
    zero = torch.zeros_like(time)
    changes = {  # x, y and relative radius
        "moves left": (-0.5 * travel, zero, zero),
        "moves right": (0.5 * travel, zero, zero),
        "moves up": (zero, -0.5 * travel, zero),
        "moves down": (zero, 0.5 * travel, zero),
        "grows": (zero, zero, 0.9 * travel),
        "shrinks": (zero, zero, -0.9 * travel),
        "bounces": (zero, bounce, zero),
    }
    by_motion = torch.stack([torch.stack(changes.get(motion, (zero, zero, zero))) for motion in MOTIONS])
    change = by_motion[scene.motion]  # (B, 3, T)
    offset = to_device(torch.arange(256) / 255 - 0.5, device)[scene.jitter[:, :2]] * 0.2
    centre_x = shape.width / short * 0.5 + offset[:, 0, None] + change[:, 0]
    centre_y = shape.height / short * 0.5 + offset[:, 1, None] + change[:, 1]
    sizes = to_device(torch.tensor(list(SIZES.values()), dtype=torch.float32), device)
    radius = sizes[scene.size, None] * (1.0 + change[:, 2])
    cos, sin = (to_device(values, device)[scene.motion] for values in _rotation(shape.frames))
    return centre_x, centre_y, radius, cos, sin


def _rotation(frames: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotation angle, each (motions, T); spinning shapes make 3/8 of a turn over the clip.

    Values are rounded to multiples of 2^-12, which hides last-digit differences between maths libraries.
    """
    direction = [{"spins clockwise": 1, "spins counterclockwise": -1}.get(motion, 0) for motion in MOTIONS]
    angles = [[0.75 * math.pi * sign * t / max(frames - 1, 1) for t in range(frames)] for sign in direction]
    cos = [[round(math.cos(angle) * 4096) / 4096 for angle in row] for row in angles]
    sin = [[round(math.sin(angle) * 4096) / 4096 for angle in row] for row in angles]
    return torch.tensor(cos), torch.tensor(sin)


def _background(scene: Scene, colour: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Texture behind the shape, float (B, 3, H, W): two shades of one colour, eight cells across."""
    phase = (scene.jitter[:, 2, None] & 3).float() / 16.0
    col = (x + phase) * 8.0  # (B, W)
    row = (y + phase) * 8.0
    col_odd, row_odd = (col.floor() % 2)[:, None, :], (row.floor() % 2)[:, :, None]
    dot_x, dot_y = (col % 2 - 1.0)[:, None, :], (row % 2 - 1.0)[:, :, None]
    stripes = col_odd + 0.0 * row_odd
    checks = (col_odd - row_odd).abs()
    dots = (dot_x * dot_x + dot_y * dot_y < 0.5).float()
    gradient = (y / y[-1])[None, :, None] + 0.0 * col_odd
    pattern = torch.stack([stripes, checks, dots, gradient], dim=1)[
        torch.arange(len(colour), device=colour.device), scene.texture
    ]
    return colour[:, :, None, None] * (0.3 + 0.3 * pattern)[:, None]
