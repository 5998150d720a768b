"""Catalogue of the published feature networks: description, sources of the weights, verification.

Scores are comparable only if they come from the published network, and links to weights die. So each network has
several sources, tried in order, and a verification that does not depend on the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vfbench.errors import UserError, unknown

Verification = Literal["tensors", "file", "none"]
VERIFICATION_TEXT: dict[Verification, str] = {
    "tensors": "the CRC-32C of each of its 230 tensors, from any format",
    "file": "the SHA-256 of the published file",
    "none": "names and shapes only: no hash of it is published",
}


@dataclass(frozen=True)
class Download:
    """File to download: mirrors in order, SHA-256 and size in bytes where known."""

    name: str
    urls: tuple[str, ...]
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Source:
    """Files that together hold a network; `weights import` takes the first."""

    files: tuple[Download, ...]
    licence: str = "unknown"


@dataclass(frozen=True)
class Network:
    """Published network. `manual` lists sources that need a browser, `note` holds a warning about similar files."""

    name: str
    description: str
    verification: Verification
    sources: tuple[Source, ...]
    manual: tuple[str, ...] = ()
    note: str = ""

    @property
    def published_hashes(self) -> frozenset[str]:
        """SHA-256 of its published files, as far as known."""
        return frozenset(file.sha256 for source in self.sources for file in source.files if file.sha256)

    @property
    def urls(self) -> list[str]:
        """All addresses for automatic download, in order."""
        return [url for source in self.sources for file in source.files for url in file.urls]


@dataclass(frozen=True)
class HubDownload:
    """Model on the Hugging Face hub, pinned to a commit that has safetensors."""

    repository: str
    revision: str

    @property
    def fetch_command(self) -> str:
        """Command that downloads it into the cache of transformers."""
        return f"hf download {self.repository} --revision {self.revision}"


def network(name: str) -> Network:
    """Network called `name`; raises `UserError` with the nearest known name."""
    if name in HUB_MODELS:
        model = HUB_MODELS[name]
        raise UserError(f"{name}: transformers caches {model.repository} itself; get it with\n  {model.fetch_command}")
    if name not in NETWORKS:
        raise unknown("feature network", name, [*NETWORKS, *HUB_MODELS])
    return NETWORKS[name]


def import_command(name: str) -> str:
    """Command that imports weights from a file on this machine."""
    mean = " --mean MEAN_FILE" if name == "c3d" else ""
    return f"python -m vfbench weights import {name} FILE{mean}"


def fetch_command(name: str) -> str:
    """Command that downloads the weights."""
    return f"python -m vfbench weights fetch {name}"


_KINETICS = "https://github.com/google-deepmind/kinetics-i3d/raw/master/data/checkpoints/rgb_scratch/"
_TGAN2 = "https://github.com/rezoo/tgan2/releases/download/v1.0/"
_HUGGING_FACE = "https://huggingface.co/"
_VIT_G = "mae-g/vit_g_hybrid_pt_1200e_ssv2_ft.pth"

_I3D = Network(
    "i3d",
    "I3D, RGB, trained on Kinetics-400 from scratch: the network of FVD and KVD",
    "tensors",
    (
        Source(
            (
                Download("model.ckpt.index", (_KINETICS + "model.ckpt.index",)),
                Download(
                    "model.ckpt.data-00000-of-00001",
                    (_KINETICS + "model.ckpt.data-00000-of-00001",),
                    size=50_818_176,
                ),
            ),
            "Apache-2.0",
        ),
        Source(
            (
                Download(
                    "i3d_torchscript.pt",
                    (
                        _HUGGING_FACE + "flateon/FVD-I3D-torchscript/resolve/1c2d61711c52571ad617a1063e6fa691b212e184/"
                        "i3d_torchscript.pt",
                        "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
                    ),
                    "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
                    51_235_320,
                ),
            ),
        ),
        Source(
            (
                Download(
                    "i3d_pretrained_400.pt",
                    ("https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt",),
                ),
            ),
        ),
    ),
    (
        "TF-Hub deepmind/i3d-kinetics-400/1, unpacked",
        "https://drive.google.com/uc?id=1mQK8KD8G6UWRa5t87SRMm5PVXtlpneJT (i3d_pretrained_400.pt, VideoGPT and DIGAN)",
        "https://drive.google.com/uc?id=1fBNl3TS0LA5FEhZv5nMGJs2_7qQmvTmh (i3d_pretrained_400.pt, PVDM)",
    ),
    "rgb_imagenet.pt and model_rgb.pth hold another network, inflated from ImageNet, and are refused",
)

_C3D = Network(
    "c3d",
    "C3D, trained on Sports-1M and UCF-101, with its mean clip: the network of the video Inception Score",
    "none",
    (
        Source(
            (
                Download("conv3d_deepnetA_ucf.npz", (_TGAN2 + "conv3d_deepnetA_ucf.npz",)),
                Download(
                    "mean2.npz",
                    (
                        _TGAN2 + "mean2.npz",
                        "https://github.com/pfnet-research/tgan/releases/download/v1.0.0/mean2.npz",
                    ),
                ),
            ),
        ),
    ),
    note="the TorchScript c3d_ucf101.pt has no known hash, and is refused",
)

_INCEPTION = Network(
    "inception",
    "Inception-v3 of 2015-12-05 as in pytorch-fid: the network of FID",
    "file",
    (
        Source(
            (
                Download(
                    "pt_inception-2015-12-05-6726825d.pth",
                    (
                        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                        "pt_inception-2015-12-05-6726825d.pth",
                    ),
                    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
                ),
            ),
        ),
    ),
)

_VIDEOMAE = Network(
    "videomae",
    "VideoMAE-v2 ViT-g/14, fine-tuned on Something-Something v2: the network of cd-fvd's VideoMAE-FVD",
    "file",
    (
        Source(
            (
                Download(
                    "vit_g_hybrid_pt_1200e_ssv2_ft.pth",
                    (
                        _HUGGING_FACE
                        + f"OpenGVLab/VideoMAE2/resolve/97d119d270aca7a1217fff7f413c0c543eb325d9/{_VIT_G}",
                        _HUGGING_FACE + f"OpenGVLab/InternVideoMAE_models/resolve/main/{_VIT_G}",
                    ),
                    "5a210a92f035dff30c53b46157b612e7a1a5d3c99700e1b2d71da5c399ca7e70",
                    2_023_804_201,
                ),
            ),
        ),
    ),
)

_ALEXNET = Network(
    "alexnet",
    "AlexNet of torchvision, trained on ImageNet: the network below LPIPS",
    "file",
    (
        Source(
            (
                Download(
                    "alexnet-owt-7be5be79.pth",
                    ("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",),
                    "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
                    244_408_911,
                ),
            ),
            "BSD-3-Clause",
        ),
    ),
)

NETWORKS = {network.name: network for network in (_I3D, _C3D, _INCEPTION, _VIDEOMAE, _ALEXNET)}
HUB_MODELS = {  # transformers downloads, checks and caches these itself
    "clip": HubDownload("openai/clip-vit-base-patch32", "b33cedfd0df4e43b8238760678fcc89e1a0d38b3"),
}
