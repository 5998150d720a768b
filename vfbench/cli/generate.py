"""`generate`: write clips of a model to files."""

from __future__ import annotations

from vfbench.cli._options import flags_from, next_command
from vfbench.pipeline.options import ExportOptions
from vfbench.utils import console


@flags_from(ExportOptions)
def generate(options: ExportOptions) -> None:
    """Generate clips with a model and write them to a folder, with the request of each."""
    from vfbench.pipeline.eval_setup import CLIPS
    from vfbench.pipeline.export import export, plan
    from vfbench.training.budget import training_advice

    with training_advice(options.model, options.dataset, options.data_root, options.checkpoint, scored=False):
        export_plan = plan(options)
    folder = export(export_plan)
    console.info(f"clips: {folder}/clips  look at: {folder}/sheet.png  watch: {folder}/videos")
    if not export_plan.format.exact:
        console.info(
            "note: WebP stores equal neighbours as one frame; to score clips, give --format mp4, npy or png-folder"
        )
        return
    if options.num_samples < 3:  # too few for a score
        return
    prompts = ["--prompts", folder / "prompts.tsv"] if "prompts.tsv" in export_plan.tables() else []
    root = ["--data-root", options.data_root] if options.data_root else []
    smoke = ["--smoke"] if options.num_samples < CLIPS["cpu"] else []
    next_command("score", "--real", options.dataset, *root, "--fake", folder / "clips", *prompts, *smoke)
