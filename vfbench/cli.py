"""The command line: flags in, one call, text out. Nothing here that a Python user would miss.

Heavy modules are imported inside the commands, so that `--help` and a mistyped flag answer at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from vfbench import arguments
from vfbench.errors import GateFailed, Interrupted, UserError

if TYPE_CHECKING:
    from typer import Context
else:
    Context = typer.Context.__base__  # typer takes a parameter of its own class, and passes one of this


class _Commands(TyperGroup):
    """All commands. Ctrl-C ends each with exit code 130 and the command that goes on."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given; `ctx.obj` holds its arguments."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message += arguments.place(error)
            raise
        except KeyboardInterrupt:
            again = shlex.join(["python", "-m", "vfbench", *ctx.obj])
            raise Interrupted(f"stopped; what is done is kept, go on with\n  {again}") from None


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it takes [run] for markup, and breaks lines that a script may want to read
    help="Benchmark video-generation models: generate clips, score them, put the scores side by side.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _option(*flags: str, help: str, **more: Any) -> Any:  # typer's own word
    """An option that can also be given as VFBENCH_<FLAG>."""
    name = next(flag for flag in flags if flag.startswith("--")).lstrip("-").replace("-", "_").upper()
    return typer.Option(*flags, help=help, envvar=f"VFBENCH_{name}", show_envvar=False, **more)


@app.callback()
def _main(
    context: Context,
    config: Annotated[
        Path | None, _option("--config", help="TOML file with one table per command, e.g. [run] steps = 50.")
    ] = None,
) -> None:
    if config is not None:
        commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group has commands
        context.default_map = arguments.defaults(config, commands)


