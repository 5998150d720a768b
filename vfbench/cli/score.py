"""`score`: score clips or features made elsewhere, as `run` scores a model."""

from __future__ import annotations

import vfbench
from vfbench.cli import _options as flags
from vfbench.cli._options import flags_from, next_command, print_plans, print_result
from vfbench.scoring.options import ScoreOptions
from vfbench.utils import console
from vfbench.utils.options import values_of


@flags_from(ScoreOptions)
def score(options: ScoreOptions, dry_run: flags.DryRun = False, as_json: flags.AsJson = False) -> None:
    """Score clips made elsewhere against real ones, or features against features, and print the table."""
    if dry_run:
        from vfbench.scoring.plan import plan

        print_plans([(plan(options), None)], as_json)
        return
    result = vfbench.score(**values_of(options))
    print_result(result, as_json)
    console.info(f"score: {result.run_dir}")
    next_command("table", result.run_dir, "OTHER_RUN", *([] if result.protocol.comparable else ["--allow-mixed"]))
