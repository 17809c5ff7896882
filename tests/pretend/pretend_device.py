"""A pretend accelerator for tests: a device of its own whose tensors lie in the CPU's
memory, so that code meant for a GPU runs where there is none.

PyTorch keeps the dispatch key PrivateUse1 for devices it does not know. Here that key
is called "pretend", and one fallback kernel in Python does every operation on the CPU.
As on a GPU, operations refuse tensors of two devices (a CPU tensor without dimensions
passes), ``.numpy()`` and generators of the other device. What would make the host wait
for a GPU is counted: :func:`syncs`.

It says nothing of a GPU's speed, memory, rounding or autocast.
"""

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

NAME = "pretend"
_aten = torch.ops.aten
_CPU_KERNEL = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_OWN_FILES = (str(Path(torch.__file__).parent), __file__)


class Sync(NamedTuple):
    """Why the host waits, and the first line outside torch that asked for it."""

    why: str
    where: str


_WAITS = {
    _aten._local_scalar_dense.default: "read",  # item(), bool(), float()
    _aten.equal.default: "read",
    # What has as many rows as the numbers say; masks as an index come here as well
    _aten.nonzero.default: "shape",
    _aten.masked_select.default: "shape",
    _aten._unique2.default: "shape",
    _aten.unique_consecutive.default: "shape",
    _aten.unique_dim.default: "shape",
    _aten.repeat_interleave.Tensor: "shape",
    _aten.bincount.default: "shape",
}
_watching: list[list[Sync]] = []


@contextmanager
def syncs() -> Iterator[list[Sync]]:
    """Meanwhile, list what makes the host wait: a "read" of numbers, a "copy" to or
    from the device (not to it with ``non_blocking``), and a "shape" that depends on
    numbers."""
    counted: list[Sync] = []
    _watching.append(counted)
    try:
        yield counted
    finally:
        _watching.remove(counted)


def _count(why: str) -> None:
    if _watching:
        for counted in _watching:
            counted.append(Sync(why, _caller()))


def _caller() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.endswith(".py") and not file.startswith(_OWN_FILES):
            return f"{Path(file).name}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "backward"


# --- Tensors of both devices on the same memory ---------------------------------------


def _on_host(tensor: Tensor) -> Tensor:
    """A CPU tensor on the memory of a tensor of the device."""
    storage = tensor.untyped_storage()
    host = torch.empty(0, dtype=tensor.dtype)
    if not storage.nbytes():  # may grow, as an output
        return host.resize_(tensor.shape)
    layout = tensor.storage_offset(), tensor.shape, tensor.stride()
    return host.set_(_host_storage(storage), *layout)


def _host_storage(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    return torch._C._construct_storage_from_data_pointer(
        storage.data_ptr(), torch.device("cpu"), storage.nbytes()
    )


def _on_device(host: Tensor, known: dict[int, torch.UntypedStorage]) -> Tensor:
    """The device's tensor on the memory of a CPU tensor, which may be that of an
    argument."""
    tensor = torch._C._acc.create_empty_tensor([0], host.dtype)
    _lay_out(tensor, host, known)
    return tensor


def _lay_out(tensor: Tensor, host: Tensor, known: dict) -> None:
    memory = host.untyped_storage()
    storage = known.get(memory.data_ptr()) if memory.nbytes() else None
    storage = _device_storage(memory) if storage is None else storage
    _aten.set_.source_Storage_storage_offset.redispatch(
        _CPU_KERNEL, tensor, storage, host.storage_offset(), host.shape, host.stride()
    )


def _device_storage(memory: torch.UntypedStorage) -> torch.UntypedStorage:
    """The CPU's memory as the device's."""
    storage = torch._C._construct_storage_from_data_pointer(
        memory.data_ptr(), torch.device(NAME, 0), memory.nbytes()
    )
    weakref.finalize(storage, _forget, memory)  # holds the memory till then
    return storage


def _forget(memory: torch.UntypedStorage) -> None:
    pass


# --- The one kernel -------------------------------------------------------------------


def _kernel(op, *args, **kwargs):
    """Any operation, on the CPU."""
    pairs: list[tuple[Tensor, Tensor]] = []
    on_cpu: list[Tensor] = []

    def to_host(x):
        if isinstance(x, Tensor):
            if x.device.type != NAME:
                on_cpu.append(x)
                return x
            pairs.append((x, _on_host(x)))
            return pairs[-1][1]
        if isinstance(x, list | tuple):
            return type(x)([to_host(each) for each in x])
        if isinstance(x, torch.device):
            return torch.device("cpu")
        if isinstance(x, torch._C.Generator):
            _require_own(x)
        return x

    host_args = to_host(args)
    host_kwargs = {name: to_host(x) for name, x in kwargs.items()}
    if on_cpu and pairs:
        _require_one_device(op, args, on_cpu)
    if op in _WAITS:
        _count(_WAITS[op])
    result = op(*host_args, **host_kwargs)
    known = {}
    for tensor, host in pairs:
        known[host.untyped_storage().data_ptr()] = tensor.untyped_storage()
    if op._schema.is_mutable:
        for tensor, host in pairs:
            _follow(tensor, host, known)
    originals = {id(host): tensor for tensor, host in pairs}

    def back(x):
        if isinstance(x, Tensor):
            same = originals.get(id(x))
            return _on_device(x, known) if same is None else same
        if isinstance(x, list | tuple):
            return type(x)(back(each) for each in x)
        return x

    return back(result)


def _follow(tensor: Tensor, host: Tensor, known: dict) -> None:
    """Take over a shape that an operation in place or an output has changed."""
    grown = not tensor.untyped_storage().nbytes() and host.untyped_storage().nbytes()
    if grown:
        known.pop(host.untyped_storage().data_ptr(), None)
    changed = tensor.shape != host.shape or tensor.stride() != host.stride()
    if grown or changed:
        _lay_out(tensor, host, known)
        known[host.untyped_storage().data_ptr()] = tensor.untyped_storage()


# A GPU's tensor may be indexed by tensors of the CPU, which are copied.
_INDEXING = {
    _aten.index,
    _aten.index_put,
    _aten.index_put_,
    _aten._index_put_impl_,
    _aten._unsafe_index,
}


def _require_one_device(op, args: tuple, on_cpu: list[Tensor]) -> None:
    if op.overloadpacket in _INDEXING and args[0].device.type == NAME:
        indices = {id(x) for x in args[1]}
        for _ in indices & {id(x) for x in on_cpu}:
            _count("copy")
        on_cpu = [x for x in on_cpu if id(x) not in indices]
    if any(x.dim() for x in on_cpu):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two "
            f"devices, {NAME}:0 and cpu! (in {op})"
        )


