"""Scores that other tools have computed, as a result of their own that is marked unverified.

    cd-fvd           JSON {"fvd": 123.4, "model": "videomae", "n_real": 2048, "n_fake": 2048}, all but fvd optional
    stylegan-v       metric-*.jsonl: a line a snapshot, {"results": {"fvd2048_16f": 123.4}, "snapshot_pkl": ..., ...}
    vbench           *_eval_results.json: {dimension: [score, [{"video_path": ..., "video_results": ...}]]}
    torch-fidelity   JSON of its dictionary: {"frechet_inception_distance": 12.3, ...}

Their protocol is not known, so these rows compare with nothing: they are never the best, and the gate refuses them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vfbench.errors import MissingData, UserError, unknown
from vfbench.interfaces import Better
from vfbench.report.result_parts import ImportRecord, ProtocolRecord, ScoreRecord
from vfbench.report.results import RESULT_FILE, SCHEMA, Result, load
from vfbench.utils import escape, files, store, strict_json

Tool = Literal["cd-fvd", "stylegan-v", "vbench", "torch-fidelity"]
TOOLS: tuple[Tool, ...] = get_args(Tool)
LONGEST_NAME = 80  # characters of a metric
_LOWER = ("fvd", "kvd", "fid", "kid", "frechet", "kernel", "perceptual_path", "ppl", "lpips")  # beginnings of names
_TITLES = {"fvd": "FVD", "fvd_videomae": "FVD VideoMAE", "is": "IS", "fid": "FID", "kid": "KID"}
_COUNT = re.compile(r"[a-z]+?(?P<count>\d+)(?P<thousands>k?)(_.*)?")  # fvd2048_16f, fid50k_full: generated clips
_SPREAD = re.compile(r"_std$")


@dataclass(frozen=True)
class _Value:
    """A number of a file, with the numbers of real and generated clips where the file has them, else 0."""

    value: float
    n_real: int = 0
    n_fake: int = 0
    note: str = ""


def import_results(file: Path, tool: str, *, output: Path | None = None, name: str = "", dataset: str = "") -> Result:
    """Read the scores in a file of another tool, and write them as the `results.json` of the folder `output`.

    `output` is by default `runs/import-<file>`; `name` is that of the row in tables, by default that of the file.
    Raises `UserError` for an unknown tool and where `output` holds another result, and `MissingData` for a file that is
    not of that tool, is damaged, or holds a number that is not finite.
    """
    if tool not in TOOLS:
        raise unknown("tool", tool, TOOLS)
    values = _READERS[tool](file)
    if not values:
        raise MissingData(f"{file} holds no score of {tool}: give the file that it wrote")
    imported = ImportRecord(tool=tool, file=file.name, sha256=files.file_sha256(file))
    store.require_local("--output", output)
    target = output or Path("runs") / f"import-{file.stem}"
    result = _result(values, imported, target, name or file.stem, dataset)
    _require_free(target, result)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.write_error(target, error) from error
    result = result.signed()
    result.write(target / RESULT_FILE)
    return result


def _result(values: Mapping[str, _Value], imported: ImportRecord, target: Path, name: str, dataset: str) -> Result:
    known = {"tool": imported.tool, "dataset": dataset, "scores": {key: each.n_fake for key, each in values.items()}}
    protocol = {"id": files.json_digest(known)[:12], "name": imported.tool, "comparable": False, "dataset": dataset}
    notes = dict.fromkeys(each.note for each in values.values() if each.note)
    return Result(
        schema=SCHEMA,
        run_id=files.json_digest({**known, "file": imported.sha256, "name": name}),
        run_dir=str(target),
        model=name,
        weights="unknown",
        dataset=dataset or "not known",
        protocol=ProtocolRecord.model_validate(protocol),
        seed=None,
        scores={key: _score(key, each) for key, each in values.items()},
        cost=None,
        note="; ".join(notes),
        imported=imported,
    )


def _score(name: str, value: _Value) -> ScoreRecord:
    better: Better = "lower" if name.startswith(_LOWER) else "higher"
    title = _TITLES.get(name, name.replace("_", " "))
    return ScoreRecord(
        value=value.value,
        low=math.nan,
        high=math.nan,
        floor=math.nan,
        n_real=value.n_real,
        n_fake=value.n_fake,
        title=title,
        better=better,
    )


def _require_free(target: Path, result: Result) -> None:
    """Raise `UserError` where a folder holds another result, which is not overwritten."""
    if (target / RESULT_FILE).exists() and load([target])[0].run_id != result.run_id:
        raise UserError(f"{target} holds another result: choose another --output, or remove it")


# Formats.


def _cd_fvd(file: Path) -> dict[str, _Value]:
    content = files.read_json(file)
    name = "fvd_videomae" if content.get("model") == "videomae" else "fvd"
    counts = [content.get(key, 0) for key in ("n_real", "n_fake")]
    n_real, n_fake = (count if type(count) is int and count > 0 else 0 for count in counts)  # "full" is not a number
    return {name: _Value(_number(file, "fvd", content.get("fvd")), n_real, n_fake)}


def _stylegan_v(file: Path) -> dict[str, _Value]:
    """Scores of the last snapshot in the file, with a note on the others."""
    lines = [line for line in files.read_text(file).split("\n") if line.strip()]
    try:
        entries = [strict_json.parse(line) for line in lines]
    except ValueError as error:
        raise MissingData(
            f"{file}: a line is not valid JSON: {error}; give the metric-*.jsonl of StyleGAN-V"
        ) from error
    if not entries or not isinstance(entries[-1].get("results"), dict):
        return {}
    last = entries[-1]
    note = f"last of {len(entries)} snapshots, {last.get('snapshot_pkl') or 'of no name'}" if len(entries) > 1 else ""
    values = {}
    for name, number in last["results"].items():
        match = _COUNT.fullmatch(str(last.get("metric", name)))
        count = int(match["count"][:9]) * (1000 if match["thousands"] else 1) if match else 0
        both = count if match and not match["thousands"] else 0  # fid50k_full takes all real frames
        if not _SPREAD.search(name):
            values[_known_name(name)] = _Value(_number(file, name, number), both, count, note)
    return values


def _known_name(name: str) -> str:
    """Name of vfbench for a metric of StyleGAN-V where it has one of the same clips and frames."""
    checked = _checked_name(name)
    return {"fvd2048_16f": "fvd", "isv2048_ucf_mean": "is"}.get(checked, checked)


def _vbench(file: Path) -> dict[str, _Value]:
    values = {}
    for name, entry in files.read_json(file).items():
        score, videos = (*entry, None, None)[:2] if isinstance(entry, list) else (entry, None)
        if not isinstance(videos, list):
            raise MissingData(f"{file}: {_checked_name(name)} has no list of videos: is it the file of another tool?")
        count = len(videos)
        values[_checked_name(name)] = _Value(_number(file, name, score), 0, count)
    return values


def _torch_fidelity(file: Path) -> dict[str, _Value]:
    names = {"frechet_inception_distance": "fid"}
    return {
        names.get(name, _checked_name(name)): _Value(_number(file, name, number))
        for name, number in files.read_json(file).items()
        if not _SPREAD.search(name)
    }


_READERS: Mapping[str, Callable[[Path], dict[str, _Value]]] = {
    "cd-fvd": _cd_fvd,
    "stylegan-v": _stylegan_v,
    "vbench": _vbench,
    "torch-fidelity": _torch_fidelity,
}


def _checked_name(name: str) -> str:
    """Name of a metric on one line, and not longer than a table can show."""
    return escape.printable(name)[:LONGEST_NAME]


def _number(file: Path, name: str, value: Any) -> float:
    """A finite number; raises `MissingData` naming the entry for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        shown = escape.printable(f"{name[:LONGEST_NAME]} is {value!r:.60}")
        raise MissingData(f"{file}: {shown}, not a finite number: is it the file of another tool (--format)?")
    return float(value)
