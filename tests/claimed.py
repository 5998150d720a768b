"""A device that only claims to be CUDA: tensors that say they are on cuda:0, and hold their numbers on the CPU.

`claimed_cuda` runs any code on such tensors, also where there is no GPU, and watches every operation of torch:

- An operation on tensors of both devices raises `DeviceMix`, as CUDA would.
- Whatever makes the host wait for the GPU, or copies between the two, is noted with its place in the code.
- So is every float64 tensor on the device, which most GPUs compute at a small part of their speed.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda:0")
CODE = Path(__file__).parent.parent  # events name the innermost line of code below this folder
WAIT, TO_DEVICE, FLOAT64 = "host waits for", "copy to the device", "float64 on the device"
# Operations whose result, or its shape, the host must read before it goes on.
_WAITING = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "_unique2")
_HEAVY = ("convolution", "conv2d", "conv3d", "linear", "addmm")
_INDEXING = ("index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_")


class DeviceMix(RuntimeError):
    """An operation on tensors of the CPU and of the device that claims to be CUDA."""


class ClaimedTensor(Tensor):
    """Tensor that claims to be on cuda:0; `numbers` are on the CPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> ClaimedTensor:
        made: ClaimedTensor = Tensor._make_wrapper_subclass(
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            requires_grad=real.requires_grad,
        )
        made.numbers = real
        return made

    device = property(lambda _: CUDA)  # autograd still sees a CPU
    is_cuda = property(lambda _: True)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise AssertionError(f"{func} outside of claimed_cuda")


