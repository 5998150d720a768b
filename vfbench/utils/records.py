"""Typed records of files that somebody else may have written: every field has a type, a range and a length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vfbench.errors import MissingData
from vfbench.utils.escape import printable

LONGEST = 2**20  # characters of a text
Text = Annotated[str, Field(max_length=LONGEST)]
Name = Annotated[str, Field(max_length=200, pattern=r"^[\w.-]+$")]  # of a plug-in
Id = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]  # on one line
Hash = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]  # SHA-256, or empty
Integer = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0)]
Size = Annotated[int, Field(strict=True, gt=0, le=2**20)]  # of a picture, a clip or a layer
Layers = Annotated[int, Field(strict=True, gt=0, le=512)]
STRICT = ConfigDict(strict=True, extra="forbid")  # a number is no text, True no number, and no field unknown
Flag = Annotated[bool, Field(strict=True)]
Kind = TypeVar("Kind", bound=BaseModel)


def validate(kind: type[Kind], content: Mapping[str, Any], path: Path, advice: str) -> Kind:
    """The content of the file `path` as a record; raises `MissingData` naming file and field, with `advice`."""
    try:
        return kind.model_validate(content)
    except ValueError as error:
        raise MissingData(f"{path}: {first_problem(error)}; {advice}") from error


def first_problem(error: Exception) -> str:
    """First invalid field with the reason: `scores.fvd.floor: Field required`; the text of any other error."""
    if not isinstance(error, ValidationError):
        return printable(str(error))
    problem = error.errors(include_url=False, include_input=False)[0]
    field, reason = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
    return printable(f"{field[:200]}: {reason[:400]}" if field else reason[:400])
