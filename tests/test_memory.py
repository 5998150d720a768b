"""Tests of `vfbench.utils.memory`: out-of-memory errors are recognised, and smaller batches give equal results."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import limited
import pytest
import torch
from conftest import ROOT, Command, close_clips
from helpers import tiny_vdm
from torch import Tensor

from vfbench.errors import BadEnvironment
from vfbench.training import resume
from vfbench.utils import checkpoint, memory
from vfbench.utils.memory import AdaptiveBatches

GPU, MACHINE = "the memory of the GPU", "the memory of this machine"


def allocate(items: Sequence[Any], capacity: int) -> None:
    """Raise the out-of-memory error of a GPU that holds `capacity` items."""
    if len(items) > capacity:
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("error", "memory_name"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), GPU),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), GPU),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), GPU),
        (RuntimeError("CUDA driver error: out of memory"), GPU),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), GPU),  # up to cuDNN 8
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), GPU),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"), MACHINE),
        (RuntimeError("std::bad_alloc"), MACHINE),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), MACHINE),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"), MACHINE),
        (RuntimeError("could not create a primitive"), MACHINE),
        (MemoryError("Unable to allocate 1.0 GiB for an array"), MACHINE),
    ],
)
def test_out_of_memory_errors_are_recognised(error: Exception, memory_name: str) -> None:
    assert memory.exhausted_memory(error) == memory_name

    def work(batch: Sequence[int]) -> None:
        raise error

    with pytest.raises(BadEnvironment, match=f"does not fit into {memory_name}: end other"):
        list(AdaptiveBatches().each([1], work, lambda _: "it"))
    with (
        pytest.raises(BadEnvironment, match=f"the job does not fit into {memory_name}"),
        memory.require_memory("the job"),
    ):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("broken"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
        ValueError("CUDA error: out of memory"),
        FileNotFoundError(errno.ENOENT, "No such file"),
    ],
)
def test_other_errors_pass_unchanged(error: Exception) -> None:
    def work(batch: Sequence[int]) -> None:
        raise error

    with pytest.raises(type(error), match=re.escape(str(error))):
        list(AdaptiveBatches(4).each(range(8), work, str))
    with pytest.raises(type(error), match=re.escape(str(error))), memory.require_memory("the job"):
        raise error


def test_a_short_last_batch_is_split_by_its_size() -> None:
    batches = AdaptiveBatches(8)
    assert [list(batch) for batch, _ in batches.each(range(3), partial(allocate, capacity=2), str)] == [[0], [1], [2]]
    assert batches.size == 1


def test_a_failed_batch_is_freed_before_the_next() -> None:
    references: list[weakref.ref[Tensor]] = []

    def work(batch: Sequence[int]) -> int:
        assert all(reference() is None for reference in references)
        tensor = torch.zeros(len(batch))
        references.append(weakref.ref(tensor))
        allocate(batch, capacity=1)
        return len(tensor)

    assert [result for _, result in AdaptiveBatches().each(range(4), work, str)] == [1, 1, 1, 1]
    assert len(references) == 6  # batches of 4 and 2, then four of 1


# Out-of-memory errors are not reported as other errors.


def raise_out_of_memory(*_: Any, **__: Any) -> None:
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")


def test_out_of_memory_is_not_reported_as_a_damaged_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = resume.Settings(tiny_vdm().config, "aa", limited.OPTIONS)
    resume.save_state(tmp_path, {}, 1, 0.0, settings)
    monkeypatch.setattr(torch, "load", raise_out_of_memory)
    with pytest.raises(BadEnvironment, match=f"training.pt does not fit into {MACHINE}"):
        resume.load_state(tmp_path, {}, settings)


def test_out_of_memory_is_not_reported_as_a_wrong_configuration(tmp_path: Path) -> None:
    message = f"the vdm of {tmp_path} does not fit into {MACHINE}"
    with pytest.raises(BadEnvironment, match=message), checkpoint.config_errors(tmp_path, "vdm"):
        raise_out_of_memory()


def test_a_command_reports_out_of_memory_in_one_line(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfbench.training.build.equal_compute.describe", raise_out_of_memory)
    outcome = vfbench("train", "--model", "vdm", "--dataset", "shapes")
    assert (outcome.code, outcome.err.count("\n")) == (BadEnvironment.exit_code, 1)
    assert outcome.err.startswith("error: ")
    assert f"does not fit into {MACHINE}" in outcome.err


# A real memory limit.


@pytest.mark.slow
def test_sampling_and_training_under_a_memory_limit_give_equal_results(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux enforces a limit of address space")
    command = [sys.executable, str(ROOT / "tests" / "limited.py"), str(tmp_path)]
    outcome = subprocess.run(command, env={**os.environ, **limited.ENVIRONMENT}, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert f"384 clips do not fit into {MACHINE}: batches of 192" in outcome.stderr
    assert f"step 1 does not fit into {MACHINE}: continuing with --accumulate 2" in outcome.stderr
    tensors = torch.load(tmp_path / "tensors.pt", weights_only=True)
    close_clips(*tensors["clips"])
    weights, expected = tensors["weights"]
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
