"""`score`: score clips or features made elsewhere, as `run` scores a model."""

from __future__ import annotations

import sys

from vfbench.cli import _options as flags
from vfbench.cli._options import flags_from, next_command, print_plan, print_result
from vfbench.scoring.options import ScoreOptions


@flags_from(ScoreOptions)
def score(options: ScoreOptions, dry_run: flags.DryRun = False, as_json: flags.AsJson = False) -> None:
    """Score clips made elsewhere against real ones, or features against features, and print the table."""
    from vfbench.scoring.job import score as execute
    from vfbench.scoring.plan import plan

    score_plan = plan(options)
    if dry_run:
        print_plan(score_plan, as_json)
        return
    print(score_plan.describe(), file=sys.stderr)
    result = execute(score_plan)
    print_result(result, as_json)
    print(f"score: {score_plan.folder}", file=sys.stderr)
    next_command("table", score_plan.folder, "OTHER_RUN", *([] if result.protocol.comparable else ["--allow-mixed"]))
