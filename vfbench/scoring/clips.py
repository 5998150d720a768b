"""Scores of clips made elsewhere: find the real clips, set up the measurement, warn, compute."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vfbench import plugins, video
from vfbench.clips import ClipFolder, content_hash, decoder_versions, detect, frame_warnings, mismatches
from vfbench.clips.inventory import require_outside_dataset
from vfbench.clips.manifest import Manifest
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import derive_seed, is_part
from vfbench.pipeline import dataset_card
from vfbench.pipeline.eval_setup import EvalSetup, prepare
from vfbench.pipeline.features import FeatureCollector, features, real_features
from vfbench.pipeline.folder import RunFolder
from vfbench.pipeline.generate import NUM_PREVIEW
from vfbench.pipeline.real_clips import preview_clips
from vfbench.pipeline.result import write_scored
from vfbench.pipeline.scores import scored_tensors, scores
from vfbench.plugins import Spec
from vfbench.protocol.protocol import SPLITS, Measure, RealSplit
from vfbench.protocol.resolve import Rules, resolve_rules
from vfbench.report.result_parts import ProtocolRecord, ScoreRecord
from vfbench.scoring import paired as paired_clips
from vfbench.scoring.given_clips import HASH, ClipHash, GivenClips, clip_captions, require_fit
from vfbench.scoring.job import ScorePlan, default_name, folder_and_specification, given_record
from vfbench.scoring.options import ScoreOptions
from vfbench.scoring.paired import PairedClips
from vfbench.utils import device as devices
from vfbench.utils import files

CACHE_CHUNK = 256  # clips whose features are kept together: an interrupted score loses no more
ELSEWHERE = "made elsewhere: prompts, and the conversion to bytes, are not verified"
CAPTION_OUTPUTS = ("similarity", "attributes")  # outputs that need to know what a clip was asked to show


def plan(options: ScoreOptions, fake: ClipFolder) -> ScorePlan:
    """Find the real clips, load what scoring needs and check that `fake` fits; raises as `vfbench.scoring.plan`."""
    if len(fake) < 2:
        raise UserError(f"{fake.root} holds 1 clip: a score needs at least 2")
    spec = real_spec(options.real, options.data_root)
    original = resolve_rules(spec, options.protocol, smoke=options.smoke)
    real = _real_folders(spec, original.split)
    if features_side := next((side for side in real if side.kind == "features"), None):
        raise UserError(
            f"{features_side.root} holds features and {fake.root} clips: give clips on both sides, or features"
        )
    captions = clip_captions(
        fake, Path(options.prompts) if options.prompts else None, listed=options.listing is not None
    )
    metrics, left_out = _metrics(options.metrics, original.measures, captioned=bool(captions))
    device = devices.choose_device(options.device)
    setup, order, draws_note = _setup(spec, device, replace(options, metrics=metrics), original, len(fake))
    require_fit(fake, setup.protocol, spec)
    clips = GivenClips(fake, setup.protocol, captions or [""] * len(fake))
    paired = paired_clips.pair(fake, real, setup.protocol, device) if options.paired else None
    one_prompt = (
        ["all clips share one prompt: the intervals do not cover other prompts"] if len(set(captions)) == 1 else []
    )
    warnings = [*left_out, *draws_note, *one_prompt, *_warnings(fake, real, original, setup)]
    warnings += paired.missing if paired else []
    # Clips of one prompt are no independent samples of all prompts; those of one class may be.
    sources = captions if options.prompts and len(set(captions)) > 1 else tuple(map(str, range(len(fake))))
    determines = {"fake": clips.fingerprint, "protocol": setup.protocol.to_json()}
    determines |= {"paired": content_hash(paired.real)} if paired else {}
    folder, specification = folder_and_specification(options, fake, device, determines)
    require_outside_dataset(folder, setup.dataset)
    caption_hash = files.json_digest(captions) if captions else None
    return ScorePlan(
        folder=folder,
        specification=specification,
        name=options.name or default_name(fake),
        dataset=setup.dataset.name,
        data=dataset_card.describe(setup),
        protocol=ProtocolRecord.model_validate(setup.protocol.to_json()),
        fake=given_record(fake, clips.content_hash, options, decoder_versions(fake), caption_hash),
        note="; ".join(filter(None, [ELSEWHERE, setup.remarks(clips.requests()), *warnings])),
        lines=tuple(_lines(fake, real, setup, warnings)),
        compute=partial(_compute, clips, setup, order, sources, device, paired),
    )


def real_spec(text: str, data_root: Path | str | None) -> Spec:
    """The dataset that `--real` names, or the dataset `folder` of a path; a name goes before a path."""
    if text not in plugins.names("dataset") and Path(text).expanduser().exists():
        return Spec("folder", {"root": str(Path(text).expanduser())})
    if os.sep in text.partition("(")[0]:
        raise MissingData(
            f"--real {text}: no such file or folder; give one, or a dataset (python -m vfbench ls datasets)"
        )
    return plugins.parse(text).merged({"root": str(data_root) if data_root else None})


def _real_folders(spec: Spec, split: RealSplit) -> list[ClipFolder]:
    """The folder of real clips of each split; empty for a dataset that is not the plug-in `folder`."""
    root = spec.options.get("root")
    if spec.name != "folder" or not root:
        return []
    place = Path(root).expanduser()
    parts = [place / part for part in SPLITS[split] if (place / part).is_dir()]
    return [detect(part, listing=spec.options.get("listing")) for part in parts or [place]]


def _metrics(chosen: Sequence[str], measures: Mapping[str, Measure], *, captioned: bool) -> tuple[list[str], list[str]]:
    """The metrics to compute, and a remark on those left out: without captions, unless the user chose them."""
    names = list(chosen or measures)
    metrics = {name: plugins.load("metric", measures[name].metric if name in measures else name) for name in names}
    unusable = [name for name in names if metrics[name].output in CAPTION_OUTPUTS and not captioned]
    if not unusable:
        return list(chosen), []
    if chosen or len(unusable) == len(names):
        raise UserError(
            f"{', '.join(unusable)}: what were the clips asked to show? Give --prompts FILE, or other --metrics"
        )
    whole = [name for name in unusable if not is_part(metrics[name])]
    remark = f"without {', '.join(whole)}: what the clips were asked to show is not known (--prompts FILE)"
    return [name for name in names if name not in unusable], [remark]


def _setup(
    spec: Spec, device: torch.device, options: ScoreOptions, rules: Rules, count: int
) -> tuple[EvalSetup, list[int], list[str]]:
    """The setup of the measurement, the order in which it takes the clips, and a remark on their number.

    A protocol of several draws needs `n_fake` clips for each. With any other number there is one draw.
    """
    per_draw = rules.n_fake or count
    all_draws = rules.repeats > 1 and count == rules.repeats * per_draw
    setup = prepare(spec, device, options, per_draw if all_draws else count)
    seed = setup.protocol.selection_seed
    if all_draws:  # by hash, since clips sorted by class would give each draw other classes
        return setup, sorted(range(count), key=lambda index: derive_seed(seed, index, "draw")), []
    if rules.repeats == 1:
        return setup, list(range(count)), []
    name = str(plugins.parse(setup.protocol.name).merged({"repeats": 1}))
    protocol = setup.protocol.model_copy(update={"repeats": 1, "name": name})
    remark = (
        f"one draw of {count:,} clips: {rules.repeats} draws of {per_draw:,}, as {rules.name} has it, need "
        f"{rules.repeats * per_draw:,}"
    )
    first_draw = Manifest(tuple(row for row in setup.manifest.rows if row.draw == 0))
    return replace(setup, protocol=protocol, manifest=first_draw), list(range(count)), [remark]


def _warnings(fake: ClipFolder, real: Sequence[ClipFolder], rules: Rules, setup: EvalSetup) -> list[str]:
    """Warnings of differences that can move the numbers unintentionally."""
    warnings = [line for side in real for line in mismatches(side, fake)]
    warnings += [f"{side.root}: {line}" for side in (*real, fake) for line in frame_warnings(side)]
    if any(side.root.resolve() == fake.root.resolve() for side in real):
        warnings.append("real and generated clips are the same folder")
    expected = (rules.n_fake or len(fake)) * setup.protocol.repeats
    if expected != len(fake):
        warnings.append(
            f"scored all {len(fake):,} clips found, {rules.name} asks for {expected:,}: check for old or missing clips"
        )
    if setup.protocol.quantise != "round":
        warnings.append(
            f"the protocol has quantise={setup.protocol.quantise}; how these clips became bytes is not known"
        )
    return warnings


def _lines(
    fake: ClipFolder, real: Sequence[ClipFolder], setup: EvalSetup, warnings: Sequence[str]
) -> list[tuple[str, str]]:
    dataset, protocol, note = setup.dataset, setup.protocol, setup.note
    apart = f", {protocol.fake_stride} apart" if protocol.fake_stride > 1 else ""
    return [
        ("fake", fake.describe()),
        ("fake", _written(fake)),
        *(("real", side.describe()) for side in real),
        ("real", f"{dataset.name}, {protocol.split}, at {dataset.shape}{f' ({note})' if note else ''}"),
        ("protocol", f"{protocol.id} ({protocol.name})" + ("" if protocol.comparable else ", not comparable")),
        ("metrics", ", ".join(setup.metrics)),
        ("frames", f"{protocol.frames} of each fake clip, from frame {protocol.drop_first} on{apart}"),
        ("clips", f"{len(fake):,} fake against {protocol.n_real:,} real ones"),
        *(("warning", warning) for warning in warnings),
    ]


def _written(fake: ClipFolder) -> str:
    """Dates of the oldest and the newest clip, which show clips left from another day."""
    times = [entry.path.stat().st_mtime for entry in fake.entries]
    first, last = (datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M") for time in (min(times), max(times)))
    return f"written {first}{f' to {last}' if last != first else ''} (UTC)"


def _compute(
    clips: GivenClips,
    setup: EvalSetup,
    order: Sequence[int],
    sources: Sequence[str],
    device: torch.device,
    paired: PairedClips | None,
    folder: RunFolder,
) -> dict[str, ScoreRecord]:
    protocol = setup.protocol
    collector = FeatureCollector(setup.extractors, setup.outputs)
    with_hash = FeatureCollector(
        {**collector.extractors, ClipHash.name: ClipHash()}, {**collector.outputs, ClipHash.name: [HASH]}
    )
    fake = _features(clips, with_hash, device)
    copies = np.unique(fake.pop(f"{ClipHash.name}.{HASH}").numpy(), axis=0, return_inverse=True)[1].reshape(-1)
    if len(set(sources)) == len(sources) and copies.max() > 0:  # prompts go before copies
        sources = list(map(str, copies))
    dataset_card.write(folder, setup)
    reals = real_features(setup.dataset, protocol, collector, device, setup.manifest)
    _write_preview(folder, clips, setup)
    ordered = {name: rows[list(order)] for name, rows in fake.items()}
    ordered_sources = [sources[index] for index in order]
    write_scored(folder, scored_tensors(ordered, reals, ordered_sources))
    records = scores(protocol, setup.metrics, ordered, reals, ordered_sources)
    return {
        **_with_copies(records, len(copies) - int(copies.max()) - 1),
        **(paired.scores() if paired else {}),
    }


def _with_copies(records: Mapping[str, ScoreRecord], copies: int) -> dict[str, ScoreRecord]:
    """The scores with a note on the number of copies: N counts them, the interval counts equal clips as one."""
    remark = f"{copies} of the generated clips are copies of others" if copies else ""
    return {
        name: score.model_copy(update={"note": "; ".join(filter(None, [score.note, remark]))})
        for name, score in records.items()
    }


def _features(clips: GivenClips, collector: FeatureCollector, device: torch.device) -> dict[str, Tensor]:
    """Features of all generated clips, cached chunk by chunk."""
    parts: list[dict[str, Tensor]] = []
    for number, (part, indices) in enumerate(clips.parts(CACHE_CHUNK)):
        title = f"clips {number * CACHE_CHUNK} to {number * CACHE_CHUNK + len(indices) - 1}"
        parts.append(features(part, "train", collector, device, list(indices), title=title))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _write_preview(folder: RunFolder, clips: GivenClips, setup: EvalSetup) -> None:
    """Write a few clips of both sides to look at, the generated ones first."""
    real, captions = preview_clips(setup.dataset, setup.manifest.places(0, "real")[:NUM_PREVIEW])
    first = range(min(NUM_PREVIEW, len(clips.folder)))
    both = torch.cat([clips.clips("train", first), real])
    names = [f"fake: {clips.folder.entries[index].name}" for index in first]
    names += [f"real: {caption}" for caption in captions]
    video.write_preview(folder.samples, both, names)
