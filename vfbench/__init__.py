"""vfbench: the benchmark that makes video-generation numbers comparable.

    import vfbench

    result = vfbench.run(model="videofusion", dataset="shapes", num_samples=256)
    print(result.scores["fvd"].value)
    vfbench.table([result])                  # a table in a notebook, and .to_markdown(), .to_frame()

Importing vfbench does not import torch. Mistakes raise `vfbench.errors.UserError`, with the option that mends them. The
interfaces of plug-ins are in `vfbench.interfaces`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vfbench.errors import UserError
from vfbench.pipeline.options import RunOptions
from vfbench.scoring.options import ScoreOptions
from vfbench.training.options import TrainJob
from vfbench.utils.options import keywords, values_of

if TYPE_CHECKING:
    from vfbench.pipeline.plan import Plan
    from vfbench.pipeline.recall import Recalled
    from vfbench.pipeline.replay import Replay
    from vfbench.report.compare import ComparisonResult
    from vfbench.report.drift_table import Drift
    from vfbench.report.gate import GateResult
    from vfbench.report.published import Published
    from vfbench.report.render import Table
    from vfbench.report.results import Result

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "compare",
    "drift",
    "gate",
    "import_results",
    "load_results",
    "plan",
    "replay",
    "run",
    "score",
    "table",
    "train",
    "write_report",
]


@keywords(RunOptions)
def run(options: RunOptions) -> Result:
    """Generate clips with a model, score them, and return the result, as `results.json` in the run folder holds it.

    The keyword arguments are the fields of `vfbench.pipeline.options.RunOptions`, and the flags of `vfbench run`. The
    same call again resumes: finished chunks are kept. `workers` processes share the work, and so do all that make the
    same call, on any machine that sees the run folder. Raises `UserError` for options that do not fit together, and
    `MissingData` for missing files, with the command that gets them.
    """
    from vfbench.pipeline import executor, worker_job
    from vfbench.pipeline.workers import Rank
    from vfbench.utils import console, store, trackers

    if (folder := executor.run_workers("vfbench:run", options)) is not None:
        (result,) = load_results(folder)
    else:
        from vfbench.pipeline.job import run as carry_out

        run_plan = plan(**values_of(options))
        console.info(run_plan.describe())
        result = carry_out(run_plan)
    if options.log_to and Rank.from_environment().number == 0 and not worker_job.is_worker():
        place = store.local_path(result.run_dir)
        with trackers.tracker(options.log_to, place) as log:
            log(0, {name: score.value for name, score in result.scores.items()})
        if remote := store.Store.of(result.run_dir):
            remote.publish(*(place / name for name in trackers.FOLDERS if (place / name).is_dir()))
    return result


@keywords(RunOptions)
def plan(options: RunOptions) -> Plan:
    """Load and check everything that `run` needs, and return its plan: folder, protocol, cost and time.

    Takes the keyword arguments of `run`, and raises the same errors.
    """
    from vfbench.pipeline.plan import plan as make_plan
    from vfbench.training.budget import training_advice

    setup = (options.model, options.dataset, options.data_root, options.checkpoint, options.protocol)
    with training_advice(*setup, smoke=options.smoke):
        return make_plan(options)


@keywords(ScoreOptions)
def score(options: ScoreOptions) -> Result:
    """Score clips made elsewhere against real ones, or features against features, and return the result.

    The keyword arguments are the fields of `vfbench.scoring.options.ScoreOptions`, and the flags of `vfbench score`.
    Raises `UserError` where a side does not fit the protocol or the other side, and `MissingData` naming the first clip
    that cannot be read: the others alone are not scored.
    """
    from vfbench.scoring.job import score as carry_out
    from vfbench.scoring.plan import plan
    from vfbench.utils import console

    score_plan = plan(options)
    console.info(score_plan.describe())
    return carry_out(score_plan)


@keywords(TrainJob)
def train(job: TrainJob) -> Path:
    """Train a model on a dataset, and return the folder of its checkpoint.

    The keyword arguments are the fields of `vfbench.training.options.TrainJob`, and the flags of `vfbench train`.
    Raises `UserError` for options that the model or the dataset does not support.
    """
    from vfbench.training.train import train_job

    return train_job(job)


def load_results(*paths: str | Path) -> list[Result]:
    """Results of runs and scores, each given as a folder or a `results.json`.

    Raises `MissingData` naming a file that is missing or damaged.
    """
    from vfbench.report.results import load

    return load(paths)


def table(
    results: Sequence[Result | str | Path],
    *,
    allow_mixed: bool = False,
    published: Published = "none",
    mean: bool = False,
) -> Table:
    """Results side by side, one row each; a result may be given as its folder.

    `mean` puts the runs of a model that differ only in seed or training on one row, with Student's interval over them.
    `published` adds the scores that papers print for the dataset, of `high` confidence, of `medium` or more, or `all`.
    Raises `UserError` where protocols differ; `allow_mixed` shows such rows with a mark instead.
    """
    from vfbench.report.results import load
    from vfbench.report.seeds import averaged
    from vfbench.report.table import build

    if isinstance(results, str | Path):
        raise UserError(f"table takes a list of results: write table([{str(results)!r}])")
    loaded = [result for each in results for result in (load([each]) if isinstance(each, str | Path) else [each])]
    unique = {id(result) if not result.run_id else (result.run_id, result.run_dir): result for result in loaded}
    rows = averaged(list(unique.values())) if mean else list(unique.values())
    return build(rows, allow_mixed=allow_mixed, published=published)


def compare(a: str | Path, b: str | Path, metrics: Sequence[str] = ()) -> list[ComparisonResult]:
    """Differences A - B of two results by metric, each with a test.

    The test is paired where both runs answer the same requests and keep their features, else unpaired. `metrics` are by
    default all that both have. Raises `UserError` where the protocols differ, and `MissingData` where features are
    damaged or the real clips differ.
    """
    from vfbench.report.compare import compare as compare_results

    return compare_results(Path(a), Path(b), metrics)


def drift(a: str | Path, *others: str | Path, device: str = "auto") -> Drift:
    """Closeness of the clips of other recipes to those of `a`, clip by clip, beside FVD and speed-up.

    Each is the folder of a run made with `keep_clips`, of `vfbench generate`, or of clips. Raises `UserError` where no
    request is common, prompts or shapes of clips differ, and `MissingData` where clips are missing or damaged.
    """
    from vfbench.clips.kept import kept_clips, pairs
    from vfbench.report.drift import drift as measure

    if not others:
        raise UserError("drift compares a reference with at least one other recipe: write drift(a, b)")
    reference, *rest = (kept_clips(Path(each)) for each in (a, *others))
    return measure(reference, [(each, pairs(reference, each)) for each in rest], device)


def replay(
    record: str | Path,
    *,
    output: str | Path | None = None,
    device: str | None = None,
    data_root: str | Path | None = None,
    model: str | None = None,
    dataset: str | None = None,
    metrics: Sequence[str] = (),
    extractors: Sequence[str] = (),
) -> Replay:
    """Make a run again from its record, a run folder or a `results.json`, and return both results and what differs.

    The new run goes to `output`, by default `runs/replay-<id>`. A module of a third party that the record names is
    imported only where `model`, `dataset`, `metrics` or `extractors` repeats it. Raises `UserError` where it does not,
    `MissingData` for a damaged record, and the errors of `run`.
    """
    from vfbench.pipeline import replay as replays
    from vfbench.utils import console

    repeated = replays.Repeated(model, dataset, metrics, extractors)
    changed = {"output": output, "device": device, "data_root": data_root}
    options = replays.replay_options(Path(record), repeated, changed)
    (recorded,) = load_results(record)
    if recorded.integrity == "edited":
        console.warn(recorded.edited_message)
    result = run(**values_of(options))
    return replays.Replay(recorded, result, replays.changes(recorded, result))


def import_results(
    file: str | Path, format: str, *, output: str | Path | None = None, name: str = "", dataset: str = ""
) -> Result:
    """Result with the scores that another tool wrote to a file, marked unverified and written to the folder `output`.

    `format` is `cd-fvd`, `stylegan-v`, `vbench` or `torch-fidelity`. Raises `UserError` for another one and where
    `output`, by default `runs/import-<file>`, holds another result, and `MissingData` for a file that is damaged, of
    another tool, or with a number that is not finite.
    """
    from vfbench.report.imported import import_results as take

    return take(Path(file), format, output=Path(output) if output else None, name=name, dataset=dataset)


def gate(
    result: Result | str | Path,
    baseline: Result | str | Path,
    rules: Sequence[str],
    *,
    history: Sequence[str | Path] = (),
    detectable: float = 100.0,
) -> list[GateResult]:
    """Outcomes of the rules of a regression gate, such as `fvd:+5%` or `seconds:+10%+0.05`; each has a `status`.

    A rule on a score compares with the baseline: paired where both run folders have the same seed. A rule on a cost
    compares with the median of the runs in `history` on the same hardware. `detectable` is the largest change, in
    percent of the baseline, that may go unseen. Raises `UserError` for a rule that cannot be read, different protocols
    and an edited result, and `MissingData` for a missing file.
    """
    from vfbench.report import cost_gate

    loaded = [load_results(each)[0] if isinstance(each, str | Path) else each for each in (result, baseline)]
    runs = cost_gate.load_history([Path(path) for path in history])
    return cost_gate.gate(loaded[0], loaded[1], rules, runs, detectable=detectable)


def write_report(
    results: Sequence[str | Path],
    output: str | Path,
    *,
    allow_mixed: bool = False,
    published: Published = "none",
    num_clips: int = 64,
) -> Path:
    """Write a report of results to the folder `output`, and return its `index.html`, which opens without a server.

    `results` are folders of runs or scores, or `results.json` files. Clips are shown of runs with `keep_clips`, the
    first `num_clips` of each, beside the real ones. An older report in the folder is replaced. Raises `UserError` where
    protocols differ (`allow_mixed` marks them instead) or the folder holds something else, `MissingData` for a result
    that cannot be read, and, when the report is written, `Incomplete` naming the clips that are missing in it.
    """
    from vfbench.report.html import write

    if isinstance(results, str | Path):
        raise UserError(f"write_report takes a list of results: write write_report([{str(results)!r}], ...)")

    def recall(folder: Path) -> Recalled:
        from vfbench.pipeline.recall import recall as load  # imports torch

        return load(folder)

    loaded = load_results(*results)
    return write(
        loaded,
        Path(output),
        recall,
        allow_mixed=allow_mixed,
        published=published,
        num_clips=num_clips,
        version=__version__,
    )
