"""`generate`: write clips of a model to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vfbench.cli._options import flags_from, next_command
from vfbench.pipeline.options import ExportOptions
from vfbench.utils import console
from vfbench.utils.options import values_of


@flags_from(ExportOptions)
def generate(options: ExportOptions) -> None:
    """Generate clips with a model and write them to a folder, with the request of each; the same command resumes."""
    from vfbench.pipeline import executor

    if executor.run_workers("vfbench.cli.generate:write_clips", options) is None:
        write_clips(**values_of(options))

    from vfbench.pipeline.eval_setup import CLIPS
    from vfbench.video.encode import FORMATS

    folder = options.output
    console.info(f"clips: {folder}/clips  look at: {folder}/sheet.png  watch: {folder}/videos")
    if not FORMATS[options.format].exact:
        console.info(
            "note: WebP stores equal neighbours as one frame; to score clips, give --format mp4, npy or png-folder"
        )
        return
    if options.num_samples < 3:  # too few for a score
        return
    prompts = ["--prompts", folder / "prompts.tsv"] if (folder / "prompts.tsv").exists() else []
    root = ["--data-root", options.data_root] if options.data_root else []
    smoke = ["--smoke"] if options.num_samples < CLIPS["cpu"] else []
    next_command("score", "--real", options.dataset, *root, "--fake", folder / "clips", *prompts, *smoke)


def write_clips(**values: Any) -> Path:
    """Carry out `generate` in this process; each worker calls it."""
    from vfbench.pipeline.clip_chunks import export
    from vfbench.pipeline.export import plan
    from vfbench.training.budget import training_advice

    options = ExportOptions(**{**values, "output": Path(values["output"])})
    with training_advice(options.model, options.dataset, options.data_root, options.checkpoint, scored=False):
        export_plan = plan(options)
    return export(export_plan)
