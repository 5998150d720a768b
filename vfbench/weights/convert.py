"""`vfbench weights import` and `verify`: read a published file in any of its formats, prove it, and convert it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vfbench.errors import MissingData, UserError
from vfbench.utils import tensor_files
from vfbench.utils.files import file_sha256
from vfbench.weights import c3d, cache, catalogue, formats, i3d, tf_bundle
from vfbench.weights.catalogue import Network
from vfbench.weights.tensors import without_counters
from vfbench.weights.verify import Judgement, Weights, judge, read, write

ITS_RECORD = "what a safetensors file says of its own origin is no proof: import the published file itself"
FORCING = "`weights import` with --force takes it all the same, and no score from it will be called standard"


def convert(network: Network, file: Path, *, mean: Path | None = None, force: bool = False) -> tuple[Path, Judgement]:
    """Import the weights in `file` into the folder, and say where they are now and what proves them.

    `mean` is the second file of C3D. Raises `MissingData` for weights that are damaged or not the published ones;
    `force` takes the latter too, and every score from them will say that it is not standard.
    """
    found = load(network, file, mean)
    judgement = judge(found)
    target = cache.place(network.name)
    if not judgement.standard and network.proof != "none":
        if not force:
            raise MissingData(
                f"{file} is not the published {network.name}: {_why(network, file, judgement)}\n{FORCING}"
            )
        _spare_proven(network, target)
    cache.made(target.parent)
    write(found, target)
    return target, judgement


def load(network: Network, file: Path, mean: Path | None = None) -> Weights:
    """The weights in a file of any format that the network is published in; raises `MissingData` or `UserError`.

    Their origin is the file itself, even where it is a converted one and names another.
    """
    form = formats.recognise(file)
    if mean and (network.name != "c3d" or form == "safetensors"):
        raise UserError(f"--mean {mean}: only C3D has a mean clip, and only as an npz file of its own")
    if network.name == "c3d" and form == "npz":
        return _c3d(network, file, mean)
    if form == "safetensors" and network.proof != "tensors":  # whoever made it may have written any record
        return replace(read(network, file)[0], origins=_origins(file))
    return _by_names(network, file, form)


def _c3d(network: Network, file: Path, mean: Path | None) -> Weights:
    if mean is None:
        raise UserError(f"C3D needs its mean clip too: python -m vfbench weights import c3d {file} --mean mean2.npz")
    return Weights(network, c3d.from_npz(file, mean), _origins(file, mean))


def _by_names(network: Network, file: Path, form: formats.Format) -> Weights:
    """Tensors that have names in their file, under ours."""
    if form == "torchscript":
        state = formats.read_torchscript(file, network.known)
    elif network.name == "c3d" or form == "npz" or (form == "bundle" and network.name != "i3d"):
        takes = "Chainer's npz" if network.name == "c3d" else "a state dict of PyTorch"
        raise MissingData(f"{file} is a file of another network: {network.name} comes as {takes}")
    elif prefix := tf_bundle.find(file):
        return Weights(network, i3d.from_bundle(prefix), _origins(tf_bundle.data(prefix)))
    else:
        state = tensor_files.read(file) if form == "safetensors" else formats.read_torch(file)
    named = i3d.from_state_dict(file, state) if network.name == "i3d" else without_counters(state)
    return Weights(network, named, _origins(file))


def _origins(*files: Path) -> dict[str, str]:
    return {file.name: file_sha256(file) for file in files}


def _why(network: Network, file: Path, judgement: Judgement) -> str:
    """Why weights are not the published ones."""
    claims = network.proof == "file" and formats.recognise(file) == "safetensors"
    return f"{judgement.text}\n{ITS_RECORD}" if claims else judgement.text


def _spare_proven(network: Network, target: Path) -> None:
    """Published weights are not replaced by others."""
    if target.is_file() and judge(read(network, target)[0]).standard:
        raise UserError(f"{target} holds the published {network.name}: move it away first, or set VFBENCH_WEIGHTS")


def verify(network: Network, file: Path | None = None) -> str:
    """What proves the weights in `file`, by default the converted ones, to be the published ones.

    Raises `MissingData` saying what is wrong with them. Of C3D nothing is known to compare with: that is what it says.
    """
    judgement = _judged(network, file)
    if not judgement.standard and network.proof != "none":
        place = file or cache.place(network.name)
        why = _why(network, file, judgement) if file else judgement.text
        raise MissingData(f"{place} is not the published {network.name}: {why}")
    return judgement.text


def present() -> list[Network]:
    """The networks that have a file in the folder; raises `MissingData` when none has."""
    found = [network for network in catalogue.NETWORKS.values() if cache.place(network.name).exists()]
    if not found:
        commands = "".join(f"\n  {catalogue.fetching(name)}" for name in catalogue.NETWORKS)
        raise MissingData(f"no weights in {cache.folder()}: get them with{commands}")
    return found


def verdict(network: Network) -> str | MissingData:
    """What `verify` says of the converted weights, or what it would raise: one bad network hides no other."""
    try:
        return verify(network)
    except MissingData as error:
        return error


def require(verdicts: Mapping[Network, str | MissingData]) -> None:
    """Raise `MissingData` naming every network whose verdict is an error, and the command that gets it."""
    bad = [network.name for network, said in verdicts.items() if isinstance(said, MissingData)]
    if bad:
        commands = "".join(f"\n  {catalogue.fetching(name)}" for name in bad)
        raise MissingData(f"not proven: {', '.join(bad)}; get what is published with{commands}")


def _judged(network: Network, file: Path | None) -> Judgement:
    if file is None:
        return judge(read(network)[0])
    if network.proof != "tensors" and formats.recognise(file) != "safetensors":
        return judge(Weights(network, {}, _origins(file)))  # its hash says all, no need to open it
    return judge(load(network, file))
