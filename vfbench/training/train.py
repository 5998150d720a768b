"""Training loop of every built-in model: accelerate, AdamW, EMA, gradient clipping, atomic checkpoints, exact resume.

Step k draws its clips, times and noise from a generator seeded by (seed, k), so a resumed run ends with the same
weights as an uninterrupted one. Several processes (`accelerate launch -m vfbench train ...`, or torchrun) split each
batch, with the same draws (`vfbench.training.batches`).
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path

from vfbench import plugins
from vfbench.clips.inventory import require_outside_dataset
from vfbench.diffusion.model import DiffusionModel
from vfbench.errors import BadEnvironment, Interrupted
from vfbench.interfaces import Dataset
from vfbench.training.build import prepare_training
from vfbench.training.distributed import ProcessGroup
from vfbench.training.options import TrainJob, TrainOptions
from vfbench.training.resume import exists as has_training
from vfbench.training.trainer import Trainer, more_parts
from vfbench.utils import files, memory, trackers
from vfbench.utils.progress import Progress

__all__ = ["TrainOptions", "prepare_training", "train", "train_job"]


def train_job(job: TrainJob) -> Path:
    """Create a model and train it; returns the folder of its checkpoint. The same job again resumes."""
    options, model = job.options, plugins.parse(job.model).name
    network, dataset = prepare_training(
        job.model,
        job.dataset,
        job.preset,
        seed=job.seed,
        data_root=job.data_root,
        match_flops=job.match_flops,
        base_init=job.base_init,
        base_from=job.base_from,
    )
    output = Path(job.output or Path("runs") / f"train-{model}-{dataset.name}")
    return train(network, dataset, options, output, resume=job.resume or has_training(output))


def train(
    model: DiffusionModel,
    dataset: Dataset,
    options: TrainOptions,
    output: Path,
    *,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train `model` on the train split and write it to the folder `output`, which is returned.

    `output` then holds `config.json`, `model.safetensors` (the EMA weights), `README.md` (the model card), `log.jsonl`,
    `samples/` and `training.pt` (for `resume`). `stop` is called after every step; when it returns True, the run is
    saved and ends. On Ctrl-C or SIGTERM the current step is finished and saved, then `Interrupted` is raised with the
    command to resume. The main process writes, to a folder that all processes must see; each process may stop all.
    """
    require_outside_dataset(output, dataset)
    options = options.on_device()
    processes = ProcessGroup(options.device)
    with ExitStack() as stack:
        with processes.collective():
            stack.enter_context(files.locked_folder(output) if processes.is_main else nullcontext())
        with processes.collective():
            trainer = Trainer(model, dataset, options, output, processes)
            trainer.start(resume)
            if processes.is_main:
                trainer.log = stack.enter_context(trackers.tracker(options.log_to, output))
        with closing(trainer.batches):
            if resume and trainer.step == options.steps:
                trainer.save_model()  # the model may be missing, or now be wanted with --half
            _train(trainer, options, stop)
    return output


def _advance(trainer: Trainer) -> dict[str, float]:
    """Make one step, as `Trainer.advance`; raises `BadEnvironment` where it does not fit into memory."""
    try:
        return trainer.advance()
    except memory.MEMORY_ERRORS as error:
        raise _no_memory(trainer, memory.exhausted_memory(error)) from error


def _no_memory(trainer: Trainer, full: str) -> BadEnvironment:
    """Error for a step that does not fit into memory, with the flags that reduce its memory."""
    clips, remedies = trainer.options.batch_size // trainer.processes.world_size, []
    if trainer.accumulate < clips:
        remedies.append(f"--accumulate {more_parts(trainer.accumulate, clips)}")
    if not trainer.options.checkpoint_activations:
        remedies.append("--checkpoint-activations")
    resume = f", and --resume ({trainer.output} has a save)" if remedies and trainer.saved is not None else ""
    advice = f"repeat the command with {' or '.join(remedies)}{resume}" if remedies else "choose a smaller --preset"
    return BadEnvironment(f"step {trainer.step + 1} does not fit into {full}: {advice}")


def _train(trainer: Trainer, options: TrainOptions, stop: Callable[[], bool]) -> None:
    title = f"train {trainer.raw.config.model}"
    shown = Progress(title, options.steps, "steps", done=trainer.step) if trainer.processes.is_main else nullcontext()
    with shown as progress, defer_interrupts() as interrupted:
        leave = False
        while trainer.step < options.steps and not leave:
            losses = _advance(trainer)
            if progress:
                speed = f"{progress.rate * options.batch_size:.1f} clips/s"
                loss = f"loss {sum(losses.values()):.4f}, " if losses else ""
                progress.advance(1, f"{loss}{speed}")
            signalled, stopped = trainer.processes.any_rank(interrupted(), stop())
            leave = signalled or stopped
            if trainer.step % options.save_every == 0 or trainer.step == options.steps or leave:
                trainer.save()
            if trainer.step % options.sample_every == 0 or trainer.step == options.steps:
                trainer.write_preview()
        if leave and signalled and trainer.step < options.steps:
            command = resume_command(trainer.processes.world_size)
            raise Interrupted(f"stopped after step {trainer.step} of {options.steps}; continue with\n  {command}")


@contextmanager
def defer_interrupts() -> Iterator[Callable[[], bool]]:
    """Context manager: record SIGINT (Ctrl-C) and SIGTERM (sent by schedulers) instead of interrupting a step.

    Yields a function that is True once a signal has arrived. Signals are those of the main thread: in another, such as
    a notebook's, nothing is recorded.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in numbers}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resume_command(processes: int) -> str:
    """Command that resumes the current run, with as many processes on this machine."""
    arguments = [a for a in sys.argv[1:] if a != "--resume"]
    processes_here = os.environ.get("LOCAL_WORLD_SIZE", str(processes))
    launcher = ["torchrun", "--nproc-per-node", processes_here] if processes > 1 else ["python"]
    return shlex.join([*launcher, "-m", "vfbench", *arguments, "--resume"])
