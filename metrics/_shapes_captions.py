"""Captions of Moving Shapes with another word in one place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vfbench.errors import UserError

TEMPLATE = "a {size} {colour} {shape} {motion} over {ground} {texture}"
_DIFFERENT = {"colour": "ground", "ground": "colour"}  # shape and ground never have the same colour


class CaptionVariants:
    """Captions that differ from a given one in one attribute; `words` are those of each attribute."""

    def __init__(self, words: Mapping[str, Sequence[str]]) -> None:
        self.words = words
        groups = {name: f"(?P<{name}>{'|'.join(options)})" for name, options in words.items()}
        self._pattern = re.compile(TEMPLATE.format(**groups))

    def others(self, caption: str) -> dict[str, list[str]]:
        """For each attribute, the captions with another word for it; raises `UserError` for another form of caption."""
        match = self._pattern.fullmatch(caption)
        if match is None:
            raise UserError(
                f"caption '{caption}' is not of the form '{TEMPLATE}', so its attributes cannot be judged: choose "
                "--metrics without attributes"
            )
        given = match.groupdict()
        return {
            name: [
                TEMPLATE.format(**{**given, name: word})
                for word in options
                if word not in (given[name], given.get(_DIFFERENT.get(name, "")))
            ]
            for name, options in self.words.items()
        }
