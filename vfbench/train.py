"""One trainer for every built-in model: accelerate, AdamW, EMA, clipping, atomic checkpoints, exact resume.

Step k draws its clips, times and noise from a generator seeded by (seed, k), so that a resumed run sees what an
uninterrupted one would have seen, and the weights come out the same.
"""

from __future__ import annotations

import copy
import json
import math
import pickle  # only for the name of an error
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vfbench import files, plugins, video
from vfbench.diffusion.model import DiffusionModel
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.errors import Interrupted, MissingData, UserError
from vfbench.interfaces import Clips, Conditioning, Dataset, Request, Split, derive_seed
from vfbench.inventory import require_apart
from vfbench.prefetch import ahead
from vfbench.progress import Progress

_NOT_OF_THE_WEIGHTS = ("device", "save_every", "sample_every", "half", "compile", "workers")
_OF_DRAWN_CLIPS = {"crop": "random", "flip": True}  # options of datasets that can draw, and what they are by default
CONDITIONED = {"text": 0.8, "class": 0.1, "none": 0.1}  # which condition a training clip keeps, and how often


@dataclass(frozen=True)
class TrainOptions:
    """What determines the weights, and from `device` on how the work is done.

    `crop` (`random` or `centre`) and `flip` say how training clips are drawn from real videos, by default at random and
    half of them mirrored. Other datasets take neither.
    """

    steps: int
    batch_size: int = 16
    lr: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema: float = 0.999
    seed: int = 0
    dtype: str = "float32"
    crop: str | None = None
    flip: bool | None = None
    device: str = "cpu"
    save_every: int = 200
    sample_every: int = 600
    half: bool = False  # write the weights in half precision
    compile: bool = False  # the networks, with torch.compile
    workers: int = 2  # threads that draw clips of real videos ahead


@runtime_checkable
class _Drawing(Protocol):
    """A dataset that cuts its training clips at random."""

    def draw(self, split: Split, indices: Sequence[int], seeds: Sequence[int], *, crop: str, flip: bool) -> Clips: ...


class _Batch(NamedTuple):
    """What a step learns from: its clips with what is said of them, and where its times and noise come from."""

    clips: Clips
    labels: list[int]
    captions: list[str]
    modes: list[Conditioning]
    generator: torch.Generator


def prepare(
    model: str, dataset: str, preset: str, *, seed: int = 0, data_root: Path | None = None
) -> tuple[DiffusionModel, Dataset]:
    """An untrained model and its dataset by name; the initial weights follow from `seed` alone."""
    spec = plugins.parse(dataset).merged({"root": str(data_root) if data_root else None})
    data: Dataset = plugins.load("dataset", spec)
    module = plugins.module("model", model)
    if not hasattr(module, "create"):
        trainable = [n for n in plugins.names("model") if hasattr(plugins.module("model", n), "create")]
        raise UserError(f"'{model}' cannot be trained; these can: {', '.join(trainable)}")
    torch.manual_seed(seed)
    return module.create(data, preset), data


