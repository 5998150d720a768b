"""Tests of the dataset Moving Shapes: pinned bytes, indices, captions, and motions in the rendered frames."""

from __future__ import annotations

import hashlib
import re
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vfbench.datasets import shapes
from vfbench.datasets._shapes_render import render
from vfbench.datasets._shapes_scene import CLASSES, COLOURS, MOTIONS, SHAPES, SIZES, TEXTURES, Scene, make_scene
from vfbench.datasets.shapes import SPLIT_RANGES, Shapes
from vfbench.errors import UserError
from vfbench.interfaces import ClipShape, Dataset, Split

SPLITS: tuple[Split, ...] = ("train", "test")
FRAMES = 9  # an odd number has a middle frame and quarters
GRAMMAR = re.compile(
    f"a ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) ({'|'.join(MOTIONS)})"
    f" over ({'|'.join(COLOURS)}) ({'|'.join(TEXTURES)})"
)

# SHA-256 of single clips at 16x32x32; a change needs a new VERSION.
GOLDEN: dict[tuple[Split, int], str] = {
    ("train", 0): "e8413f99c8395f36e256f6dfb1062689734e7974ef696f0fb24e57678bd65490",
    ("train", 1): "71fbdd0112e98233548192f4e9d9de480526bef6af93d1e90af492f0e98a2d3a",
    ("train", 29): "646d706706d75d31710b01fc153ca731ebadb326593e4d1bc443044081bb1378",
    ("train", 123456): "83316f40111eb6cc6b9d8c0f26e820dc1827e0134dd86c622001877bd58e7e8d",
    ("test", 0): "af8b514f66d33e19c2a5ab0e8dfdd857885af5a65ad80d0d8da7b994e7226f90",
    ("test", 99999): "be8e63a0ec48b276e0e5b8c3243bb11533c83d4b1bf1747dce7f9eb042858a0c",
}


@pytest.fixture(scope="module")
def data() -> Shapes:
    return shapes.build()


def sha256(clip: Tensor) -> str:
    return hashlib.sha256(clip.numpy().tobytes()).hexdigest()


# Scenes with a red shape over blue, so that shape, mark and background differ in colour.


def clip_of(motion: str, kind: str = "circle", *, texture: str = "stripes", frames: int = FRAMES) -> Tensor:
    """Clip of a small red shape in the middle, (T, 3, 64, 64)."""
    varied = {"motion": MOTIONS.index(motion), "shape": SHAPES.index(kind), "texture": TEXTURES.index(texture)}
    fixed = {"colour": list(COLOURS).index("red"), "background": list(COLOURS).index("blue"), "size": 0}
    attributes = {name: torch.tensor([value]) for name, value in {**varied, **fixed}.items()}
    return render(Scene(**attributes, jitter=torch.tensor([[128, 128, 0]])), ClipShape(frames, 64, 64))[0]


def mark_of(clip: Tensor) -> Tensor:
    """Mask of the dark mark (T, H, W): neither red like the shape nor blue like the background."""
    return (clip[:, 0] < 60) & (clip[:, 2] < 50)


def body_of(clip: Tensor) -> Tensor:
    """Mask of the shape with its mark, (T, H, W)."""
    return (clip[:, 0] > 130) | mark_of(clip)


