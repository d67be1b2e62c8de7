"""A device that computes on the CPU and is as strict as a graphics card: tensors of two devices do not meet.

`start()` makes `torch.device("pretend")` usable in this process, for good. An operator that gets both a tensor of this
device and a CPU tensor with more than one number raises Mixed, as CUDA would; so does numpy() of such a tensor.
Needs a torch whose spare device can be written in Python (2.9 or newer).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "pretend"
HOST_INDICES = {"index", "index_put", "index_put_", "_index_put_impl_"}  # these take indices of the CPU
COPIES = {"_to_copy", "copy_", "set_"}


class Mixed(RuntimeError):
    """Tensors of two devices met in one operator."""


def available() -> bool:
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend  # noqa: F401
    except ImportError:
        return False
    return True


class There(torch.Tensor):
    """A tensor of the pretended device; `here` is what it holds, on the CPU."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor, requires_grad: bool = False) -> There:
        made = torch.Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
            device=torch.device(NAME, 0), requires_grad=requires_grad,
        )  # fmt: skip
        made.here = here
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(function, args, kwargs or {})

    def numpy(self, **_: Any) -> Any:
        raise Mixed("numpy() of a tensor that is not on the CPU")

    def tolist(self) -> Any:
        return self.here.tolist()

    def __repr__(self) -> str:
        return f"There({self.here!r})"


class Factories(TorchDispatchMode):
    """Lets torch.zeros(..., device="pretend") and .to("pretend") find their way."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(issubclass(t, There) for t in types) or is_there(kwargs.get("device")):
            return computed(function, args, kwargs)
        return function(*args, **kwargs)


def is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operator: checked, done on the CPU, its results put back where its arguments live."""
    name = function.__name__.split(".")[0]
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    if any(isinstance(x, There) for x in tensors):
        check(name, tensors)
    wanted = kwargs.get("device")
    there = is_there(wanted) if wanted is not None else any(isinstance(x, There) for x in tensors)
    owners = {id(x.here): x for x in tensors if isinstance(x, There)}
    args, kwargs = pytree.tree_map_only(There, lambda x: x.here, (args, kwargs))
    if wanted is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    if name == "_to_copy" and wanted is not None:
        kwargs.pop("non_blocking", None)
    result = function(*args, **kwargs)
    if name in ("copy_", "set_"):
        there = id(result) in owners

    def back(x: torch.Tensor) -> torch.Tensor:
        return owners.get(id(x)) or There(x) if there else x

    return pytree.tree_map_only(torch.Tensor, lambda x: owners[id(x)] if id(x) in owners else back(x), result)


def check(name: str, tensors: list[torch.Tensor]) -> None:
    if name in COPIES or name in HOST_INDICES:
        return
    strange = [x for x in tensors if not isinstance(x, There) and x.dim() > 0]
    if strange:
        raise Mixed(f"{name}: a CPU tensor of shape {tuple(strange[0].shape)} met tensors of {NAME}")


class Module:
    """What torch asks of a device's module."""

    @staticmethod
    def is_available() -> bool:
        return True

    is_initialized = is_available

    @staticmethod
    def current_device() -> int:
        return 0

    _is_in_bad_fork = current_device

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        pass

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.float32]


def start() -> None:
    """Register the device; before the process's first backward pass, for autograd counts the devices once."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=Module)
    for name, function in KERNELS.items():
        LIBRARY.impl(name, function, "PrivateUse1")
    Factories().__enter__()


def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> There:
    return There(torch.empty_strided(size, stride, dtype=dtype))


def copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    plain = [x.here if isinstance(x, There) else x for x in (source, target)]
    plain[1].copy_(plain[0])
    return target


LIBRARY = torch.library.Library("aten", "IMPL")
KERNELS = {"empty_strided": empty_strided, "_copy_from": copy_from}  # torch.tensor(..., device=) asks for these itself
