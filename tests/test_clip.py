"""Tests of the `clip` extractor: OpenAI's preprocessing, equality with transformers, captions, weights and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contract import check_extractor
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTokenizer
from transformers.utils.constants import OPENAI_CLIP_MEAN as MEAN
from transformers.utils.constants import OPENAI_CLIP_STD as STD

from vfbench import plugins
from vfbench.errors import MissingData, UserError
from vfbench.interfaces import Clips, Request
from vfbench.metrics import _clip, _clip_model
from vfbench.metrics._clip import CLIPExtractor, resize_frame
from vfbench.metrics._clip_model import PUBLISHED, LoadedCLIP, load, untrained
from vfbench.utils.files import file_sha256

CPU = torch.device("cpu")
ALL = ("similarity", "consistency", "embedding")
SIDE, DIM, WORDS, LENGTH = 32, 12, 100, 16
WIDTH = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 1}
PROMPTS = ("a red circle moves left", "nothing", "two squares on a blue ground")


@pytest.fixture(scope="module")
def tiny() -> LoadedCLIP:
    """Tiny untrained CLIP."""
    ends = {"bos_token_id": WORDS - 2, "eos_token_id": WORDS - 1, "pad_token_id": 0}
    text = {**WIDTH, "vocab_size": WORDS, "max_position_embeddings": LENGTH, **ends}
    vision = {**WIDTH, "image_size": SIDE, "patch_size": 8, "initializer_factor": 4.0}  # 1.0: near-equal embeddings
    return untrained(CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM))


def random_clips(count: int = 3, frames: int = 5, height: int = 40, width: int = 52) -> Clips:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (count * frames, 3, 6, 7), generator=generator, dtype=torch.uint8)
    return torch.reshape(resize(coarse, [height, width]), (count, frames, 3, height, width))


def requests_for(prompts: Sequence[str] = PROMPTS) -> list[Request]:
    return [Request(i, i, 0, prompt) for i, prompt in enumerate(prompts)]


def to_pil(frames: Tensor) -> list[Image.Image]:
    return [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in frames]


def test_the_extractor_keeps_the_contract(tiny: LoadedCLIP) -> None:
    check_extractor(CLIPExtractor(tiny, CPU), random_clips(), requests_for())


# Values.


@pytest.mark.pitfall("the normalisation of CLIP")
def test_outputs_match_transformers(tiny: LoadedCLIP) -> None:
    clips = random_clips()
    outputs = CLIPExtractor(tiny, CPU)(clips, requests_for(), ALL)
    openai = transforms.Compose(
        [
            transforms.Resize(SIDE, InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIDE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    ids = [tiny.tokenize(prompt) for prompt in PROMPTS]
    for i, (clip, prompt) in enumerate(zip(clips, ids, strict=True)):
        pixel_values = torch.stack([openai(picture) for picture in to_pil(clip)])
        with torch.no_grad():
            expected = tiny.model(input_ids=torch.tensor([prompt]), pixel_values=pixel_values)
        cosines = expected.logits_per_image / tiny.model.logit_scale.exp()
        assert outputs["similarity"][i].item() == pytest.approx(cosines.mean().item(), abs=1e-5)
        consistency = F.cosine_similarity(expected.image_embeds[1:], expected.image_embeds[:-1]).mean()
        assert outputs["consistency"][i].item() == pytest.approx(consistency.item(), abs=1e-5)
        torch.testing.assert_close(outputs["embedding"][i], expected.image_embeds.mean(0), atol=1e-5, rtol=1e-5)
    assert outputs["similarity"].std() > 1e-3
    assert 0.1 < outputs["consistency"].min() < outputs["consistency"].max() < 0.999


def test_similarity_is_not_the_cosine_of_the_mean_embedding(tiny: LoadedCLIP) -> None:
    outputs = CLIPExtractor(tiny, CPU)(random_clips(), requests_for(), ALL)
    cosine_of_mean = outputs["similarity"] / outputs["embedding"].norm(dim=1, keepdim=True)
    assert (cosine_of_mean / outputs["similarity"]).min() > 1.01


def test_the_image_processor_of_transformers_is_close(tiny: LoadedCLIP) -> None:
    """Compare with torch's filter; an even margin makes the crops equal."""
    clips = random_clips(height=40, width=50)
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    reference = processor(to_pil(clips[0]), return_tensors="pt")["pixel_values"]
    pixel_values = CLIPExtractor(tiny, CPU).network_input(clips[0])
    assert (reference - pixel_values).abs().max() < 2.01 / 255 / min(STD)  # two grey levels
    assert ((reference - pixel_values).abs() < 1e-5).float().mean() > 0.9
    with torch.no_grad():
        first, second = (tiny.model.get_image_features(pixels).pooler_output for pixels in (reference, pixel_values))
    assert F.cosine_similarity(first, second).min() > 0.999