def centroids(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Centroids x and y (T,) of a mask (T, H, W), in 0..1."""
    weight = mask.double() / mask.sum((1, 2), keepdim=True)
    place = (torch.arange(mask.shape[-1], dtype=torch.float64) + 0.5) / mask.shape[-1]
    return (weight * place).sum((1, 2)), (weight * place[:, None]).sum((1, 2))


# Bytes.


@pytest.mark.parametrize(("split", "index"), GOLDEN, ids=str)
def test_bytes_are_pinned(data: Shapes, split: Split, index: int) -> None:
    assert sha256(data.clips(split, [index])[0]) == GOLDEN[split, index]


def test_fingerprint_is_pinned_and_differs_by_shape(data: Shapes) -> None:
    assert data.fingerprint == hashlib.sha256(b"shapes/1/16x32x32").hexdigest()
    assert data.fingerprint != shapes.build(frames=8).fingerprint


def test_a_clip_does_not_depend_on_its_batch() -> None:
    data = shapes.build(frames=3)
    indices = [*range(40), 7]  # more than one rendering batch
    batch = data.clips("train", indices)
    assert torch.equal(data.clips("train", indices[::-1]), batch.flip(0))
    assert all(torch.equal(data.clips("train", [i])[0], batch[i]) for i in (0, 31, 32, 39))
    assert torch.equal(batch[-1], batch[7])


@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 24, 40), (3, 40, 24), (2, 64, 64), (16, 32, 32)], ids=str)
def test_any_length_and_resolution_is_rendered(shape: tuple[int, int, int]) -> None:
    data = shapes.build(frames=shape[0], height=shape[1], width=shape[2])
    clips = data.clips("test", range(8))
    assert (clips.dtype, clips.shape) == (torch.uint8, (8, shape[0], 3, *shape[1:]))
    assert clips.float().flatten(1).std(1).min() > 10  # no blank clips
    assert isinstance(data, Dataset)


def test_no_indices_give_an_empty_batch(data: Shapes) -> None:
    assert data.clips("train", []).shape == (0, 16, 3, 32, 32)


def test_resolutions_show_the_same_scene() -> None:
    small, large = (shapes.build(frames=2, height=n, width=n).clips("train", range(16)).float() for n in (32, 64))
    shrunk = torch.nn.functional.avg_pool2d(large.flatten(0, 1), 2).view_as(small)
    assert (small - shrunk).abs().mean() < 3


@pytest.mark.parametrize("size", [(0, 32, 32), (16, 7, 32), (16, 32, 7)], ids=str)
def test_too_small_sizes_are_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="x".join(map(str, size))):
        shapes.build(frames=size[0], height=size[1], width=size[2])


def test_the_global_random_state_is_not_used(data: Shapes) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = data.clips("train", [5])
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(data.clips("train", [5]), first)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_renders_the_same_bytes(data: Shapes) -> None:
    on_gpu = data.clips("train", range(60), torch.device("cuda")).cpu()
    assert torch.equal(on_gpu, data.clips("train", range(60)))


# Indices.


def test_train_and_test_share_no_index(data: Shapes) -> None:
    train, test = SPLIT_RANGES["train"], SPLIT_RANGES["test"]
    assert train.stop <= test.start
    assert (data.size("train"), data.size("test")) == (len(train), len(test))


def test_different_indices_are_different_clips() -> None:
    data = shapes.build(frames=4)
    clips = torch.cat([data.clips(split, range(64)) for split in SPLITS])
    assert len({sha256(clip) for clip in clips}) == 128


@pytest.mark.parametrize(
    ("split", "first"), [("train", 0), ("train", 30 * 777), ("test", -SPLIT_RANGES["test"].start % 30)]
)
def test_every_aligned_block_of_30_holds_every_class_once(data: Shapes, split: Split, first: int) -> None:
    assert sorted(data.labels(split, range(first, first + 30))) == list(range(30))


def test_blocks_have_different_orders(data: Shapes) -> None:
    orders = {tuple(data.labels("train", range(first, first + 30))) for first in range(0, 300, 30)}
    assert len(orders) > 3


def test_every_attribute_value_occurs_about_equally_often() -> None:
    scene = make_scene(torch.arange(6000))
    for name, count in {"colour": 8, "background": 8, "size": 2, "texture": 4, "motion": 10, "shape": 3}.items():
        frequency = getattr(scene, name).bincount(minlength=count) / 6000
        assert len(frequency) == count
        assert (frequency * count - 1).abs().max() < 0.15, name


def test_shape_and_ground_never_share_a_colour() -> None:
    scene = make_scene(torch.arange(20_000))
    assert not (scene.colour == scene.background).any()


# Captions.


@pytest.mark.parametrize("split", SPLITS)
def test_captions_name_every_attribute_and_labels_agree(data: Shapes, split: Split) -> None:
    indices = range(200)
    scene = make_scene(torch.tensor([SPLIT_RANGES[split][i] for i in indices]))
    for i, (caption, label) in enumerate(zip(data.captions(split, indices), data.labels(split, indices), strict=True)):
        parsed = GRAMMAR.fullmatch(caption)
        assert parsed, caption
        size, colour, shape, motion, ground, texture = parsed.groups()
        assert list(SIZES)[scene.size[i]] == size
        assert [list(COLOURS)[c[i]] for c in (scene.colour, scene.background)] == [colour, ground]
        assert (SHAPES[scene.shape[i]], TEXTURES[scene.texture[i]]) == (shape, texture)
        assert MOTIONS[scene.motion[i]] == motion
        assert CLASSES[label] == f"{shape} {motion}"


def test_words_are_those_of_the_captions(data: Shapes) -> None:
    words = {word for caption in data.captions("train", range(600)) for word in caption.split()}
    assert words == set(data.words)
    assert len(data.words) == len(set(data.words))


# Frames.


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(
    ("motion", "dx", "dy"),
    [("moves left", -0.5, 0), ("moves right", 0.5, 0), ("moves up", 0, -0.5), ("moves down", 0, 0.5)],
)
def test_moving_shapes_move_in_their_direction(motion: str, dx: float, dy: float, kind: str) -> None:
    x, y = centroids(body_of(clip_of(motion, kind)))
    assert float(x[-1] - x[0]) == pytest.approx(dx, abs=0.02)
    assert float(y[-1] - y[0]) == pytest.approx(dy, abs=0.02)
    steps = x.diff() if dx else y.diff()
    assert (steps * (dx + dy) > 0).all()  # in every step, at constant speed
    assert float(steps.std()) < 0.02


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("motion", "side"), [("spins clockwise", 1), ("spins counterclockwise", -1)])
def test_spinning_turns_the_mark_to_its_side(motion: str, side: int, kind: str) -> None:
    x, y = centroids(mark_of(clip_of(motion, kind)))
    assert abs(float(x[0]) - 0.5) < 0.01
    assert y[0] < 0.47  # above the centre: rows count downwards
    assert (side * (x[3:-1] - 0.5) > 0.03).all()
    assert y[-1] > 0.52  # below the centre after a quarter turn


def test_only_the_mark_of_a_spinning_circle_moves() -> None:
    clip = clip_of("spins clockwise", "circle")
    assert all(not torch.equal(a, b) for a, b in pairwise(clip))
    outline = body_of(clip)
    assert (outline ^ outline[:1]).float().mean() < 0.01


@pytest.mark.parametrize(("motion", "first", "last"), [("grows", 0.55, 1.45), ("shrinks", 1.45, 0.55)])
@pytest.mark.parametrize("kind", SHAPES)
def test_growing_and_shrinking_change_the_area(motion: str, first: float, last: float, kind: str) -> None:
    area = body_of(clip_of(motion, kind)).sum((1, 2)).double()
    assert float(area[-1] / area[0]) == pytest.approx((last / first) ** 2, rel=0.15)
    assert (area.diff() * (last - first) > 0).all()


def test_bouncing_rises_and_falls_twice() -> None:
    x, y = centroids(body_of(clip_of("bounces")))
    below, above = y[[0, 4, 8]], y[[2, 6]]
    assert torch.allclose(below, torch.full_like(below, 0.72), atol=0.02)
    assert torch.allclose(above, torch.full_like(above, 0.28), atol=0.02)
    assert float(x.std()) < 0.01


@pytest.mark.parametrize("kind", SHAPES)
def test_standing_still_repeats_one_frame(kind: str) -> None:
    clip = clip_of("stays still", kind)
    assert torch.equal(clip, clip[:1].expand_as(clip))


def test_all_other_motions_move(data: Shapes) -> None:
    block = range(30)
    moved = (data.clips("train", block).float().diff(dim=1).abs().amax((1, 2, 3, 4)) > 20).tolist()
    still = [CLASSES[label].endswith("stays still") for label in data.labels("train", block)]
    assert [not m for m in moved] == still


@pytest.mark.parametrize("texture", TEXTURES)
def test_the_background_is_textured_and_does_not_move(texture: str) -> None:
    clip = clip_of("moves left", texture=texture)
    ground = clip[:, :, :16]  # rows without the shape
    assert torch.equal(ground, ground[:1].expand_as(ground))
    assert clip[0, :, -16:].float().std(dim=(1, 2)).max() > 5


@pytest.mark.parametrize("name", ["motion", "shape", "colour", "size", "texture", "background", "jitter"])
def test_every_attribute_changes_the_frames(name: str) -> None:
    scene = make_scene(torch.tensor([0, 0]))
    value = getattr(scene, name).clone()
    value[1] = (value[1] + (128 if name == "jitter" else 1)) % {"size": 2, "shape": 3, "texture": 4, "jitter": 256}.get(
        name, 8
    )
    first, second = render(Scene(**{**vars(scene), name: value}), ClipShape(3, 32, 32))
    assert not torch.equal(first, second)
