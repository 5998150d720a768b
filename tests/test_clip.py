"""CLIP sees the frames that OpenAI's loader would, says what transformers would, and names what it lacks."""

from __future__ import annotations

import json
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
    """The shape of CLIP in small."""
    ends = {"bos_token_id": WORDS - 2, "eos_token_id": WORDS - 1, "pad_token_id": 0}
    text = {**WIDTH, "vocab_size": WORDS, "max_position_embeddings": LENGTH, **ends}
    seen = {**WIDTH, "image_size": SIDE, "patch_size": 8, "initializer_factor": 4.0}  # or all frames look alike
    return untrained(CLIPConfig(text_config=text, vision_config=seen, projection_dim=DIM))


def some_clips(count: int = 3, frames: int = 5, height: int = 40, width: int = 52) -> Clips:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (count * frames, 3, 6, 7), generator=generator, dtype=torch.uint8)
    return torch.reshape(resize(coarse, [height, width]), (count, frames, 3, height, width))


def asked(prompts: Sequence[str] = PROMPTS) -> list[Request]:
    return [Request(i, i, 0, prompt) for i, prompt in enumerate(prompts)]


def pictures(frames: Tensor) -> list[Image.Image]:
    return [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in frames]


def test_it_keeps_the_contract(tiny: LoadedCLIP) -> None:
    check_extractor(CLIPExtractor(tiny, CPU), some_clips(), asked())


# The numbers.


@pytest.mark.pitfall("the normalisation of CLIP")
def test_it_says_what_transformers_says(tiny: LoadedCLIP) -> None:
    clips = some_clips()
    found = CLIPExtractor(tiny, CPU)(clips, asked(), ALL)
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
        seen = torch.stack([openai(picture) for picture in pictures(clip)])
        with torch.no_grad():
            told = tiny.model(input_ids=torch.tensor([prompt]), pixel_values=seen)
        cosines = told.logits_per_image / tiny.model.logit_scale.exp()
        assert found["similarity"][i].item() == pytest.approx(cosines.mean().item(), abs=1e-5)
        steady = F.cosine_similarity(told.image_embeds[1:], told.image_embeds[:-1]).mean()
        assert found["consistency"][i].item() == pytest.approx(steady.item(), abs=1e-5)
        torch.testing.assert_close(found["embedding"][i], told.image_embeds.mean(0), atol=1e-5, rtol=1e-5)
    assert found["similarity"].std() > 1e-3
    assert 0.1 < found["consistency"].min() < found["consistency"].max() < 0.999


def test_similarity_is_no_cosine_of_the_mean_frame(tiny: LoadedCLIP) -> None:
    found = CLIPExtractor(tiny, CPU)(some_clips(), asked(), ALL)
    of_mean = found["similarity"] / found["embedding"].norm(dim=1, keepdim=True)
    assert (of_mean / found["similarity"]).min() > 1.01


def test_the_processor_of_transformers_is_close(tiny: LoadedCLIP) -> None:
    """It has torch's filter, and cuts the corner of the crop down: with an even margin only the filter differs."""
    clips = some_clips(height=40, width=50)
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    theirs = processor(pictures(clips[0]), return_tensors="pt")["pixel_values"]
    ours = CLIPExtractor(tiny, CPU).network_input(clips[0])
    assert (theirs - ours).abs().max() < 2.01 / 255 / min(STD)  # two grey levels
    assert ((theirs - ours).abs() < 1e-5).float().mean() > 0.9
    with torch.no_grad():
        first, second = (tiny.model.get_image_features(seen).pooler_output for seen in (theirs, ours))
    assert F.cosine_similarity(first, second).min() > 0.999


# What the network sees.


@pytest.mark.parametrize("shape", [(40, 52), (45, 32), (32, 32), (20, 61), (33, 90), (16, 16), (224, 225)])
def test_frames_are_cut_as_by_openai(shape: tuple[int, int]) -> None:
    frame = some_clips(1, 1, *shape)[0, 0]
    cut = transforms.Compose([transforms.Resize(SIDE, InterpolationMode.BICUBIC), transforms.CenterCrop(SIDE)])
    expected = np.array(cut(pictures(frame[None])[0]))
    np.testing.assert_array_equal(resize_frame(frame.permute(1, 2, 0), SIDE, squash=False).numpy(), expected)


def test_squash_keeps_the_whole_frame() -> None:
    frame = some_clips(1, 1, 40, 90)[0, 0]
    squashed = resize_frame(frame.permute(1, 2, 0), SIDE, squash=True)
    expected = pictures(frame[None])[0].resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(squashed.numpy(), np.array(expected))
    assert (squashed != resize_frame(frame.permute(1, 2, 0), SIDE, squash=False)).float().mean() > 0.5