# Preprocessing.


@pytest.mark.parametrize("shape", [(40, 52), (45, 32), (32, 32), (20, 61), (33, 90), (16, 16), (224, 225)])
def test_frames_are_cropped_as_by_openai(shape: tuple[int, int]) -> None:
    frame = random_clips(1, 1, *shape)[0, 0]
    crop = transforms.Compose([transforms.Resize(SIDE, InterpolationMode.BICUBIC), transforms.CenterCrop(SIDE)])
    expected = np.array(crop(to_pil(frame[None])[0]))
    np.testing.assert_array_equal(resize_frame(frame.permute(1, 2, 0), SIDE, squash=False).numpy(), expected)


def test_squash_resizes_the_complete_frame() -> None:
    frame = random_clips(1, 1, 40, 90)[0, 0]
    squashed = resize_frame(frame.permute(1, 2, 0), SIDE, squash=True)
    expected = to_pil(frame[None])[0].resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(squashed.numpy(), np.array(expected))
    assert (squashed != resize_frame(frame.permute(1, 2, 0), SIDE, squash=False)).float().mean() > 0.5


def test_the_filter_of_torch_differs_from_pil() -> None:
    """Bound the difference by two grey levels; the extractor uses PIL, which is reproducible across CPUs."""
    noise = torch.randint(0, 256, (1, 3, 120, 120), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pil = resize_frame(noise[0].permute(1, 2, 0), SIDE, squash=True).permute(2, 0, 1).int()
    torch_s = resize(noise, [SIDE, SIDE], InterpolationMode.BICUBIC, antialias=True)[0].int()
    assert (pil - torch_s).abs().max() <= 2


def test_normalisation_and_channel_order_change_the_embedding(tiny: LoadedCLIP) -> None:
    """Compare with BGR frames and with values of 0..255, which EvalCrafter feeds."""
    clips, extractor = random_clips(), CLIPExtractor(tiny, CPU)
    expected = extractor(clips, requests_for(), ["embedding"])["embedding"]
    bgr = extractor(clips.flip(2), requests_for(), ["embedding"])["embedding"]
    assert F.cosine_similarity(expected, bgr).max() < 0.99
    pixels = extractor.network_input(clips[0])
    assert -1.8 < pixels.min() < -1 < 1 < pixels.max() < 2.2
    raw = pixels * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    with torch.no_grad():
        unscaled = F.normalize(tiny.model.get_image_features(255 * raw).pooler_output, dim=1).mean(0)
    assert F.cosine_similarity(expected[0], unscaled, dim=0) < 0.99


def test_the_batch_size_does_not_change_the_outputs(tiny: LoadedCLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, extractor = random_clips(), CLIPExtractor(tiny, CPU)
    expected = extractor(clips, requests_for(), ALL)
    monkeypatch.setattr(_clip, "BATCH_SIZE", 2)
    sizes: list[int] = []
    towers = (tiny.model.vision_model, tiny.model.text_model)
    hooks = [tower.register_forward_hook(lambda *arguments: sizes.append(len(arguments[-1][0]))) for tower in towers]
    batched = extractor(clips.flip(0), requests_for()[::-1], ALL)
    for hook in hooks:
        hook.remove()
    assert sizes == [2] * 7 + [1, 2, 1]  # fifteen frames, then three captions
    for name in ALL:
        torch.testing.assert_close(batched[name].flip(0), expected[name], atol=1e-5, rtol=1e-4)


# Captions.


def test_long_captions_are_truncated_and_counted(tiny: LoadedCLIP, capfd: pytest.CaptureFixture[str]) -> None:
    extractor, long = CLIPExtractor(tiny, CPU), "word " * 40
    extractor(random_clips(), requests_for(), ["similarity"])
    assert (extractor.note(requests_for()), capfd.readouterr().err) == ("", "")
    mixed = requests_for([long, "short", long + "tail"])
    truncated = extractor(random_clips(), mixed, ["similarity"])["similarity"]
    assert re.search("16 tokens: 2 of 3 captions", extractor.note(mixed))
    assert "2 of 3 captions have more than 16 tokens" in capfd.readouterr().err
    extractor(random_clips(), requests_for([long, long, long]), ["similarity"])
    assert capfd.readouterr().err == ""  # warned once
    fitting = extractor(random_clips(), requests_for(["word " * (LENGTH - 2)] * 3), ["similarity"])["similarity"]
    assert capfd.readouterr().err == ""
    torch.testing.assert_close(truncated[[0, 2]], fitting[[0, 2]])


def test_embeddings_need_no_captions(tiny: LoadedCLIP, capfd: pytest.CaptureFixture[str]) -> None:
    extractor = CLIPExtractor(tiny, CPU)
    extractor(random_clips(), requests_for(["word " * 40] * 3), ["consistency", "embedding"])
    assert capfd.readouterr().err == ""


# Options.


def test_frames_middle_embeds_the_middle_frame_only(tiny: LoadedCLIP) -> None:
    clips = random_clips()
    middle = CLIPExtractor(tiny, CPU, frames="middle")
    assert set(middle.outputs) == {"similarity", "embedding"}
    outputs = middle(clips, requests_for(), ["similarity", "embedding"])
    single = CLIPExtractor(tiny, CPU)(clips[:, 2:3], requests_for(), ["similarity", "embedding"])
    torch.testing.assert_close(outputs, single)
    with pytest.raises(UserError, match=r"frames='middle' called 'consistency'"):
        middle(clips, requests_for(), ["consistency"])


def test_a_single_frame_has_no_consistency(tiny: LoadedCLIP) -> None:
    with pytest.raises(UserError, match="1 frame"):
        CLIPExtractor(tiny, CPU)(random_clips(frames=1), requests_for(), ["consistency"])


@pytest.mark.pitfall("the CLIP model")
def test_the_fingerprint_covers_weights_and_options(tiny: LoadedCLIP) -> None:
    other = LoadedCLIP(tiny.model, tiny.tokenize, tiny.identity, "0" * 64, "nonstandard")
    renamed = LoadedCLIP(tiny.model, tiny.tokenize, "another", tiny.digest, "nonstandard")
    variants = [
        CLIPExtractor(tiny, CPU),
        CLIPExtractor(tiny, CPU, frames="middle"),
        CLIPExtractor(tiny, CPU, preprocess="squash"),
        CLIPExtractor(other, CPU),
        CLIPExtractor(renamed, CPU),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert CLIPExtractor(tiny, CPU).fingerprint == variants[0].fingerprint
    assert variants[0].weight_status == "nonstandard"


@pytest.mark.parametrize("option", ["frames='first'", "preprocess='none'", "weights='mine'"])
def test_unknown_options_are_refused(option: str) -> None:
    with pytest.raises(UserError, match=rf"option {option[:5]}\w+ of extractor clip"):
        plugins.load("extractor", f"clip({option})", CPU)


# Weight files.


@pytest.fixture
def clip_folder(tiny: LoadedCLIP, tmp_path: Path) -> Path:
    """Folder of the tiny model as saved by transformers, with a tokenizer of letters."""
    letters = {letter + end: i for i, (letter, end) in enumerate((c, e) for c in "abcdefgh" for e in ("", "</w>"))}
    ends = {"<|startoftext|>": WORDS - 2, "<|endoftext|>": WORDS - 1}
    tiny.model.save_pretrained(tmp_path / "clip")
    CLIPTokenizer(vocab={**letters, **ends}, merges=[]).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def test_a_folder_is_identified_by_content_not_name(clip_folder: Path, tiny: LoadedCLIP) -> None:
    loaded = load(str(clip_folder))
    again = load(str(clip_folder.rename(clip_folder.with_name("moved"))))
    assert (loaded.identity, loaded.digest) == (again.identity, again.digest) == ("folder", loaded.digest)
    assert loaded.weight_status == "unpublished"
    assert loaded.tokenize("ba C") == [WORDS - 2, 2, 1, 5, WORDS - 1]
    clips, outputs = random_clips(), ["consistency", "embedding"]
    torch.testing.assert_close(
        CLIPExtractor(loaded, CPU)(clips, [], outputs), CLIPExtractor(tiny, CPU)(clips, [], outputs)
    )


def test_a_published_file_is_verified_by_its_hash(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "acme/clip", ("0" * 40, file_sha256(clip_folder / "model.safetensors")))
    loaded = load(str(clip_folder))
    assert (loaded.identity, loaded.weight_status) == ("acme/clip", "verified")
    configure(clip_folder, "text_config", eos_token_id=2)  # as in OpenAI's config: the highest token id ends a caption
    assert load(str(clip_folder)).weight_status == "verified"


def configure(folder: Path, tower: str, **changes: Any) -> None:
    """Change the configuration in a folder, not its weights."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config[tower].update(changes)
    file.write_text(json.dumps(config))


@pytest.mark.parametrize("tower", ["text_config", "vision_config"])
@pytest.mark.parametrize(
    "change", [{"hidden_act": "gelu"}, {"layer_norm_eps": 1e-3}, {"num_attention_heads": 4}], ids=str
)
def test_published_weights_in_a_changed_network_are_nonstandard(
    tower: str, change: dict[str, Any], clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PUBLISHED, "acme/clip", ("0" * 40, file_sha256(clip_folder / "model.safetensors")))
    before = load(str(clip_folder))
    configure(clip_folder, tower, **change)
    after = load(str(clip_folder))
    assert after.weight_status == "nonstandard"
    assert CLIPExtractor(after, CPU).fingerprint != CLIPExtractor(before, CPU).fingerprint
    requests = requests_for(["a b", "c", "d"])
    first, second = (CLIPExtractor(each, CPU)(random_clips(), requests, ["similarity"]) for each in (before, after))
    assert (first["similarity"] - second["similarity"]).abs().max() > 1e-6


def test_a_changed_end_token_is_nonstandard(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "acme/clip", ("0" * 40, file_sha256(clip_folder / "model.safetensors")))
    before = load(str(clip_folder))
    configure(clip_folder, "text_config", eos_token_id=5)
    after = load(str(clip_folder))
    assert after.weight_status == "nonstandard"
    assert after.digest != before.digest


@pytest.mark.parametrize(("tower", "part"), [("text_config", "text_model"), ("vision_config", "vision_model")])
def test_a_config_with_fewer_layers_than_the_weights_is_refused(tower: str, part: str, clip_folder: Path) -> None:
    """Refuse surplus layers, which transformers silently drops."""
    configure(clip_folder, tower, num_hidden_layers=1)
    with pytest.raises(MissingData, match=rf"config\.json .*'{part}\.encoder"):
        load(str(clip_folder))


def test_the_digest_of_an_untrained_model_covers_its_config(tiny: LoadedCLIP) -> None:
    config: Any = CLIPConfig.from_dict(tiny.model.config.to_dict())
    config.vision_config.hidden_act = "gelu"
    assert untrained(config).digest != tiny.digest


def test_a_cached_hub_model_is_loaded_offline(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "hub/models--acme--clip"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    clip_folder.rename(cached / "snapshots" / ("0" * 40))
    set_offline(monkeypatch, tmp_path / "hub")
    assert load("acme/clip").identity == "acme/clip"


def set_offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))


def test_a_missing_model_names_the_download_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_offline(monkeypatch, tmp_path)
    revision = PUBLISHED[_clip_model.MODEL][0]
    command = f"hf download openai/clip-vit-base-patch32 --revision {revision} config.json"
    with pytest.raises(MissingData, match=f"HF_HUB_OFFLINE .*{command}"):
        plugins.load("extractor", "clip", CPU)


def test_an_unreachable_hub_gives_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    with pytest.raises(MissingData, match=r"'acme/clip' .*no route to host.*hf download acme/clip"):
        load("acme/clip")


def test_a_missing_tokenizer_is_refused(clip_folder: Path) -> None:
    """Refuse a missing tokenizer, for which transformers silently builds an empty one."""
    (clip_folder / "tokenizer.json").unlink()
    with pytest.raises(MissingData, match=r"tokenizer\.json is missing; .*hf download openai/clip"):
        load(str(clip_folder))


def test_a_missing_tensor_is_refused(clip_folder: Path) -> None:
    """Refuse a missing tensor, which transformers silently initialises at random."""
    tensors = load_file(clip_folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, clip_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(MissingData, match=r"'visual_projection\.weight' is missing"):
        load(str(clip_folder))


def test_a_damaged_file_is_refused(clip_folder: Path) -> None:
    content = (clip_folder / "model.safetensors").read_bytes()
    (clip_folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(MissingData, match="no readable CLIP model"):
        load(str(clip_folder))


def test_the_untrained_model_is_deterministic(tiny: LoadedCLIP) -> None:
    before = torch.get_rng_state()
    again = untrained(tiny.model.config)
    assert torch.equal(before, torch.get_rng_state())
    assert again.digest == tiny.digest
    assert tiny.tokenize("a bird A") == [WORDS - 2, *tiny.tokenize("a bird a")[1:-1], WORDS - 1]
    assert all(0 < word < WORDS - 2 for word in tiny.tokenize("such a lot of words that mean nothing")[1:-1])


@pytest.mark.slow
def test_the_untrained_model_at_full_size() -> None:
    extractor: CLIPExtractor = plugins.load("extractor", "clip(weights='random')", CPU)
    assert extractor.outputs == {"similarity": 1, "consistency": 1, "embedding": 512}
    assert (extractor.side, extractor.max_tokens) == (224, 77)
    check_extractor(extractor, random_clips(2, 2), requests_for(PROMPTS[:2]))
