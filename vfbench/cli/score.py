"""`score`: what others made, scored like a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from vfbench.cli import _options as flags
from vfbench.cli import config
from vfbench.cli._options import Context, next_command, option


def score(
    context: Context,
    real: Annotated[str, option("--real", help="Dataset, e.g. ucf101 or 'shapes(frames=8)', or a folder of clips.")],
    fake: Annotated[Path, option("--fake", help="Generated clips: folder of videos, frame folders, .npy or .npz.")],
    protocol: flags.Protocol = None,
    metrics: flags.Metrics = "",
    listing: Annotated[
        Path | None, option("--list", help="File of the generated clips that count, a relative path a line.")
    ] = None,
    prompts: Annotated[
        Path | None, option("--prompts", help="File of what each was asked for: path, tab, prompt; for CLIPSIM.")
    ] = None,
    num_real: flags.NumReal = None,
    manifest: flags.Manifest = None,
    weights: flags.Weights = "default",
    extractor: flags.Extractor = None,
    device: flags.Device = "auto",
    data_root: flags.DataRoot = None,
    output: Annotated[Path | None, option("--output", help="Folder of the result; runs/score-<name>-<id>.")] = None,
    name: Annotated[str | None, option("--name", help="Row in tables; the folder's name by default.")] = None,
    smoke: flags.Few = False,
    dry_run: Annotated[bool, option("--dry-run", help="Say what was found and stop.")] = False,
    as_json: flags.AsJson = False,
) -> None:
    """Score clips that others made, against real ones, and print the table. Or features against features."""
    from vfbench.report import render, table
    from vfbench.scoring import ScoreOptions, look
    from vfbench.scoring import score as start
    from vfbench.utils import files

    options = ScoreOptions(
        real=real,
        fake=fake,
        protocol=protocol,
        metrics=config.listed(metrics),
        listing=listing,
        prompts=prompts,
        num_real=num_real,
        manifest=manifest,
        weights=weights,
        extractors=extractor or (),
        device=device,
        data_root=data_root,
        output=output,
        name=name,
        smoke=smoke,
        origins=config.origins(context),
    )
    scoring = look(options)
    if dry_run:
        print(files.as_json(scoring.specification) if as_json else scoring.describe())
        return
    print(scoring.describe(), file=sys.stderr)
    result = start(scoring)
    text = files.as_json(result) if as_json else render.to_markdown(table.build([result], allow_mixed=True))
    print(text, end="")
    print(f"score: {scoring.folder}", file=sys.stderr)
    mixed = [] if result["protocol"]["comparable"] else ["--allow-mixed"]
    next_command("table", scoring.folder, "OTHER_RUN", *mixed)
