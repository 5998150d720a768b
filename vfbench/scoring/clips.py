"""Clips against real clips: which real ones, which rules, how many draws, and what to beware of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vfbench import plugins, video
from vfbench.clips import ClipFolder, decoder, detect, mismatches
from vfbench.clips.inventory import require_apart
from vfbench.clips.manifest import Manifest
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import derive_seed
from vfbench.pipeline import dataset_card
from vfbench.pipeline.eval_setup import EvalOptions, EvalSetup, prepare
from vfbench.pipeline.features import FeatureCollector, features, real_features
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.generate import NUM_PREVIEW
from vfbench.pipeline.real_clips import shown
from vfbench.pipeline.result import keep_scored
from vfbench.pipeline.scores import made_of, scores
from vfbench.plugins import Spec
from vfbench.protocol.protocol import SPLITS, RealSplit
from vfbench.protocol.resolve import rules
from vfbench.scoring.given_clips import HASH, Bytes, GivenClips, captions, require_fit
from vfbench.scoring.job import ScoreOptions, ScorePlan, Scores, found_in, ready
from vfbench.utils import device as devices
from vfbench.utils import tensor_files

CACHE_CHUNK = 256  # clips whose features are kept together: an interrupted score loses no more
ELSEWHERE = "made elsewhere: what the clips were asked to show, and how they became bytes, is as given"
CAPTIONED = "similarity"  # the output that needs to know what a clip was asked to show


def look(options: ScoreOptions, fake: ClipFolder) -> ScorePlan:
    """Find the real clips, load what scoring needs, and check that `fake` fits it; raises as `vfbench.scoring.look`."""
    if len(fake) < 2:
        raise UserError(f"{fake.root} holds 1 clip: a score needs at least 2")
    spec = real_spec(options.real, options.data_root)
    fields = rules(spec, options.protocol, smoke=options.smoke)
    real = _found(spec, fields.get("split", "train"))
    if odd := [side for side in real if side.kind == "features"]:
        raise UserError(f"{odd[0].root} holds features and {fake.root} clips: give clips on both sides, or features")
    told = captions(fake, Path(options.prompts) if options.prompts else None, listed=options.listing is not None)
    metrics, silent = _metrics(options.metrics, fields["measures"], captioned=bool(told))
    device = devices.choose(options.device)
    measuring, order, few = _prepared(spec, device, options, fields, metrics, len(fake))
    require_fit(fake, measuring.protocol, spec)
    clips = GivenClips(fake, measuring.protocol, told or [""] * len(fake))
    alone = ["all clips are of one prompt: no interval says anything of others"] * (len(set(told)) == 1)
    warnings = [*silent, *few, *alone, *_warnings(fake, real, fields, measuring)]
    # Clips of one prompt are no independent samples of all prompts; those of one class may be.
    sources = told if options.prompts and len(set(told)) > 1 else tuple(map(str, range(len(fake))))
    scoring = ready(
        options,
        fake,
        device,
        {"fake": clips.fingerprint, "protocol": measuring.protocol.record()},
        lines=_lines(fake, real, measuring, warnings),
        about={
            "dataset": measuring.dataset.name,
            "data": dataset_card.facts(measuring),
            "protocol": measuring.protocol.record(),
            "note": "; ".join(filter(None, [ELSEWHERE, measuring.remarks(clips.requests()), *warnings])),
            "fake": {
                **found_in(fake, clips.manifest, options),
                "decoder": decoder(fake),
                "captions": tensor_files.digest(told) if told else None,
            },
        },
        work=partial(_work, clips, measuring, order, sources, device),
    )
    require_apart(scoring.folder, measuring.dataset)
    return scoring


def real_spec(text: str, data_root: Path | str | None) -> Spec:
    """The dataset that `--real` names, or the dataset `folder` of a path; a name goes before a path."""
    if text not in plugins.names("dataset") and Path(text).expanduser().exists():
        return Spec("folder", {"root": str(Path(text).expanduser())})
    if os.sep in text.partition("(")[0]:
        raise MissingData(
            f"--real {text}: no such file or folder; give one, or a dataset (python -m vfbench ls datasets)"
        )
    return plugins.parse(text).merged({"root": str(data_root) if data_root else None})


def _found(spec: Spec, split: RealSplit) -> list[ClipFolder]:
    """The real clips of a folder, those of each split apart; nothing for a dataset of another kind."""
    root = spec.options.get("root")
    if spec.name != "folder" or not root:
        return []
    place = Path(root).expanduser()
    parts = [place / part for part in SPLITS[split] if (place / part).is_dir()]
    return [detect(part, listing=spec.options.get("listing")) for part in parts or [place]]


def _metrics(
    asked: Sequence[str], measures: Mapping[str, Mapping[str, str]], *, captioned: bool
) -> tuple[list[str], list[str]]:
    """The metrics to compute, and a remark: those that need captions are left out without, if nobody asked for them."""
    wanted = list(asked or measures)
    kinds = {text: plugins.load("metric", measures[text]["metric"] if text in measures else text) for text in wanted}
    mute = [text for text in wanted if kinds[text].output == CAPTIONED and not captioned]
    if mute and (asked or len(mute) == len(wanted)):
        raise UserError(
            f"{', '.join(mute)}: what were the clips asked to show? Give --prompts FILE, or other --metrics"
        )
    left = (
        [f"without {', '.join(mute)}: what the clips were asked to show is not known (--prompts FILE)"] if mute else []
    )
    return [text for text in wanted if text not in mute] if mute else list(asked), left


def _prepared(
    spec: Spec,
    device: torch.device,
    options: ScoreOptions,
    fields: Mapping[str, Any],
    metrics: Sequence[str],
    count: int,
) -> tuple[EvalSetup, list[int], list[str]]:
    """What is measured, the order of the clips in it, and what is to say of their number.

    A protocol of several draws needs a whole number of clips for each; of any other number there is one draw.
    """
    repeats = fields.get("repeats", 1)
    each = fields.get("n_fake", count)
    drawn = repeats > 1 and count == repeats * each
    n_fake = each if drawn else count
    asked = EvalOptions(
        protocol=options.protocol,
        metrics=metrics,
        n_fake=n_fake,
        n_real=options.num_real,
        weights=options.weights,
        extractors=options.extractors,
        smoke=options.smoke,
        manifest=options.manifest,
    )
    measuring = prepare(spec, device, asked)
    seed = measuring.protocol.selection_seed
    if drawn:  # by hash, since clips sorted by class would give each draw other classes
        return measuring, sorted(range(count), key=lambda index: derive_seed(seed, index, "draw")), []
    if repeats == 1:
        return measuring, list(range(count)), []
    name = str(plugins.parse(measuring.protocol.name).merged({"repeats": 1}))
    protocol = measuring.protocol.model_copy(update={"repeats": 1, "name": name})
    said = (
        f"one draw of {count:,} clips: {repeats} draws of {each:,}, as {fields['name']} has it, need {repeats * each:,}"
    )
    first = Manifest(tuple(row for row in measuring.manifest.rows if row.draw == 0))
    return replace(measuring, protocol=protocol, manifest=first), list(range(count)), [said]


def _warnings(
    fake: ClipFolder, real: Sequence[ClipFolder], fields: Mapping[str, Any], measuring: EvalSetup
) -> list[str]:
    """What can move the numbers without anybody meaning it."""
    said = [line for side in real for line in mismatches(side, fake)]
    if any(side.root.resolve() == fake.root.resolve() for side in real):
        said.append("real and generated clips are the same folder")
    wanted = fields.get("n_fake", len(fake)) * measuring.protocol.repeats
    if wanted != len(fake):
        said.append(
            f"all {len(fake):,} clips found are scored, {fields['name']} has {wanted:,}: is none stale or missing?"
        )
    if measuring.protocol.quantise != "round":
        said.append(f"bytes are scored as found: whether they were made by {measuring.protocol.quantise} is not known")
    return said


def _lines(
    fake: ClipFolder, real: Sequence[ClipFolder], measuring: EvalSetup, warnings: Sequence[str]
) -> list[tuple[str, str]]:
    dataset, protocol, note = measuring.dataset, measuring.protocol, measuring.note
    apart = f", {protocol.fake_stride} apart" if protocol.fake_stride > 1 else ""
    return [
        ("fake", fake.describe()),
        ("fake", _written(fake)),
        *(("real", side.describe()) for side in real),
        ("real", f"{dataset.name}, {protocol.split}, at {dataset.shape}{f' ({note})' if note else ''}"),
        ("protocol", f"{protocol.id} ({protocol.name})" + ("" if protocol.comparable else ", not comparable")),
        ("metrics", ", ".join(measuring.metrics)),
        ("frames", f"{protocol.frames} of each fake clip, from frame {protocol.drop_first} on{apart}"),
        ("clips", f"{len(fake):,} fake against {protocol.n_real:,} real ones"),
        *(("warning", warning) for warning in warnings),
    ]


def _written(fake: ClipFolder) -> str:
    """When the clips were written, first and last: what is left from another day shows here."""
    times = [entry.path.stat().st_mtime for entry in fake.entries]
    first, last = (datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M") for time in (min(times), max(times)))
    return f"written {first}{f' to {last}' if last != first else ''} (UTC)"


def _work(
    clips: GivenClips,
    measuring: EvalSetup,
    order: Sequence[int],
    sources: Sequence[str],
    device: torch.device,
    folder: RunFolder,
) -> Scores:
    protocol = measuring.protocol
    wanted = FeatureCollector(measuring.extractors, measuring.outputs)
    with_hash = FeatureCollector({**wanted.extractors, Bytes.name: Bytes()}, {**wanted.outputs, Bytes.name: [HASH]})
    fake = _features(clips, with_hash, device)
    copies = np.unique(fake.pop(f"{Bytes.name}.{HASH}").numpy(), axis=0, return_inverse=True)[1].reshape(-1)
    if len(set(sources)) == len(sources) and copies.max() > 0:  # prompts go before copies
        sources = list(map(str, copies))
    dataset_card.write(folder, measuring)
    reals = real_features(measuring.dataset, protocol, wanted, device, measuring.manifest)
    _show(folder, clips, measuring)
    drawn = {name: rows[list(order)] for name, rows in fake.items()}
    alike = [sources[index] for index in order]
    keep_scored(folder, made_of(drawn, reals, alike))
    return _noted(scores(protocol, measuring.metrics, drawn, reals, alike), len(copies) - int(copies.max()) - 1)


def _noted(found: Scores, copies: int) -> Scores:
    """The scores, each saying how many clips are copies: they count together, but N counts them all."""
    said = f"{copies} of the generated clips are copies of others" if copies else ""
    return {name: {**score, "note": "; ".join(filter(None, [score["note"], said]))} for name, score in found.items()}


def _features(clips: GivenClips, wanted: FeatureCollector, device: torch.device) -> dict[str, Tensor]:
    """Features of all generated clips, piece by piece, each kept when it is made."""
    parts: list[dict[str, Tensor]] = []
    for number, (part, indices) in enumerate(clips.parts(CACHE_CHUNK)):
        told = f"clips {number * CACHE_CHUNK} to {number * CACHE_CHUNK + len(indices) - 1}"
        parts.append(features(part, "train", wanted, device, list(indices), what=told))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _show(folder: RunFolder, clips: GivenClips, measuring: EvalSetup) -> None:
    """A few clips of both sides to look at, the generated ones first."""
    real, captions = shown(measuring.dataset, measuring.manifest.places(0, "real")[:NUM_PREVIEW])
    first = range(min(NUM_PREVIEW, len(clips.found)))
    both = torch.cat([clips.clips("train", first), real])
    names = [f"fake: {clips.found.entries[index].name}" for index in first]
    names += [f"real: {caption}" for caption in captions]
    video.write_preview(folder.samples, both, names)
