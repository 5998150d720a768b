"""Division of a run into chunks, in a module that imports nothing heavy: `vfbench status` reads it at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vfbench.errors import MissingData
from vfbench.utils.files import read_json


@dataclass(frozen=True, kw_only=True)
class ChunkLayout:
    """Division of the requests into chunks, and what else fixes their bytes: clips per batch, threads of a CPU."""

    requests: int
    chunk_size: int
    batch_size: int
    threads: int

    @property
    def sizes(self) -> list[int]:
        """Requests of each chunk."""
        starts = range(0, self.requests, self.chunk_size)
        return [min(self.chunk_size, self.requests - start) for start in starts]

    @classmethod
    def read(cls, file: Path) -> ChunkLayout:
        """The layout in a `run.json`; raises `MissingData` where it is not one."""
        content = read_json(file).get("layout")
        numbers = content if isinstance(content, dict) else {}
        for name in cls.__dataclass_fields__:
            if type(numbers.get(name)) is not int or numbers[name] < 1:
                raise MissingData(f"{file}: layout.{name} is {numbers.get(name)!r}: choose another --output")
        return cls(**{name: numbers[name] for name in cls.__dataclass_fields__})
