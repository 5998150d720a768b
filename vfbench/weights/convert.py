"""`vfbench weights import` and `verify`: read a published file in any of its formats, verify it and convert it."""

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
from vfbench.weights.verify import VerificationResult, Weights, read_converted, verify_weights, write_converted

METADATA_HINT = "the metadata of a safetensors file does not prove its origin: import the published file itself"
FORCE_HINT = "`weights import --force` accepts it; its scores are then marked as nonstandard"


def import_weights(
    network: Network, file: Path, *, mean: Path | None = None, force: bool = False
) -> tuple[Path, VerificationResult]:
    """Import the weights in `file` into the weights folder; returns the converted file and the verification result.

    `mean` is the mean clip of C3D, a second file. Raises `MissingData` for weights that are damaged or not the
    published ones; `force` accepts the latter and marks every score from them as nonstandard.
    """
    weights = read_any_format(network, file, mean)
    result = verify_weights(weights)
    target = cache.weights_path(network.name)
    if not result.verified and network.verification != "none":
        if not force:
            reason = _reason(network, file, result)
            raise MissingData(f"{file} is not the published {network.name}: {reason}\n{FORCE_HINT}")
        _refuse_overwrite(network, target)
    cache.make_folder(target.parent)
    write_converted(weights, target)
    return target, result


def read_any_format(network: Network, file: Path, mean: Path | None = None) -> Weights:
    """Weights from a file in any published format of the network.

    `mean` is the mean clip that C3D in npz format needs. The SHA-256 of `file` is recorded as the origin, even where
    its metadata name another file. Raises `MissingData` for a file that cannot be read as this network, and `UserError`
    for a `mean` that is missing or not needed.
    """
    file_format = formats.detect_format(file)
    if mean and (network.name != "c3d" or file_format == "safetensors"):
        raise UserError(f"--mean {mean}: only C3D in npz format takes a mean clip; leave out --mean")
    if network.name == "c3d" and file_format == "npz":
        return _read_c3d(network, file, mean)
    if file_format == "safetensors" and network.verification != "tensors":  # its metadata may be forged
        return replace(read_converted(network, file)[0], origins=_file_hashes(file))
    return _read_named_tensors(network, file, file_format)


def _read_c3d(network: Network, file: Path, mean: Path | None) -> Weights:
    if mean is None:
        raise UserError(f"C3D needs its mean clip too: python -m vfbench weights import c3d {file} --mean mean2.npz")
    return Weights(network, c3d.from_npz(file, mean), _file_hashes(file, mean))


def _read_named_tensors(network: Network, file: Path, file_format: formats.Format) -> Weights:
    """Weights from a format that names its tensors, under vfbench's names."""
    if file_format == "torchscript":
        state = formats.read_torchscript(file, network.published_hashes)
    elif network.name == "c3d" or file_format == "npz" or (file_format == "bundle" and network.name != "i3d"):
        expected = "Chainer npz" if network.name == "c3d" else "PyTorch state dict"
        raise MissingData(f"{file} is a file of another network: {network.name} is published as {expected}")
    elif prefix := tf_bundle.find_prefix(file):
        return Weights(network, i3d.from_bundle(prefix), _file_hashes(tf_bundle.data_file(prefix)))
    else:
        state = tensor_files.read(file) if file_format == "safetensors" else formats.read_torch(file)
    tensors = i3d.from_state_dict(file, state) if network.name == "i3d" else without_counters(state)
    return Weights(network, tensors, _file_hashes(file))


def _file_hashes(*files: Path) -> dict[str, str]:
    return {file.name: file_sha256(file) for file in files}


def _reason(network: Network, file: Path, result: VerificationResult) -> str:
    """Reason why weights are not the published ones."""
    converted = network.verification == "file" and formats.detect_format(file) == "safetensors"
    return f"{result.text}\n{METADATA_HINT}" if converted else result.text


def _refuse_overwrite(network: Network, target: Path) -> None:
    """Raise `UserError` where `target` holds the published weights."""
    if target.is_file() and verify_weights(read_converted(network, target)[0]).verified:
        raise UserError(f"{target} holds the published {network.name}: move it away first, or set VFBENCH_WEIGHTS")


def verify(network: Network, file: Path | None = None) -> str:
    """Verify the weights in `file`, by default the converted ones; returns the evidence.

    Raises `MissingData` with the mismatch. C3D has no published hash, so it always passes, and the text says so.
    """
    result = _verify_file(network, file)
    if not result.verified and network.verification != "none":
        path = file or cache.weights_path(network.name)
        reason = _reason(network, file, result) if file else result.text
        raise MissingData(f"{path} is not the published {network.name}: {reason}")
    return result.text


def installed_networks() -> list[Network]:
    """Networks with a file in the weights folder; raises `MissingData` when there is none."""
    networks = [network for network in catalogue.NETWORKS.values() if cache.weights_path(network.name).exists()]
    if not networks:
        commands = "".join(f"\n  {catalogue.fetch_command(name)}" for name in catalogue.NETWORKS)
        raise MissingData(f"no weights in {cache.folder()}: get them with{commands}")
    return networks


def verify_or_message(network: Network) -> str | MissingData:
    """Text of `verify` for the converted weights, or its error, so that one bad network hides no other."""
    try:
        return verify(network)
    except MissingData as error:
        return error


def require_verified(outcomes: Mapping[Network, str | MissingData]) -> None:
    """Raise `MissingData` naming every network whose outcome is an error, and the command that gets it."""
    failed = [network.name for network, outcome in outcomes.items() if isinstance(outcome, MissingData)]
    if failed:
        commands = "".join(f"\n  {catalogue.fetch_command(name)}" for name in failed)
        raise MissingData(f"not verified: {', '.join(failed)}; get the published weights with{commands}")


def _verify_file(network: Network, file: Path | None) -> VerificationResult:
    if file is None:
        return verify_weights(read_converted(network)[0])
    if network.verification != "tensors" and formats.detect_format(file) != "safetensors":
        return verify_weights(Weights(network, {}, _file_hashes(file)))  # the hash of the file is enough
    return verify_weights(read_any_format(network, file))
