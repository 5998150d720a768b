"""Flags that mean the same in several commands, each with its type and its help; a command gives the default."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vfbench.errors import UserError

if TYPE_CHECKING:
    from typer import Context as Context
else:
    Context = typer.Context.__base__  # typer takes a parameter of its own class, and passes one of this


def option(*flags: str, help: str, **more: Any) -> Any:  # typer's own word
    """An option that can also be given as VFBENCH_<FLAG>."""
    name = next(flag for flag in flags if flag.startswith("--")).lstrip("-").replace("-", "_").upper()
    return typer.Option(*flags, help=help, envvar=f"VFBENCH_{name}", show_envvar=False, **more)


def whole(text: str) -> int | Literal["auto"]:
    """The value of --batch-size; raises `UserError` for what is neither a whole number nor auto."""
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"--batch-size {text}: a whole number, or auto") from error


def next_command(*words: object) -> None:
    """Say which command looks at what was made."""
    print(f"next: {shlex.join(['python', '-m', 'vfbench', *map(str, words)])}", file=sys.stderr)


# What is measured, and on which data.
DataRoot = Annotated[Path | None, option("--data-root", help="Folder of the dataset's files; VFBENCH_DATA by default.")]
Protocol = Annotated[str | None, option("--protocol", help="Protocol; the dataset's own by default, else strict.")]
Metrics = Annotated[str, option("--metrics", help="Comma-separated, see `ls metrics`; the protocol's by default.")]
NumReal = Annotated[int | None, option("--num-real", help="Real clips; the protocol's by default.")]
Manifest = Annotated[
    Path | None, option("--manifest", help="Take the real clips of this list, such as a run's manifest.csv.")
]
Weights = Annotated[str, option("--weights", help="default, or random to try the path (not comparable).")]
Extractor = Annotated[
    list[str] | None, option("--extractor", help="LABEL=SPEC, e.g. \"i3d=i3d(dtype='bfloat16')\"; repeatable.")
]
Few = Annotated[bool, option("--smoke", help="However few clips there are; not comparable.")]

# What makes the clips, and how.
Model = Annotated[str, option("--model", help="Model, e.g. videofusion or 'vdm(steps=50)'.")]
Checkpoint = Annotated[
    str | None, option("--checkpoint", help="Folder that `train` wrote, or hub:owner/name[@revision].")
]
Steps = Annotated[int | None, option("--steps", help="Sampling steps.")]
Solver = Annotated[str | None, option("--solver", help="ddim, ddpm or dpm++2m.")]
Eta = Annotated[float | None, option("--eta", help="Fresh noise of ddim: 0 is none, 1 as much as ddpm.")]
Guidance = Annotated[float | None, option("--guidance", help="Classifier-free guidance weight; 1 is none.")]
Threshold = Annotated[
    float | None, option("--threshold", help="Dynamic thresholding: a quantile of each clip, e.g. 0.995.")
]
BatchSize = Annotated[str, option("--batch-size", help="Clips per network call; a clip changes by rounding at most.")]

# Where it runs, and what is printed.
Device = Annotated[str, option("--device", help="auto, cpu or cuda.")]
Dtype = Annotated[str, option("--dtype", help="auto, float32 or bfloat16 (auto on a GPU).")]
AsJson = Annotated[bool, option("--json", help="Print JSON instead of text.")]
