"""A pretend second device on the CPU, as strict as a GPU, which counts what would cost time there.

``install()`` adds the device ``"pretend"`` to this process, for good. Its tensors hold their values
in a CPU tensor. An operation on tensors of two devices is an error, as on CUDA, and so is
``.numpy()``. ``counting`` counts waits: where the host needs a value that the device has yet to
compute, or copies without pinned memory.
"""

import functools
import sys
from collections import Counter
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch import library as operators
from torch.utils import backend_registration

NAME, PACKAGE = "pretend", "/captum_classpattern/"
IS_SUPPORTED = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
COPIES = {"copy_", "_to_copy"}  # these may join two devices
VALUES_NEEDED = {  # by the host: their results are Python numbers, or have as many rows as it finds
    *("_local_scalar_dense", "is_nonzero", "equal", "allclose"),
    *("nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "unique_consecutive"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
SCALARS_FROM_THE_CPU = {"where", "fill_", "masked_fill", "masked_fill_", "lerp"}


_counts: list[Counter[str]] = []  # of the blocks that this is in
_definitions: list[operators.Library] = []  # of operations, which are there as long as these are


@contextmanager
def counting():
    """Counts the waits in this block, by line of the package and operation."""
    _counts.append(Counter())
    try:
        yield _counts[-1]
    finally:
        _counts.pop()


def line_of_the_package():
    """The innermost function and line of the package that led here."""
    frame = sys._getframe(1)
    while frame and PACKAGE not in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is None:
        return "outside"
    code = frame.f_code
    return f"{code.co_filename.rpartition(PACKAGE)[2]}:{frame.f_lineno} {code.co_name}"


def note(name):
    if _counts:
        _counts[-1][f"{line_of_the_package()}, {name}"] += 1


class PretendTensor(Tensor):
    """A tensor on the pretend device."""

    __slots__ = ("values",)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values):
        tensor = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.values = values.detach()
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})

    def __repr__(self):
        return f"PretendTensor({self.values})"

    def tolist(self):
        return self.cpu().tolist()

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copied = self.detach().clone()
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied)
            memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return memo[id(self)]

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, other):  # as Module.to(dtype) changes its parameters
        Tensor.data.__set__(self, other)
        self.values = other.values


def change(nest, function):
    """A nest of tuples, lists and dicts, with its tensors changed."""
    if isinstance(nest, Tensor):
        return function(nest)
    if isinstance(nest, tuple | list):
        return type(nest)([change(each, function) for each in nest])
    if isinstance(nest, dict):
        return {key: change(each, function) for key, each in nest.items()}
    return nest


def on_cpu(tensor):
    return tensor.values if isinstance(tensor, PretendTensor) else tensor


class Facts(NamedTuple):
    """What the schema of an operation says."""

    name: str
    arguments: list[str]
    written: list[str]  # the arguments that it writes to and returns
    takes_scalars: bool  # tensors without dimensions may be on the CPU


@functools.cache
def facts_of(operation):
    schema, name = operation._schema, operation.overloadpacket.__name__
    returns_written = any(each.alias_info and each.alias_info.is_write for each in schema.returns)
    arguments = {each.name: each.alias_info for each in schema.arguments}
    written = [each for each, alias in arguments.items() if alias and alias.is_write]
    takes_scalars = torch.Tag.pointwise in operation.tags or name in SCALARS_FROM_THE_CPU
    return Facts(name, [*arguments], written if returns_written else [], takes_scalars)


def run(operation, args, kwargs):
    """Computes on the CPU what the device would, once it is sure that a device could."""
    facts, tensors = facts_of(operation), []
    values, options = change((args, kwargs), lambda each: (tensors.append(each), on_cpu(each))[1])
    if facts.name in INDEXING:
        check_indices(args)
    elif facts.name not in COPIES:
        check_devices([each for each in tensors if each.dim() or not facts.takes_scalars])
    on_device = any(isinstance(each, PretendTensor) for each in tensors)
    if options.get("device") is not None:
        on_device, options["device"] = options["device"].type == NAME, torch.device("cpu")
    count(facts, args, kwargs, on_device)
    result = operation(*values, **options)
    if facts.written:  # in place, or with out=: what came in goes out
        given = {**dict(zip(facts.arguments, args)), **kwargs}
        written = [given[name] for name in facts.written]
        return written[0] if len(written) == 1 else tuple(written)
    return change(result, PretendTensor) if on_device else result


def check_devices(tensors):
    if len(devices := {str(each.device) for each in tensors}) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            + " and ".join(sorted(devices))
        )


def check_indices(args):
    """Indices may be on the CPU, but not on a device where the indexed tensor is not."""
    indexed, indices, *values = args
    for index in indices:
        if isinstance(index, PretendTensor) and not isinstance(indexed, PretendTensor):
            raise RuntimeError("indices should be on the CPU, as the indexed tensor is")
    check_devices([indexed, *(each for each in values if isinstance(each, Tensor) and each.dim())])


def count(facts, args, kwargs, on_device):
    """Counts the wait of an operation."""
    counted_rows = facts.name == "repeat_interleave" and kwargs.get("output_size") is None
    if facts.name in VALUES_NEEDED or counted_rows:
        note(facts.name)
    if facts.name in INDEXING:
        for index in args[1]:
            if index is not None and (index.dtype == torch.bool or index.device.type == "cpu"):
                note("a mask or a CPU tensor as an index")
    if facts.name == "_to_copy" and not on_device:
        note("copy to the CPU")
    if facts.name == "copy_":
        note_copy(*args[:2], non_blocking=(*args, False)[2] or kwargs.get("non_blocking"))


def note_copy(target, source, non_blocking):
    """Counts the wait of a copy between the devices. ``on_device`` pins what it copies on CUDA, and
    so waits for nothing there."""
    to_device, from_device = (isinstance(each, PretendTensor) for each in (target, source))
    pinned = "on_device" in line_of_the_package()
    if from_device and not to_device:
        note("copy to the CPU")
    elif to_device and not from_device and not (non_blocking or pinned):
        note("copy to the device")


class Module(getattr(backend_registration, "_DummyBackendModule", object)):
    """What torch.pretend is; ``free`` is how many bytes the device has left."""

    free = 2**30

    def manual_seed(self, seed):
        pass  # its random numbers are the CPU's

    def get_rng_state(self, device=None):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=None):
        pass

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]

    def mem_get_info(self, device=None):
        return self.free, 2**30


def install():
    """Makes "pretend" a device of this process."""
    if _definitions:
        return
    backend_registration._setup_privateuseone_for_python_backend(NAME, Module())
    _definitions.append(operators.Library("aten", "IMPL"))
    for name, function in (
        ("empty.memory_format", _empty),
        ("empty_strided", _empty_strided),
        ("_copy_from", _copy_from),
    ):
        _definitions[0].impl(name, function, "PrivateUse1")


def _empty(size, *, dtype=None, memory_format=None, **_):
    layout = memory_format or torch.contiguous_format
    return PretendTensor(torch.empty(size, dtype=dtype, memory_format=layout))


def _empty_strided(size, stride, *, dtype=None, **_):
    return PretendTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source, target, non_blocking=False):
    note_copy(target, source, non_blocking)
    on_cpu(target).copy_(on_cpu(source))
    return target