def train(
    model: DiffusionModel,
    dataset: Dataset,
    options: TrainOptions,
    output: Path,
    *,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train `model` on the train split and write it to `output`; returns that folder.

    `output` then holds `config.json`, `model.safetensors` (the EMA weights), `log.jsonl`, `samples/` and
    `training.pt` (for `resume`). `stop` is asked after every step: when it says so, the run is saved and left.
    Ctrl-C likewise finishes the step at hand and saves, and raises `Interrupted` with the command that goes on.
    """
    require_apart(output, dataset)
    with files.held(output):
        run = _Run(model, dataset, options, output)
        run.start(resume)
        with closing(run.batches):
            _train(run, options, stop)
    return output


def _train(run: _Run, options: TrainOptions, stop: Callable[[], bool]) -> None:
    progress = Progress(f"train {run.raw.config.model}", options.steps, "steps", done=run.step)
    with _interruptible() as interrupted:
        leave = False
        while run.step < options.steps and not leave:
            losses = run.advance()
            progress.advance(1, f"loss {sum(losses.values()):.4f}, {progress.rate * options.batch_size:.1f} clips/s")
            leave = interrupted() or stop()
            if run.step % options.save_every == 0 or run.step == options.steps or leave:
                run.save()
            if run.step % options.sample_every == 0 or run.step == options.steps:
                run.show()
        if interrupted() and run.step < options.steps:
            raise Interrupted(f"stopped after step {run.step} of {options.steps}; go on with\n  {_command()} --resume")


class _Run:
    """The state of a training run: weights, EMA, optimiser, step."""

    def __init__(self, model: DiffusionModel, dataset: Dataset, options: TrainOptions, output: Path) -> None:
        from accelerate import Accelerator

        if dataset.size("train") == 0:
            raise MissingData(
                f"{dataset.name}: no train clips found; see `python -m vfbench show dataset {dataset.name}`"
            )
        self.accelerator = Accelerator(cpu=options.device == "cpu")  # its precision would be that of the whole process
        self.options, self.output, self.dataset, self.step = options, output, dataset, 0
        self.raw = model.to(self.accelerator.device)
        self.ema = copy.deepcopy(self.raw).eval().requires_grad_(False)
        if options.compile:
            for network in self.raw.networks().values():
                network.compile(dynamic=False)  # a program for each batch size: symbolic sizes take far longer
        optimizer = torch.optim.AdamW(model.groups(options.lr), weight_decay=options.weight_decay)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.model, self.optimizer = self.accelerator.prepare(_Losses(self.raw), optimizer)
        self.drawn = _drawn(dataset, options)
        undrawn = (*_NOT_OF_THE_WEIGHTS, *_OF_DRAWN_CLIPS)
        fixed = {**{k: v for k, v in asdict(options).items() if k not in undrawn}, **self.drawn}
        self.spec = {"config": asdict(model.config), "data": dataset.fingerprint, "options": fixed}
        workers = options.workers if self.drawn else 0  # what is drawn by arithmetic is drawn where it is needed
        self.batches = ahead(self._batch, self._steps(), workers=workers, depth=max(2 * workers, 1))
        self.started = time.monotonic()

    def _steps(self) -> Iterator[int]:
        yield from range(self.step, self.options.steps)  # asked for when an earlier run has been taken up

    def start(self, resume: bool) -> None:
        """Begin anew, or take up where an earlier run stopped."""
        path = self.output / "training.pt"
        if resume:
            self._load(path)
        elif path.exists():
            raise UserError(
                f"{self.output} holds a training run already: add --resume to go on, or choose another --output"
            )
        self._forget_later()

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise MissingData(f"nothing to resume at {path}: start without --resume")
        try:
            state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
            found, self.step = json.loads(state["spec"]), int(state["step"])
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
            raise MissingData(f"{path} is damaged ({error}): train again into another --output") from error
        found, wanted = _flat(found), _flat(json.loads(json.dumps(self.spec)))
        if changed := [key for key in wanted if found.get(key) != wanted[key]]:
            key = changed[0]
            raise UserError(f"{path} was trained with {key} = {found.get(key)}, now it is {wanted[key]}")
        self.raw.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _forget_later(self) -> None:
        """Drop from the log the steps that were made after the checkpoint and lost: they will be made again."""
        log = self.output / "log.jsonl"
        if log.exists():
            steps = {line: _logged_step(line) for line in log.read_text(encoding="utf-8").splitlines()}
            files.write_text(log, "".join(f"{line}\n" for line, step in steps.items() if 0 < step <= self.step))

    def advance(self) -> dict[str, float]:
        """One optimiser step; returns the loss terms."""
        options = self.options
        clips, *said = next(self.batches)
        x = clips.to(self.accelerator.device).float().div(127.5).sub(1)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * _rate(self.step, options)
        with _arithmetic(self.accelerator.device, options.dtype):
            losses: dict[str, Tensor] = self.model(x, *said)
        self.accelerator.backward(torch.stack(list(losses.values())).sum())
        self.accelerator.clip_grad_norm_(self.raw.parameters(), options.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._average()
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        if not all(math.isfinite(v) for v in values.values()):
            raise UserError(f"the loss is not finite at step {self.step}: {values}; lower --lr or use --dtype float32")
        if self.step % 50 == 0:
            self._log(values)
        return values

    def _batch(self, step: int) -> _Batch:
        generator = torch.Generator().manual_seed(derive_seed(self.options.seed, step))
        count, size = self.options.batch_size, self.dataset.size("train")
        indices = torch.randint(size, (count,), generator=generator).tolist()
        chosen = torch.multinomial(
            torch.tensor(list(CONDITIONED.values())), count, replacement=True, generator=generator
        )
        modes: list[Conditioning] = [list(CONDITIONED)[i] for i in chosen.tolist()]
        labels, captions = self.dataset.labels("train", indices), self.dataset.captions("train", indices)
        return _Batch(self._clips(step, indices), labels, captions, modes, generator)

    def _clips(self, step: int, indices: list[int]) -> Clips:
        if not isinstance(self.dataset, _Drawing):
            return self.dataset.clips("train", indices, self.accelerator.device)
        first = step * len(indices)
        seeds = [derive_seed(self.options.seed, first + i, "clip") for i in range(len(indices))]
        return self.dataset.draw("train", indices, seeds, **self.drawn)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.options.ema, (1 + self.step) / (10 + self.step))  # young averages forget faster
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.raw.parameters()), 1 - decay)

    def _log(self, losses: dict[str, float]) -> None:
        entry = {"step": self.step, **losses, "seconds": round(time.monotonic() - self.started, 1)}
        with (self.output / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")

    def save(self) -> None:
        """Write the EMA model, then what resuming needs: a run that is done has its model."""
        if not self.accelerator.is_main_process:
            return
        self.ema.save(self.output, half=self.options.half)
        parts: dict[str, nn.Module | Any] = {"model": self.raw, "ema": self.ema, "optimizer": self.optimizer}
        state = {name: part.state_dict() for name, part in parts.items()}
        with files.replacing(self.output / "training.pt") as file:
            torch.save({**state, "step": self.step, "spec": json.dumps(self.spec)}, file)

    def show(self) -> None:
        """Sample a few held-out captions into `samples/`, to be looked at."""
        if not self.accelerator.is_main_process:
            return
        indices = range(min(6, self.dataset.size("test")))
        labels, captions = self.dataset.labels("test", indices), self.dataset.captions("test", indices)
        rows = zip(indices, labels, captions, strict=True)
        requests = [Request(i, derive_seed(0, i), label, caption) for i, label, caption in rows]
        if not requests:
            return
        device = self.accelerator.device
        sampler = DiffusionSampler(self.ema, "none", device)
        clips = sampler.sample(requests)
        name = self.output / "samples" / f"step_{self.step:06d}"
        video.write_sheet(name.with_suffix(".png"), clips, captions=captions, scale=2)
        video.write_webp(name.with_suffix(".webp"), clips, scale=4)


def _drawn(dataset: Dataset, options: TrainOptions) -> dict[str, Any]:
    """How training clips are drawn, which determines the weights; nothing for a dataset whose clips are as they are."""
    asked = {name: value for name in _OF_DRAWN_CLIPS if (value := getattr(options, name)) is not None}
    if not isinstance(dataset, _Drawing):
        if asked:
            flag = next(iter(asked))
            raise UserError(f"--{flag}: {dataset.name} has no videos to draw clips from; leave out --{flag}")
        return {}
    if not getattr(getattr(dataset, "inventory", None), "fitted", ""):
        return {**_OF_DRAWN_CLIPS, **asked}
    if asked.get("crop") == "random":
        raise UserError(f"--crop random: {dataset.name} was prepared, and cropped: leave it out, or read its own files")
    return {**_OF_DRAWN_CLIPS, **asked, "crop": "centre"}  # as of the files themselves


@contextmanager
def _arithmetic(device: torch.device, dtype: str) -> Iterator[None]:
    """Within, the networks compute in `dtype`.

    Attention in bfloat16 on a CPU is plain matrix products there: the fused kernel's backward pass is slow, it took two
    fifths of a training step (torch 2.15, Xeon with AMX).
    """
    if dtype != "bfloat16":
        yield
        return
    with torch.autocast(device.type, torch.bfloat16):
        if device.type != "cpu":
            yield
            return
        # Despite its name, the setting governs the CPU too: without it the products are made in float32.
        before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # type: ignore[no-untyped-call]
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


class _Losses(nn.Module):
    """`training_losses` as a forward pass, so that accelerate can wrap it."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> dict[str, Tensor]:
        return self.model.training_losses(*inputs)


def _logged_step(line: str) -> int:
    """The step of a line of the log, 0 for one that a killed process did not finish."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0


def _rate(step: int, options: TrainOptions) -> float:
    """Linear warm-up, then half a cosine down to a twentieth."""
    rising = min((step + 1) / options.warmup, 1.0)
    return rising * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, child in tree.items() for k, v in _flat(child, f"{prefix}.{key}".lstrip(".")).items()}


def _command() -> str:
    arguments = [a for a in sys.argv[1:] if a != "--resume"]
    return shlex.join(["python", "-m", "vfbench", *arguments])


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C sets a flag instead of breaking a step in two."""
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
