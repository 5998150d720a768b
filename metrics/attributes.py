"""Attributes: the share of Moving Shapes clips that show what their caption asks for."""

from __future__ import annotations

from statistics import fmean
from typing import Annotated

from vfbench.errors import unknown
from vfbench.interfaces import PairedMetric
from vfbench.metrics._clip_statistic import ClipStatistic

SOURCE = "shapes_judge.attributes"  # default, unless the protocol names another source
# Attributes in the order of the judge's columns, and the number of words that a caption may have for each. Shape and
# ground never have the same colour.
WORDS = {"motion": 10, "shape": 3, "size": 2, "colour": 7, "ground": 7, "texture": 4}
ATTRIBUTES = tuple(WORDS)
PARTS = {attribute: f"attributes(attribute='{attribute}')" for attribute in ATTRIBUTES}  # scores beside the mean


def build(
    *, attribute: Annotated[str | None, ATTRIBUTES, "One attribute; by default the mean over all."] = None
) -> PairedMetric:
    """Share of clips, 0 to 1, that fit their caption better than any caption with another word for the attribute.

    The judge of Moving Shapes compares clip and captions. A clip made at random is right in 1 of as many cases as there
    are words. `attribute` is one of `ATTRIBUTES`; without it the score is the mean of all six. Raises `UserError` for
    another name.
    """
    if attribute is not None and attribute not in WORDS:
        raise unknown("attribute", attribute, WORDS)
    chances = {name: 1 / count for name, count in WORDS.items()}
    return ClipStatistic(
        name=attribute or "attributes",
        title=attribute or "attributes",
        output="attributes",
        columns=len(WORDS),
        column=None if attribute is None else ATTRIBUTES.index(attribute),
        lowest=0.0,
        minimum=64,
        is_share=True,
        chance=fmean(chances.values()) if attribute is None else chances[attribute],
        part_of="attributes" if attribute else "",
    )