def _require_own(generator: torch._C.Generator) -> None:
    if _expected:
        _expected.append(generator)
    elif id(generator) not in _own_generators:
        raise RuntimeError(
            f"Expected a '{NAME}' device type for generator but found 'cpu'"
        )


def _copy(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    uploads = target.device.type == NAME
    if source.device.type != target.device.type and not (uploads and non_blocking):
        _count("copy")
    hosts = [x if x.device.type == "cpu" else _on_host(x) for x in (source, target)]
    hosts[1].copy_(hosts[0])
    return target


def _resize(tensor: Tensor, size, memory_format=None) -> Tensor:
    _lay_out(tensor, _on_host(tensor).clone().resize_(size), {})
    return tensor


def _set(tensor: Tensor, *args) -> Tensor:
    """Another tensor's memory, or none."""
    if not args:
        args = torch._C._acc.create_empty_tensor([0], tensor.dtype), 0, [0], [1]
    source, *layout = args
    if isinstance(source, Tensor):
        layout = layout or [source.storage_offset(), source.shape, source.stride()]
        source = source.untyped_storage()
    if not layout:
        count = source.nbytes() // tensor.dtype.itemsize
        layout = [0, [count], [1]]
    return _aten.set_.source_Storage_storage_offset.redispatch(
        _CPU_KERNEL, tensor, source, *layout
    )


_KERNELS = {
    _aten._copy_from.default: _copy,
    _aten._copy_from_and_resize.default: lambda source, target: _copy(
        source, _resize(target, source.shape)
    ),
    _aten.resize_.default: _resize,
    _aten.set_.default: _set,
    _aten.set_.source_Tensor: _set,
    _aten.set_.source_Storage: _set,
    _aten.set_.source_Storage_storage_offset: _set,
}


def _fallback(op, *args, **kwargs):
    own = _KERNELS.get(op)
    return _kernel(op, *args, **kwargs) if own is None else own(*args, **kwargs)


# --- What torch asks of a device besides ----------------------------------------------


_own_generators: dict[int, None] = {}
_expected: list = []


class Generator(torch._C.Generator):
    """torch's generators, and those of the device, which draw what the CPU's would. Not
    shown is that the CPU refuses one of the device."""

    def __new__(cls, device="cpu"):
        device = torch.device(device)
        own = super().__new__(cls, "cpu" if device.type == NAME else device)
        own.named = device
        if device.type == NAME:
            own.named = torch.device(NAME, 0)
            own.as_argument = _as_argument(own)
            number = id(own.as_argument)
            _own_generators[number] = None
            weakref.finalize(own, _own_generators.pop, number)
        return own

    def __init__(self, device="cpu"):
        pass

    @property
    def device(self) -> torch.device:
        return self.named


def _as_argument(generator: torch._C.Generator) -> torch._C.Generator:
    """The object by which kernels know a generator, which is another one."""
    _expected.append(None)
    try:
        torch.rand(0, device=NAME, generator=generator)
        return _expected[-1]
    finally:
        _expected.clear()


class _Module:
    """``torch.pretend``."""

    @staticmethod
    def is_available() -> bool:
        return True

    is_initialized = is_available

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def _lazy_init(*args) -> None:
        pass

    manual_seed = manual_seed_all = set_device = synchronize = empty_cache = _lazy_init

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _Guard(torch._C._acc.DeviceGuard):
    def type_(self):
        return torch._C._autograd.DeviceType.PrivateUse1


_installed: list = []


def install() -> None:
    """Make the device known to torch, for the rest of the process."""
    if _installed:
        return
    from torch.utils.backend_registration import (
        _setup_privateuseone_for_python_backend,
    )

    _setup_privateuseone_for_python_backend(NAME, _Module(), device_guard=_Guard())
    library = torch.library.Library("_", "IMPL")
    library.fallback(_fallback, "PrivateUse1")
    _installed.append(library)
    torch.Generator = Generator
    usual = torch.UntypedStorage.clone

    def clone(storage):
        if storage.device.type != NAME:
            return usual(storage)
        return _device_storage(usual(_host_storage(storage)))

    torch.UntypedStorage.clone = clone
