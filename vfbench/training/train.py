"""One trainer for every built-in model: accelerate, AdamW, EMA, clipping, atomic checkpoints, exact resume.

Step k draws its clips, times and noise from a generator seeded by (seed, k), so that a resumed run sees what an
uninterrupted one would have seen, and the weights come out the same. Several processes (`accelerate launch -m vfbench
train ...`, or torchrun) split each batch between them, and see the same too (`vfbench.training.batches`).
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path

from vfbench.clips.inventory import require_apart
from vfbench.diffusion.model import DiffusionModel
from vfbench.errors import BadEnvironment, Interrupted
from vfbench.interfaces import Dataset
from vfbench.training.build import prepare
from vfbench.training.distributed import Team
from vfbench.training.options import TrainOptions
from vfbench.training.trainer import Trainer, more_parts
from vfbench.utils import files, memory
from vfbench.utils.progress import Progress

__all__ = ["TrainOptions", "prepare", "train"]


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

    `output` then holds `config.json`, `model.safetensors` (the EMA weights), `README.md` (the model's card),
    `log.jsonl`, `samples/` and `training.pt` (for `resume`). `stop` is asked after every step: when it says so, the run
    is saved and left. Ctrl-C and SIGTERM likewise finish the step at hand and save, and raise `Interrupted` with the
    command that goes on. Of several processes the main one writes, to a folder that all must see; each may stop all.
    """
    require_apart(output, dataset)
    team = Team(options.device)
    with ExitStack() as held:
        with team.as_one():
            held.enter_context(files.held(output) if team.main else nullcontext())
        with team.as_one():
            run = Trainer(model, dataset, options, output, team)
            run.start(resume)
        with closing(run.batches):
            if resume and run.step == options.steps:
                run.save_model()  # which may be gone, or be wanted in --half now
            _train(run, options, stop)
    return output


def _advance(run: Trainer) -> dict[str, float]:
    """One step; raises `BadEnvironment` where it does not fit into the memory."""
    try:
        return run.advance()
    except memory.ERRORS as error:
        raise _no_memory(run, memory.full(error)) from error


def _no_memory(run: Trainer, full: str) -> BadEnvironment:
    """The error for a step that does not fit into the memory, however small its parts were made."""
    clips, ways = run.options.batch_size // run.team.count, []
    if run.accumulate < clips:
        ways.append(f"--accumulate {more_parts(run.accumulate, clips)} (the same batch in smaller parts)")
    if not run.options.checkpoint_activations:
        ways.append("--checkpoint-activations")
    saved = f", and --resume: {run.output} has a save" if ways and run.saved is not None else ""
    mend = f"give the same command with {' or '.join(ways)}{saved}" if ways else "choose a smaller --preset"
    return BadEnvironment(f"step {run.step + 1} does not fit into {full}: {mend}")


def _train(run: Trainer, options: TrainOptions, stop: Callable[[], bool]) -> None:
    title = f"train {run.raw.config.model}"
    progress = Progress(title, options.steps, "steps", done=run.step) if run.team.main else None
    with interruptible() as interrupted:
        leave = False
        while run.step < options.steps and not leave:
            losses = _advance(run)
            if progress:
                speed = f"{progress.rate * options.batch_size:.1f} clips/s"
                progress.advance(1, f"loss {sum(losses.values()):.4f}, {speed}")
            pressed, done = run.team.agree(interrupted(), stop())
            leave = pressed or done
            if run.step % options.save_every == 0 or run.step == options.steps or leave:
                run.save()
            if run.step % options.sample_every == 0 or run.step == options.steps:
                run.show()
        if leave and pressed and run.step < options.steps:
            again = resuming(run.team.count)
            raise Interrupted(f"stopped after step {run.step} of {options.steps}; go on with\n  {again}")


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C and SIGTERM, as schedulers send it, set a flag instead of breaking a step in two."""
    asked: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in numbers}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resuming(processes: int) -> str:
    """The command that takes up what this process does, with as many processes on this machine."""
    arguments = [a for a in sys.argv[1:] if a != "--resume"]
    here = os.environ.get("LOCAL_WORLD_SIZE", str(processes))
    start = ["torchrun", "--nproc-per-node", here] if processes > 1 else ["python"]
    return shlex.join([*start, "-m", "vfbench", *arguments, "--resume"])
