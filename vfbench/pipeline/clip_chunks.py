"""Chunks of `vfbench generate`: the clips of each as files in a folder of its own, put together when all are there.

.OUT.partial/chunks/000003/    of which OUT/clips and OUT/videos get the files
    clips/, videos/            the clips of the chunk
    preview.safetensors        the clips, where they are among the first that the sheet shows
    chunk.json                 requests, timing, and size and hash of each file
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vfbench import plugins, video
from vfbench.clips.scan import GENERATED
from vfbench.errors import UserError
from vfbench.interfaces import Dataset, FrameRated, Request, Staged
from vfbench.pipeline import compiling
from vfbench.pipeline.export import ExportPlan, is_written
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.generate import NUM_PREVIEW, ChunkMaker, generate
from vfbench.pipeline.sample import NotFinite, noise_generator
from vfbench.pipeline.worker_job import announce
from vfbench.pipeline.workers import FAILED, PATIENCE, Rank, Worker, entries
from vfbench.utils import console, environment, files, memory
from vfbench.utils import device as devices
from vfbench.utils.progress import Progress
from vfbench.utils.tensor_files import read_tensors, write_tensors
from vfbench.video.encode import write_playable

DEFAULT_RATE = 8.0  # frames per second, where the dataset has none
FOLDER = "folder"  # what one worker puts together when all chunks are there
MAX_THREADS = 8  # that encode clips; each has as many threads of torch
PARTS = ("clips", "videos")  # folders of clips
_RECORD, _PREVIEW = "chunk.json", "preview.safetensors"


@dataclass(frozen=True, kw_only=True)
class ClipChunks(ChunkMaker):
    """Maker of chunks of clips as files."""

    plan: ExportPlan

    def path(self, name: str) -> Path:
        """Path of a chunk."""
        return self.folder.chunks / name

    def check(self, name: str, *, content: bool) -> None:
        """Raise ValueError if a chunk is incomplete or of other requests; with `content`, also verify its hash."""
        folder = self.path(name)
        recorded = self.read_record(folder / _RECORD, name)["files"]
        for file, (size, sha256) in recorded.items():
            try:
                same = (folder / file).stat().st_size == size
                same = same and not (content and files.file_sha256(folder / file) != sha256)
            except OSError as error:
                raise ValueError(f"{file}: {error.strerror}") from error
            if not same:
                raise ValueError(f"{file} does not match its hash")

    def make(self, name: str, progress: Progress) -> None:
        """Make a chunk and write it, unless another worker was faster: its chunk is the same."""
        seconds, shown, rate = 0.0, list[Tensor](), _clip_rate(self.plan.dataset)
        with _appearing(self.path(name), lambda: self.is_complete(name), replace=True) as folder:
            for part in PARTS:
                (folder / part).mkdir()

            def write(request: Request, clip: Tensor) -> None:
                file = self.plan.format.name_template.format(request.index).partition("[")[0]
                self.plan.format.write(folder / "clips" / file, clip)
                write_playable(folder / "videos" / f"{request.index:06}.mp4", clip, rate)

            for batch, clips, spent in self.sampled(name, progress):
                seconds += spent
                for reason in self.failed.values():
                    raise NotFinite(reason)
                shown += [clip for request, clip in zip(batch, clips, strict=True) if request.index < NUM_PREVIEW]
                with ThreadPoolExecutor(min(MAX_THREADS, self.folder.layout.threads)) as threads:
                    list(threads.map(write, batch, clips))  # raises the first error
            if shown:
                write_tensors(folder / _PREVIEW, {"clips": torch.stack(shown)}, **self.identity(name))
            paths = sorted(path for path in folder.rglob("*") if path.is_file())
            hashes = {
                path.relative_to(folder).as_posix(): (path.stat().st_size, files.file_sha256(path)) for path in paths
            }
            self.write_record(folder / _RECORD, name, seconds, {"files": hashes})

    def assemble(self) -> None:
        """Put the chunks together in the output folder; where another worker was faster, its folder is the same."""
        plan, shown = self.plan, list[Tensor]()
        output = plan.options.output
        with _appearing(output, lambda: is_written(output, plan.specification.id)) as folder:
            for part in PARTS:
                (folder / part).mkdir()
            for name in self.chunks:
                try:
                    self.check(name, content=True)
                except ValueError:
                    self.mend(name)
                for part in PARTS:
                    for item in sorted((self.path(name) / part).iterdir()):
                        _link(item, folder / part / item.name)
                if (preview := self.path(name) / _PREVIEW).exists():
                    shown += read_tensors(preview)[0]["clips"]
            captions = [plan.caption(request) for request in self.requests[: len(shown)]]
            video.write_preview(folder, torch.stack(shown), captions)
            for file, values in plan.tables().items():
                lines = zip(plan.names, values, strict=True)
                files.write_text(folder / file, "".join(f"{name}\t{value}\n" for name, value in lines))
            files.write_json(folder / GENERATED, _record(plan))


def export(plan: ExportPlan) -> Path:
    """Make all clips and write the folder; returns it. The same plan in several processes shares the work."""
    output, identity = plan.options.output, plan.specification.id
    if is_written(output, identity):
        console.info(f"{output} is there already, with these clips")
        announce(str(output), "")
        return output
    folder = RunFolder.join(plan.partial_folder, plan.specification)
    announce(folder.name, "")
    patience = compiling.PATIENCE if plan.options.compile else PATIENCE
    worker = Worker(folder.path, Rank.from_environment(), patience)
    maker = ClipChunks(folder, plan.sampler, plan.requests, plan.device, None, worker, plan=plan)
    try:
        with devices.threads(folder.layout.threads), worker.working(), memory.require_memory(plan.options.model):
            generate(maker)
            for _ in worker.share([FOLDER], lambda _: is_written(output, identity)):
                maker.assemble()
    except UserError:
        if not is_written(output, identity):  # else others have done all, and the chunks are gone
            _remove_unused(folder)
            raise
    shutil.rmtree(folder.path, ignore_errors=True)
    return output


def _remove_unused(folder: RunFolder) -> None:
    """Remove the folder of chunks where there are none and nobody makes one, such as for a prompt that is refused."""
    at_work = [item for _, item, _ in entries(folder.workers) if item != FAILED]
    if folder.chunks.exists() and not at_work and not any(folder.chunks.iterdir()):
        shutil.rmtree(folder.path, ignore_errors=True)


@contextmanager
def _appearing(target: Path, is_whole: Callable[[], bool], *, replace: bool = False) -> Iterator[Path]:
    """Context manager: a temporary folder, renamed to `target` at the end unless another process has completed it.

    `replace` removes what is in its place. Raises `BadEnvironment` where the folder cannot be written.
    """
    folder = files.temporary_path(target)
    try:
        folder.mkdir(parents=True)
        yield folder
        if is_whole():
            return
        if replace:
            shutil.rmtree(target, ignore_errors=True)
        folder.replace(target)
    except OSError as error:
        if not is_whole():
            raise files.write_error(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Give a file, or a folder of files, a second name, or a copy where the file system has no links."""
    if source.is_dir():
        target.mkdir()
        for item in source.iterdir():
            _link(item, target / item.name)
        return
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def _clip_rate(dataset: Dataset) -> float:
    """Frames per second of the videos to watch: that of the dataset's clips, where its files say."""
    rate = dataset.clip_rate() if isinstance(dataset, FrameRated) else None
    return rate or DEFAULT_RATE


def _record(plan: ExportPlan) -> dict[str, Any]:
    """Content of `generate.json`: what made the clips, and the request of each."""
    options, sampler = plan.options, plan.sampler
    clips = zip(plan.names, plan.requests, strict=True)
    stages = sampler.stages if isinstance(sampler, Staged) else {}
    return {
        "id": plan.specification.id,
        "model": str(plugins.with_defaults("model", plan.model)),
        "weights": sampler.weights,
        **({"stages": {name: each.weights for name, each in stages.items()}} if stages else {}),
        "dataset": options.dataset,
        "dataset_fingerprint": plan.dataset.fingerprint,
        "shape": str(sampler.shape),
        "conditioning": sampler.conditioning,
        "seed": options.seed,
        "share_base_noise": options.share_base_noise,
        "format": options.format,
        "dtype": str(plan.dtype).removeprefix("torch."),
        **({"compile": True} if options.compile else {}),
        **noise_generator(sampler),
        "code": environment.code_version(),
        "environment": environment.environment(plan.device.type).model_dump(),
        "clips": [
            {"name": name, "asked": plan.caption(request), "seed": request.seed, "base": request.base}
            for name, request in clips
        ],
    }
