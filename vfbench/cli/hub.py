"""`hub`: checkpoints to and from the Hugging Face hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vfbench.cli._options import next_command, option

hub = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Share checkpoints on the Hugging Face hub.")


@hub.command("push")
def hub_push(
    folder: Annotated[Path, typer.Argument(help="Folder of the checkpoint.", metavar="DIR")],
    name: Annotated[str, typer.Argument(help="Where to: owner/name.")],
    private: Annotated[bool, option("--private", help="Nobody else may see it.")] = False,
    revision: Annotated[str | None, option("--revision", help="Branch to write to.")] = None,
) -> None:
    """Upload a checkpoint and its card, after its weights are verified; nothing else of the folder."""
    from vfbench.diffusion import hub

    url = hub.push(folder, name, private=private, revision=revision)
    if not (folder / hub.CARD).is_file():
        print(f"warning: {folder} has no {hub.CARD}, so the hub shows no model card", file=sys.stderr)
    print(url)
    next_command("hub", "pull", hub.named(name, revision))


@hub.command("pull")
def hub_pull(
    name: Annotated[str, typer.Argument(help="Which: owner/name.")],
    revision: Annotated[str | None, option("--revision", help="Branch, tag or commit.")] = None,
    output: Annotated[
        Path | None, option("--output", help="Folder to put it in; by default the hub's own cache.")
    ] = None,
) -> None:
    """Download a checkpoint, verify its weights, and say how to score it; nothing else of the repository."""
    from vfbench.diffusion import hub
    from vfbench.training import model_card

    folder = hub.pull(name, revision=revision, output=output)
    print(folder)
    next_command(*model_card.command(hub.config(folder), output or hub.named(name, revision)))