class Events(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Copies, waits and float64 tensors, counted by what happened and where: `counts`."""

    def __init__(self, *, shapes_only: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.shapes_only = shapes_only

    def note(self, kind: str) -> None:
        """Count an event at the innermost line of this repository's code that is not this file."""
        frames = [f for f in traceback.extract_stack() if f.filename.startswith(str(CODE)) and f.filename != __file__]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].line}" if frames else "elsewhere"
        self.counts[f"{kind}: {place}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name, leaves = func.overloadpacket.__name__, tree_leaves((args, kwargs))
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        on_device = any(isinstance(tensor, ClaimedTensor) for tensor in tensors)
        targets = [x for x in leaves if isinstance(x, torch.device)]
        # torch asks for the CPU where it thinks that a tensor is there. `Tensor.to` and `cpu`, which users call, are
        # replaced in `claimed_cuda` and do not come here.
        if targets and not on_device:
            on_device = targets[0].type == "cuda"
        if targets:
            args, kwargs = tree_map(lambda x: torch.device("cpu") if isinstance(x, torch.device) else x, (args, kwargs))
        if not on_device and not any(isinstance(tensor, ClaimedTensor) for tensor in tensors):
            return func(*args, **kwargs)
        self._check(func, name, args, tensors, kwargs, to_device=bool(targets) and on_device)
        real_args, real_kwargs = tree_map(_real, (args, kwargs))
        if self.shapes_only and name in _HEAVY:
            on_meta = tree_map(lambda x: x.to("meta") if isinstance(x, Tensor) else x, (real_args, real_kwargs))
            shape = func(*on_meta[0], **on_meta[1])
            output = torch.zeros(shape.shape, dtype=shape.dtype)
        else:
            output = func(*real_args, **real_kwargs)
        if not on_device or name in ("_local_scalar_dense", "item", "is_nonzero", "equal"):
            return output
        # A view of a normal tensor is a normal tensor, also in inference mode.
        normal_view = func.is_view and not args[0].is_inference()
        with torch.inference_mode(torch.is_inference_mode_enabled() and not normal_view):
            claimed = tree_map(lambda x: ClaimedTensor(x) if isinstance(x, Tensor) else x, output)
        if any(isinstance(x, Tensor) and x.dtype == torch.float64 for x in tree_leaves(output)):
            self.note(FLOAT64)
        return _same_objects(func, args, claimed)

    def _check(
        self,
        func: Any,
        name: str,
        args: Any,
        tensors: Sequence[Tensor],
        kwargs: Mapping[str, Any],
        *,
        to_device: bool,
    ) -> None:
        """Note copies and waits; raise `DeviceMix`."""
        claimed = [isinstance(tensor, ClaimedTensor) for tensor in tensors]
        if name in ("to", "_to_copy", "copy_"):
            self._check_copy(name, args, kwargs, to_device)
            return
        if any(claimed) and name in _WAITING:
            self.note(WAIT)
        if name in _INDEXING and isinstance(args[0], ClaimedTensor):
            self._check_index(args[1])
            return
        scalars = torch.Tag.pointwise in func.tags  # takes a single number of the CPU
        strangers = [t for t, on in zip(tensors, claimed, strict=True) if not on and not (scalars and t.ndim == 0)]
        if any(claimed) and strangers:
            raise DeviceMix(f"{func}: a tensor {tuple(strangers[0].shape)} of the CPU meets one of {CUDA}")

    def _check_copy(self, name: str, args: Any, kwargs: Mapping[str, Any], to_device: bool) -> None:
        source = args[1] if name == "copy_" else args[0]
        to_device = isinstance(args[0], ClaimedTensor) if name == "copy_" else to_device
        pinned = kwargs.get("non_blocking", False) and getattr(source, "pinned", False)
        if to_device and not isinstance(source, ClaimedTensor) and not pinned:
            self.note(TO_DEVICE)
        if name == "copy_" and isinstance(source, ClaimedTensor) and not to_device:
            self.note(WAIT)

    def _check_index(self, indices: Sequence[Tensor | None]) -> None:
        for index in indices:
            if index is not None and not isinstance(index, ClaimedTensor):
                self.note(TO_DEVICE)
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self.note(WAIT)


def _real(value: Any) -> Any:
    return value.numbers if isinstance(value, ClaimedTensor) else value


def _same_objects(func: Any, args: Sequence[Any], output: Any) -> Any:
    """The output of an operation in place: its first argument itself."""
    if func._schema.is_mutable and args and isinstance(args[0], ClaimedTensor) and isinstance(output, Tensor):
        return args[0]
    return output


@contextmanager
def claimed_cuda(*, shapes_only: bool = False) -> Iterator[Events]:
    """Context manager in which `CUDA` can be used as a device; yields what is noted.

    With `shapes_only`, convolutions and matrix products of layers give zeros, so that large networks take no time.

    torch makes tensors on it, moves them, and runs autograd and optimisers. Autocast to CUDA becomes autocast on a CPU.
    """
    events, to, autocast = Events(shapes_only=shapes_only), Tensor.to, torch.autocast

    def moved(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, rest = _destination(*args, **kwargs)
        if not isinstance(tensor, ClaimedTensor):
            return to(
                tensor, **({**rest, "device": CUDA} if device and device.type == "cuda" else {**rest, "device": device})
            )
        if device is None or device.type == "cuda":
            return to(tensor, **rest)
        if device.type == "cpu" and not rest.get("non_blocking"):
            events.note(WAIT)
        return to(tensor.numbers.detach().clone(), **rest, device=device)

    def read(tensor: ClaimedTensor) -> Any:
        events.note(WAIT)
        return tensor.numbers.tolist()

    def refuse(tensor: ClaimedTensor, *_: Any, **__: Any) -> Any:
        raise TypeError(f"a tensor on {CUDA} has no numpy array: copy it to the CPU first")

    def pin(tensor: Tensor) -> Tensor:
        pinned = tensor.detach().clone()
        pinned.pinned = True  # type: ignore[attr-defined]
        return pinned

    def new_tensor(_: ClaimedTensor, data: Any, **kwargs: Any) -> Tensor:
        return torch.tensor(data, **{"device": CUDA, "dtype": _.dtype, **kwargs})

    grouped = torch._C._group_tensors_by_device_and_dtype

    def group(lists: Any, with_indices: bool = False) -> Any:
        groups: Any = grouped(lists, with_indices).items()
        return {(content[0][0][0].device, key[1]): content for key, content in groups}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", group)  # of optimisers and gradient norms
        patch.setattr(Tensor, "to", moved)
        patch.setattr(Tensor, "cpu", lambda tensor: moved(tensor, "cpu"))
        patch.setattr(Tensor, "pin_memory", pin)
        for name, method in {"tolist": read, "numpy": refuse, "__array__": refuse, "new_tensor": new_tensor}.items():
            patch.setattr(ClaimedTensor, name, method, raising=False)
        patch.setattr(torch, "autocast", lambda device, *args, **kwargs: autocast("cpu", *args, **kwargs))
        patch.setattr(torch.cuda, "Event", _Event)
        if not torch.cuda.is_available():
            patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)  # of Module.to
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=CUDA) then passes through `Events`
        try:
            with events:
                yield events
        finally:
            torch._C._set_only_lift_cpu_tensors(before)


class _Event:
    """CUDA event of a device on which everything is done at once."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


def _destination(*args: Any, **kwargs: Any) -> tuple[torch.device | None, dict[str, Any]]:
    """Device that `Tensor.to` is asked for, None for the same one, and its other arguments."""
    if isinstance(other := args[0] if args else kwargs.pop("other", None), Tensor):
        names = ("non_blocking", "copy")
        return other.device, {"dtype": other.dtype, **dict(zip(names, args[1:], strict=False)), **kwargs}
    copy = kwargs.pop("copy", False)
    device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    rest = {"dtype": dtype, "non_blocking": non_blocking, "copy": copy, "memory_format": memory_format}
    return device, {name: value for name, value in rest.items() if value not in (None, False)}