def test_the_filter_of_torch_differs_from_pil() -> None:
    """By so little that it could stand in for it, but not on every processor alike: the reason to go through PIL."""
    noise = torch.randint(0, 256, (1, 3, 120, 120), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pil = resize_frame(noise[0].permute(1, 2, 0), SIDE, squash=True).permute(2, 0, 1).int()
    torch_s = resize(noise, [SIDE, SIDE], InterpolationMode.BICUBIC, antialias=True)[0].int()
    assert (pil - torch_s).abs().max() <= 2


def test_frames_are_normalised_and_their_channels_have_an_order(tiny: LoadedCLIP) -> None:
    """EvalCrafter feeds 0..255 as they are: another embedding altogether."""
    clips, extractor = some_clips(), CLIPExtractor(tiny, CPU)
    ours = extractor(clips, asked(), ["embedding"])["embedding"]
    bgr = extractor(clips.flip(2), asked(), ["embedding"])["embedding"]
    assert F.cosine_similarity(ours, bgr).max() < 0.99
    seen = extractor.network_input(clips[0])
    assert -1.8 < seen.min() < -1 < 1 < seen.max() < 2.2
    raw = seen * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    with torch.no_grad():
        careless = F.normalize(tiny.model.get_image_features(255 * raw).pooler_output, dim=1).mean(0)
    assert F.cosine_similarity(ours[0], careless, dim=0) < 0.99


def test_passes_are_small_and_change_nothing(tiny: LoadedCLIP, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, extractor = some_clips(), CLIPExtractor(tiny, CPU)
    whole = extractor(clips, asked(), ALL)
    monkeypatch.setattr(_clip, "BATCH_SIZE", 2)
    sizes: list[int] = []
    towers = (tiny.model.vision_model, tiny.model.text_model)
    hooks = [tower.register_forward_hook(lambda *told: sizes.append(len(told[-1][0]))) for tower in towers]
    in_parts = extractor(clips.flip(0), asked()[::-1], ALL)
    for hook in hooks:
        hook.remove()
    assert sizes == [2] * 7 + [1, 2, 1]  # fifteen frames, then three captions
    for name in ALL:
        torch.testing.assert_close(in_parts[name].flip(0), whole[name], atol=1e-5, rtol=1e-4)


# Captions.


def test_long_captions_are_cut_before_their_end_and_counted(
    tiny: LoadedCLIP, capfd: pytest.CaptureFixture[str]
) -> None:
    extractor, long = CLIPExtractor(tiny, CPU), "word " * 40
    extractor(some_clips(), asked(), ["similarity"])
    assert (extractor.note(asked()), capfd.readouterr().err) == ("", "")
    mixed = asked([long, "short", long + "tail"])
    cut = extractor(some_clips(), mixed, ["similarity"])["similarity"]
    assert extractor.note(mixed) == "CLIP reads 16 tokens: 2 of 3 captions were cut"
    assert "2 of 3 captions have more than 16 tokens" in capfd.readouterr().err
    extractor(some_clips(), asked([long, long, long]), ["similarity"])
    assert capfd.readouterr().err == ""  # once is enough
    as_if = extractor(some_clips(), asked(["word " * (LENGTH - 2)] * 3), ["similarity"])["similarity"]
    assert capfd.readouterr().err == ""
    torch.testing.assert_close(cut[[0, 2]], as_if[[0, 2]])


def test_embeddings_need_no_captions(tiny: LoadedCLIP, capfd: pytest.CaptureFixture[str]) -> None:
    extractor = CLIPExtractor(tiny, CPU)
    extractor(some_clips(), asked(["word " * 40] * 3), ["consistency", "embedding"])
    assert capfd.readouterr().err == ""


# Options.


def test_the_middle_frame_alone(tiny: LoadedCLIP) -> None:
    clips = some_clips()
    middle = CLIPExtractor(tiny, CPU, frames="middle")
    assert set(middle.outputs) == {"similarity", "embedding"}
    found = middle(clips, asked(), ["similarity", "embedding"])
    single = CLIPExtractor(tiny, CPU)(clips[:, 2:3], asked(), ["similarity", "embedding"])
    torch.testing.assert_close(found, single)
    with pytest.raises(UserError, match=r"output of extractor clip with frames='middle' called 'consistency'"):
        middle(clips, asked(), ["consistency"])


def test_a_single_frame_has_no_consistency(tiny: LoadedCLIP) -> None:
    with pytest.raises(UserError, match="clips of 1 frame have no frame consistency"):
        CLIPExtractor(tiny, CPU)(some_clips(frames=1), asked(), ["consistency"])


@pytest.mark.pitfall("the CLIP model")
def test_whatever_moves_a_number_moves_the_fingerprint(tiny: LoadedCLIP) -> None:
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


# Files.


@pytest.fixture
def saved(tiny: LoadedCLIP, tmp_path: Path) -> Path:
    """The tiny model as a folder that transformers wrote, with a tokenizer of letters."""
    letters = {letter + end: i for i, (letter, end) in enumerate((c, e) for c in "abcdefgh" for e in ("", "</w>"))}
    ends = {"<|startoftext|>": WORDS - 2, "<|endoftext|>": WORDS - 1}
    tiny.model.save_pretrained(tmp_path / "saved")
    CLIPTokenizer(vocab={**letters, **ends}, merges=[]).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_folder_is_loaded_and_its_name_does_not_count(saved: Path, tiny: LoadedCLIP) -> None:
    found = load(str(saved))
    again = load(str(saved.rename(saved.with_name("moved"))))
    assert (found.identity, found.digest) == (again.identity, again.digest) == ("folder", found.digest)
    assert found.weight_status == "unpublished"
    assert found.tokenize("ba C") == [WORDS - 2, 2, 1, 5, WORDS - 1]
    clips, outputs = some_clips(), ["consistency", "embedding"]
    torch.testing.assert_close(
        CLIPExtractor(found, CPU)(clips, [], outputs), CLIPExtractor(tiny, CPU)(clips, [], outputs)
    )


def test_a_published_file_is_known_by_its_hash(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "acme/clip", ("0" * 40, file_sha256(saved / "model.safetensors")))
    found = load(str(saved))
    assert (found.identity, found.weight_status) == ("acme/clip", "verified")
    configure(saved, "text_config", eos_token_id=2)  # as OpenAI's file has it: the highest id is the end
    assert load(str(saved)).weight_status == "verified"


def configure(folder: Path, tower: str, **changes: Any) -> None:
    """Change the configuration in a folder, and leave its weights as they are."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config[tower].update(changes)
    file.write_text(json.dumps(config))


@pytest.mark.parametrize("tower", ["text_config", "vision_config"])
@pytest.mark.parametrize(
    "change", [{"hidden_act": "gelu"}, {"layer_norm_eps": 1e-3}, {"num_attention_heads": 4}], ids=str
)
def test_published_weights_in_another_network_are_not_proven(
    tower: str, change: dict[str, Any], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PUBLISHED, "acme/clip", ("0" * 40, file_sha256(saved / "model.safetensors")))
    before = load(str(saved))
    configure(saved, tower, **change)
    after = load(str(saved))
    assert after.weight_status == "nonstandard"
    assert CLIPExtractor(after, CPU).fingerprint != CLIPExtractor(before, CPU).fingerprint
    told = [
        CLIPExtractor(each, CPU)(some_clips(), asked(["a b", "c", "d"]), ["similarity"]) for each in (before, after)
    ]
    assert (told[0]["similarity"] - told[1]["similarity"]).abs().max() > 1e-6  # the reason


def test_another_end_of_the_captions_is_another_network(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, "acme/clip", ("0" * 40, file_sha256(saved / "model.safetensors")))
    before = load(str(saved))
    configure(saved, "text_config", eos_token_id=5)
    after = load(str(saved))
    assert after.weight_status == "nonstandard"
    assert after.digest != before.digest


@pytest.mark.parametrize(("tower", "part"), [("text_config", "text_model"), ("vision_config", "vision_model")])
def test_a_network_of_fewer_layers_than_its_file_is_refused(tower: str, part: str, saved: Path) -> None:
    """transformers would quietly leave the others out."""
    configure(saved, tower, num_hidden_layers=1)
    with pytest.raises(MissingData, match=rf"config\.json describes another CLIP model: it has no '{part}\.encoder"):
        load(str(saved))


def test_the_configuration_of_an_untrained_model_counts_too(tiny: LoadedCLIP) -> None:
    config: Any = CLIPConfig.from_dict(tiny.model.config.to_dict())
    config.vision_config.hidden_act = "gelu"
    assert untrained(config).digest != tiny.digest


def test_the_cache_of_the_hub_is_used(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "hub/models--acme--clip"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    saved.rename(cached / "snapshots" / ("0" * 40))
    offline(monkeypatch, tmp_path / "hub")
    assert load("acme/clip").identity == "acme/clip"


def offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))


def test_a_model_that_is_not_there_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, tmp_path)
    revision = PUBLISHED[_clip_model.MODEL][0]
    command = f"hf download openai/clip-vit-base-patch32 --revision {revision} config.json"
    with pytest.raises(MissingData, match=f"'openai/clip-vit-base-patch32' .* HF_HUB_OFFLINE .* run `{command}"):
        plugins.load("extractor", "clip", CPU)


def test_a_hub_out_of_reach_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    with pytest.raises(
        MissingData, match=r"'acme/clip' .* cannot be fetched .*no route to host.*`hf download acme/clip"
    ):
        load("acme/clip")


def test_a_folder_without_a_file_is_refused(saved: Path) -> None:
    """transformers would quietly make up a tokenizer that knows no word."""
    (saved / "tokenizer.json").unlink()
    with pytest.raises(MissingData, match=r"tokenizer\.json is missing; run `hf download openai/clip"):
        load(str(saved))


def test_a_file_without_a_tensor_is_refused(saved: Path) -> None:
    """transformers would quietly fill it with random numbers."""
    tensors = load_file(saved / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, saved / "model.safetensors", {"format": "pt"})
    with pytest.raises(MissingData, match=r"'visual_projection\.weight' is missing"):
        load(str(saved))


def test_a_damaged_file_is_refused(saved: Path) -> None:
    content = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(MissingData, match="no readable CLIP model"):
        load(str(saved))


def test_the_untrained_model_is_always_the_same(tiny: LoadedCLIP) -> None:
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
    check_extractor(extractor, some_clips(2, 2), asked(PROMPTS[:2]))