@app.command()
def run(
    context: Context,
    model: Annotated[str, _option("--model", help="Model, e.g. videofusion or 'vdm(steps=50)'.")] = "videofusion",
    dataset: Annotated[str, _option("--dataset", help="Dataset, e.g. shapes or ucf101.")] = "shapes",
    protocol: Annotated[str | None, _option("--protocol", help="Protocol; the dataset's own by default.")] = None,
    metrics: Annotated[str, _option("--metrics", help="Comma-separated: fvd,kvd,is,clipsim; all by default.")] = "",
    num_samples: Annotated[
        int | None, _option("-n", "--num-samples", help="Clips to generate: 256 on a CPU, 2048 on a GPU.")
    ] = None,
    seed: Annotated[int, _option("--seed", help="Seed of the run; clip i has its own, derived from (seed, i).")] = 0,
    steps: Annotated[int | None, _option("--steps", help="Sampling steps.")] = None,
    solver: Annotated[str | None, _option("--solver", help="ddim, ddpm or dpm++2m.")] = None,
    guidance: Annotated[float | None, _option("--guidance", help="Classifier-free guidance weight; 1 is none.")] = None,
    batch_size: Annotated[str, _option("--batch-size", help="Clips per network call; never changes a clip.")] = "auto",
    device: Annotated[str, _option("--device", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, _option("--dtype", help="auto, float32 or bfloat16 (auto on a GPU).")] = "auto",
    data_root: Annotated[Path | None, _option("--data-root", help="Folder of the dataset's files.")] = None,
    checkpoint: Annotated[Path | None, _option("--checkpoint", help="Folder that `train` wrote.")] = None,
    output: Annotated[Path | None, _option("--output", help="Run folder; runs/<model>-<dataset>-<id>.")] = None,
    keep_clips: Annotated[bool, _option("--keep-clips", help="Keep every clip, lossless, in the chunks.")] = False,
    smoke: Annotated[bool, _option("--smoke", help="A few clips through the whole path; not comparable.")] = False,
    dry_run: Annotated[bool, _option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Annotated[bool, _option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Generate clips with a model, score them, print the table. The same command again resumes."""
    from vfbench import files, render, table
    from vfbench.plan import RunOptions, plan
    from vfbench.run import run as start

    options = RunOptions(
        model=model,
        dataset=dataset,
        protocol=protocol,
        metrics=arguments.listed(metrics),
        num_samples=num_samples,
        seed=seed,
        steps=steps,
        solver=solver,
        guidance=guidance,
        batch_size=_whole(batch_size),
        device=device,
        dtype=dtype,
        data_root=data_root,
        checkpoint=checkpoint,
        output=output,
        keep_clips=keep_clips,
        smoke=smoke,
        origins=arguments.origins(context),
    )
    planned = plan(options)
    if dry_run:
        print(files.as_json(planned.specification) if as_json else planned.describe())
        return
    print(planned.describe(), file=sys.stderr)
    result = start(planned)
    text = files.as_json(result) if as_json else render.to_markdown(table.build([result], allow_mixed=True))
    print(text, end="")
    print(f"run: {planned.folder}  look at: {planned.folder}/samples/sheet.png", file=sys.stderr)
    _next("table", planned.folder, "OTHER_RUN", *(["--allow-mixed"] if smoke else []))


@app.command()
def train(
    model: Annotated[str, _option("--model", help="Model to train.")] = "videofusion",
    dataset: Annotated[str, _option("--dataset", help="Dataset to train on.")] = "shapes",
    preset: Annotated[str, _option("--preset", help="Size of the model; see `vfbench show model NAME`.")] = "tiny",
    steps: Annotated[int, _option("--steps", help="Optimiser steps.")] = 3600,
    output: Annotated[
        Path | None, _option("--output", help="Folder of the checkpoint; runs/train-<model>-<dataset>.")
    ] = None,
    batch_size: Annotated[int, _option("--batch-size", help="Clips a step.")] = 16,
    lr: Annotated[float, _option("--lr", help="Peak learning rate.")] = 1e-3,
    seed: Annotated[int, _option("--seed", help="Seed of weights, data and noise.")] = 0,
    device: Annotated[str, _option("--device", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, _option("--dtype", help="auto, float32 or bfloat16 (auto on a GPU).")] = "auto",
    data_root: Annotated[Path | None, _option("--data-root", help="Folder of the dataset's files.")] = None,
    save_every: Annotated[int, _option("--save-every", help="Steps between checkpoints.")] = 200,
    sample_every: Annotated[int, _option("--sample-every", help="Steps between sample sheets.")] = 600,
    resume: Annotated[bool, _option("--resume", help="Go on where an earlier run stopped.")] = False,
    half: Annotated[bool, _option("--half", help="Write the weights in half precision.")] = False,
    compile: Annotated[bool, _option("--compile", help="Compile the networks: slow to start, then faster.")] = False,
) -> None:
    """Train a model; Ctrl-C saves, --resume goes on."""
    from vfbench import device as devices
    from vfbench.train import TrainOptions, prepare
    from vfbench.train import train as start

    network, data = prepare(model, dataset, preset, seed=seed, data_root=data_root)
    where = devices.choose(device)
    options = TrainOptions(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        dtype=str(devices.precision(dtype, where)).removeprefix("torch."),
        device=where.type,
        save_every=save_every,
        sample_every=sample_every,
        half=half,
        compile=compile,
    )
    folder = output or Path("runs") / f"train-{model}-{data.name}"
    start(network, data, options, folder, resume=resume)
    print(f"checkpoint: {folder}  samples: {folder}/samples", file=sys.stderr)
    root = ["--data-root", data_root] if data_root else []
    _next("run", "--model", model, "--dataset", dataset, *root, "--checkpoint", folder)


@app.command()
def table(
    results: Annotated[list[Path], typer.Argument(help="Run folders or results.json files.")],
    form: Annotated[
        Literal["markdown", "csv", "latex"], _option("--format", help="What to print on stdout.")
    ] = "markdown",
    output: Annotated[Path | None, _option("--output", help="Write there instead; .md, .csv or .tex.")] = None,
    allow_mixed: Annotated[bool, _option("--allow-mixed", help="Show different protocols together, marked.")] = False,
) -> None:
    """Put results side by side."""
    from vfbench import files, render
    from vfbench import table as tables

    made = tables.build(tables.load(results), allow_mixed=allow_mixed)
    suffixes = {".md": "markdown", ".csv": "csv", ".tex": "latex"}
    if output is not None and output.suffix not in suffixes:
        raise UserError(f"--output {output}: end the name in {', '.join(suffixes)}")
    chosen = suffixes[output.suffix] if output else form
    write = {"markdown": render.to_markdown, "csv": render.to_csv, "latex": render.to_latex}[chosen]
    if output is None:
        print(write(made), end="")
        return
    files.write_text(output, write(made))
    print(f"wrote {output}", file=sys.stderr)


@app.command()
def gate(
    result: Annotated[Path, typer.Argument(help="Run folder or results.json.")],
    baseline: Annotated[Path, _option("--baseline", help="Result to compare with.")],
    rule: Annotated[list[str], _option("--rule", help="How much worse is allowed, e.g. fvd:+5% or is:-0.3.")],
) -> None:
    """Exit 3 when a score is worse than its baseline by more than a rule allows, and outside both intervals."""
    from vfbench import gate as gates
    from vfbench import table as tables

    ours, theirs = tables.load([result])[0], tables.load([baseline])[0]
    verdicts = gates.gate(ours, theirs, rule)
    for verdict in verdicts:
        print(verdict)
    gates.require(verdicts)


@app.command("ls")
def ls(
    what: Annotated[
        Literal["models", "datasets", "metrics", "extractors", "protocols"], typer.Argument(help="What to list.")
    ],
) -> None:
    """List what there is to choose from."""
    from vfbench import plugins

    names: dict[str, str]
    if what == "protocols":
        from vfbench.plan import protocols

        names = {name: f"for {dataset}" for dataset in plugins.names("dataset") for name in protocols(dataset)}
    else:
        names = plugins.names(what.removesuffix("s"))  # type: ignore[arg-type]  # one of its kinds
    width = max(map(len, names), default=0)
    for name, text in names.items():
        print(f"{name:<{width}}  {text}".rstrip())


@app.command()
def show(
    kind: Annotated[Literal["model", "dataset", "metric"], typer.Argument(help="What it is.")],
    name: Annotated[str, typer.Argument(help="Its name; see `vfbench ls`.")],
) -> None:
    """Show what a plug-in is, the options it takes and its presets."""
    from vfbench import plugins

    module = plugins.module(kind, name)
    print((module.__doc__ or name).strip())
    for option, default in plugins.options(kind, name).items():
        print(f"  {option} = {default!r}")
    for preset, fields in getattr(module, "PRESETS", {}).items():
        print(f"preset {preset}: {json.dumps(fields)}")


def _next(*words: object) -> None:
    """Say which command looks at what was made."""
    print(f"next: {shlex.join(['python', '-m', 'vfbench', *map(str, words)])}", file=sys.stderr)


def _whole(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"--batch-size {text}: a whole number, or auto") from error


def main(given: list[str] | None = None) -> None:
    """Run the command line and exit with its code (see `vfbench.errors`); a usage error exits with 2."""
    given = arguments.normal(sys.argv[1:] if given is None else given)
    warnings.showwarning = _warn  # type: ignore[assignment]  # it needs the message alone
    try:
        try:
            app(given, prog_name="vfbench", obj=given)
        except UserError as error:
            failed = error.exit_code == GateFailed.exit_code  # a verdict, not a mistake
            print(error if failed else f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; what is left must not be tried again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _warn(message: Warning | str, *_: Any) -> None:
    """A warning as a line to read, without the place in our code that gave it."""
    print(f"warning: {message}", file=sys.stderr)
