"""`hub`: push checkpoints to the Hugging Face hub, and pull them from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vfbench.cli._help import Command, Group
from vfbench.cli._options import next_command, option
from vfbench.utils import console

hub = typer.Typer(
    cls=Group, no_args_is_help=True, rich_markup_mode=None, help="Share checkpoints on the Hugging Face hub."
)


@hub.command("push", cls=Command)
def hub_push(
    folder: Annotated[Path, typer.Argument(help="Folder of the checkpoint.", metavar="DIR")],
    name: Annotated[str, typer.Argument(help="Repository: owner/name.")],
    private: Annotated[bool, option("--private", help="Make the repository private.")] = False,
    revision: Annotated[str | None, option("--revision", help="Branch to write to.")] = None,
) -> None:
    """Verify the weights of a checkpoint, then upload it with its card, and no other file of the folder."""
    from vfbench.diffusion import hub

    url = hub.push(folder, name, private=private, revision=revision)
    if not (folder / hub.CARD_FILE).is_file():
        console.warn(f"{folder} has no {hub.CARD_FILE}, so the hub shows no model card")
    console.result(url)
    next_command("hub", "pull", hub.hub_name(name, revision))


@hub.command("pull", cls=Command)
def hub_pull(
    name: Annotated[str, typer.Argument(help="Repository: owner/name.")],
    revision: Annotated[str | None, option("--revision", help="Branch, tag or commit.")] = None,
    output: Annotated[Path | None, option("--output", help="Folder to write to; the hub's cache by default.")] = None,
) -> None:
    """Download a checkpoint and no other file of the repository, verify its weights, and print how to score it."""
    from vfbench.diffusion import hub
    from vfbench.training import model_card

    folder = hub.pull(name, revision=revision, output=output)
    console.result(str(folder))
    next_command(*model_card.command(hub.read_config(folder), output or hub.hub_name(name, revision)))
