"""Compilation of a sampler's networks for `--compile`: of their repeated blocks, once for each block and batch size."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn

from vfbench.errors import BadEnvironment, UserError
from vfbench.interfaces import Sampler
from vfbench.utils.files import cache_folder

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
PATIENCE = 900.0  # seconds that a first network call may take, in which nothing shows a sign of life
PROGRAMS = 256  # of one class of blocks: a U-Net has another shape at each level, and torch stops at 8


def compile_blocks(model: str, sampler: Sampler, device: torch.device) -> None:
    """Have the repeated blocks of a sampler's networks compiled when they are first called.

    Blocks of one class and shape share a program, so that this takes less time than a whole network does. Shapes are
    static: each batch size has programs of its own. They are kept in the cache folder, for other processes and runs.
    Raises `UserError` for a model without repeated blocks, and `BadEnvironment` for a CPU without a C++ compiler.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # slow to import

    networks = (network for name, network in sampler.networks.items() if name.rpartition(".")[2] != "condition")
    blocks = [block for network in networks for block in repeated_blocks(network)]
    if not blocks:
        raise UserError(f"--compile: {model} has no network with repeated blocks; leave it out")
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise BadEnvironment(f"--compile on a CPU needs a C++ compiler, and there is no {compiler}: install it")
    if os.environ.get(CACHE_VARIABLE) in (None, default_cache_dir()):  # torch sets it to the latter when imported
        os.environ[CACHE_VARIABLE] = str(cache_folder() / "compiled")
    torch._dynamo.config.recompile_limit = max(PROGRAMS, torch._dynamo.config.recompile_limit)
    torch._dynamo.config.accumulated_recompile_limit = max(
        4 * PROGRAMS, torch._dynamo.config.accumulated_recompile_limit
    )
    for block in blocks:
        block.compile(dynamic=False)


def repeated_blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Outermost modules of the classes that a list of modules holds, and that the network has more than once."""
    listed = {
        type(item) for each in network.modules() if isinstance(each, nn.ModuleList) for item in each
    }  # layers of torch itself, such as a convolution, gain nothing alone
    counts = Counter(type(each) for each in network.modules())
    kinds = {kind for kind in listed if counts[kind] > 1 and not kind.__module__.startswith("torch.")}
    inner: set[nn.Module] = set()
    for module in network.modules():
        if type(module) in kinds and module not in inner:
            yield module
            inner.update(module.modules())
