"""What tells of full memory, and what is done about it; also where memory is short in earnest."""

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
from torch import Tensor

from vfbench.errors import BadEnvironment
from vfbench.training import resume
from vfbench.utils import checkpoint, memory
from vfbench.utils.memory import AdaptiveBatches

GPU, MACHINE = "the memory of the GPU", "the memory of this machine"


def taken(things: Sequence[Any], room: int) -> None:
    """Things for a GPU that holds no more of them."""
    if len(things) > room:
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("error", "said"),
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
def test_what_tells_of_full_memory(error: Exception, said: str) -> None:
    assert memory.exhausted_memory(error) == said

    def work(batch: Sequence[int]) -> None:
        raise error

    with pytest.raises(BadEnvironment, match=f"it does not fit into {said}: end other"):
        list(AdaptiveBatches().each([1], work, lambda _: "it"))
    with (
        pytest.raises(BadEnvironment, match=f"the whole does not fit into {said}: end other"),
        memory.require_memory("the whole"),
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
def test_another_error_is_no_lack_of_memory(error: Exception) -> None:
    def work(batch: Sequence[int]) -> None:
        raise error

    with pytest.raises(type(error), match=re.escape(str(error))):
        list(AdaptiveBatches(4).each(range(8), work, str))
    with pytest.raises(type(error), match=re.escape(str(error))), memory.require_memory("the whole"):
        raise error


def test_the_last_batch_counts_as_what_it_is() -> None:
    batches = AdaptiveBatches(8)
    assert [list(batch) for batch, _ in batches.each(range(3), partial(taken, room=2), str)] == [[0], [1], [2]]
    assert batches.size == 1


def test_nothing_of_a_failed_batch_is_held_when_the_next_one_is_made() -> None:
    held: list[weakref.ref[Tensor]] = []

    def work(batch: Sequence[int]) -> int:
        assert all(made() is None for made in held)
        tensor = torch.zeros(len(batch))
        held.append(weakref.ref(tensor))
        taken(batch, room=1)
        return len(tensor)

    assert [made for _, made in AdaptiveBatches().each(range(4), work, str)] == [1, 1, 1, 1]
    assert len(held) == 6  # 4, 2 and the four single ones


# Where it must not pass for something else.


def full(*_: Any, **__: Any) -> None:
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")


def test_full_memory_is_not_taken_for_a_damaged_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resume.save_state(tmp_path, {}, 1, 0.0, {})
    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(BadEnvironment, match=f"training.pt does not fit into {MACHINE}"):
        resume.load_state(tmp_path, {}, {})


def test_full_memory_is_not_taken_for_a_wrong_configuration(tmp_path: Path) -> None:
    said = f"the vdm of {tmp_path} does not fit into {MACHINE}"
    with pytest.raises(BadEnvironment, match=said), checkpoint.config_errors(tmp_path, "vdm"):
        full()


def test_every_command_tells_full_memory(vfbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vfbench.training.build.matching.describe", full)
    done = vfbench("train", "--model", "vdm", "--dataset", "shapes")
    assert (done.code, done.err.count("\n")) == (BadEnvironment.exit_code, 1)
    assert done.err.startswith(f"error: this command does not fit into {MACHINE}: end other programs")


# In earnest.


def test_a_machine_that_grants_no_more_makes_and_teaches_the_same_in_smaller_parts(tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("other systems do not keep to a limit of address space")
    command = [sys.executable, str(ROOT / "tests" / "limited.py"), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, **limited.ENVIRONMENT}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"256 clips do not fit into {MACHINE}: batches of 128 from here on" in done.stderr
    assert f"step 1 does not fit into {MACHINE}: continuing with --accumulate 2" in done.stderr
    made = torch.load(tmp_path / "made.pt", weights_only=True)
    close_clips(*made["clips"])
    little, expected = made["weights"]
    assert all(torch.equal(little[name], expected[name]) for name in expected)
