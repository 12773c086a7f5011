"""A GPU that is not there: tensors that lie on "cuda:0" to whoever asks, and refuse to meet those of the CPU.

They are computed on the CPU, so results are real; what is tested is that nothing is left on the wrong side, which on a
machine without a GPU nothing else would show.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

import pytest
import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
NAME = "pretended_gpu"  # of the accelerator and the strategy
MAY_MIX = {"copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_"}  # as on a GPU


class OnGPU(Tensor):
    """Wraps the CPU's tensor `here`; PyTorch's core takes it for one of the CPU, Python code for one of the GPU."""

    here: Tensor
    is_cuda, is_cpu = True, False

    @staticmethod
    def __new__(cls, here: Tensor) -> "OnGPU":
        like: dict[str, Any] = {"dtype": here.dtype, "device": CPU}
        if here.layout == torch.strided:  # a sparse matrix looks like a dense one from outside
            like |= {"strides": here.stride(), "storage_offset": here.storage_offset()}
        made: OnGPU = Tensor._make_wrapper_subclass(cls, here.size(), **like)  # type: ignore[attr-defined]
        made.here = here
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGPU({self.here!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:  # as if loaded with map_location="cpu"
        return self.here.__reduce_ex__(protocol)

    def __format__(self, spec: str) -> str:
        return self.here.__format__(spec)

    def tolist(self) -> Any:
        return self.here.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        strangers = [each for each in tensors if not isinstance(each, OnGPU) and each.dim()]
        if strangers and (name not in MAY_MIX or (name.startswith(("index", "_index")) and args[0] is strangers[0])):
            raise RuntimeError(f"{name}: a tensor {tuple(strangers[0].shape)} of the CPU meets one of the GPU")
        out = func(*tree_map(on_cpu, args), **tree_map(on_cpu, kwargs))
        if "out" in kwargs:
            return kwargs["out"]
        for given, declared in zip(args, func._schema.arguments, strict=False):
            if isinstance(out, Tensor) and declared.alias_info is not None and declared.alias_info.is_write:
                return given  # in place
        return tree_map(on_gpu, out)


def on_gpu(x: Any) -> Any:
    if not isinstance(x, Tensor) or isinstance(x, OnGPU):
        return x
    return OnGPU(x.detach()).requires_grad_(x.requires_grad)


def on_cpu(x: Any) -> Any:
    return x.here if isinstance(x, OnGPU) else x


class Move(torch.autograd.Function):
    """From one side to the other, gradients back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: bool) -> Any:
        ctx.there = there
        return OnGPU(x.detach().clone()) if there else on_cpu(x).clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:  # type: ignore[override]
        return on_cpu(grads[0]) if ctx.there else on_gpu(grads[0]), None


class Devices(TorchFunctionMode):
    """Makes and moves tensors where code asks for them; PyTorch's core hears of the CPU only."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.cpu, Tensor.cuda):
            return moved(args[0], func is Tensor.cuda)
        if func is Tensor.to:
            x, *rest = args
            if rest and isinstance(rest[0], Tensor):  # to where another is, and in its type
                rest[:1] = [rest[0].device, rest[0].dtype]
            devices = [torch.device(each) for each in (*rest, kwargs.get("device")) if is_device(each)]
            if any(device.type == "meta" for device in devices):
                return func(*args, **kwargs)
            rest = [CPU if is_device(each) else each for each in rest]
            kwargs |= {"device": CPU} if "device" in kwargs else {}
            return moved(x, is_gpu(devices[0]) if devices else isinstance(x, OnGPU)).to(*rest, **kwargs)
        device = kwargs.get("device")
        if device is None or func is torch._C._nn._parse_to:
            beside = any(isinstance(each, OnGPU) for each in tree_leaves((args, kwargs)))
            with MadeInside() if beside else nullcontext():
                return func(*args, **kwargs)
        if not is_gpu(device):  # the CPU, or transformers' meta
            return on_cpu(func(*args, **kwargs))
        return on_gpu(func(*args, **{**kwargs, "device": CPU}))


class MadeInside(TorchDispatchMode):
    """What an operation on the GPU's tensors makes for itself, as `one_hot` its classes, lies there too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        alone = not any(isinstance(each, Tensor) for each in tree_leaves((args, kwargs)))
        return tree_map(on_gpu, out) if alone else out


def is_device(x: Any) -> bool:
    return isinstance(x, torch.device | str)


def is_gpu(device: Any) -> bool:
    return torch.device(device).type == "cuda"


def moved(x: Tensor, there: bool) -> Tensor:
    return x if isinstance(x, OnGPU) == there else Move.apply(x, there)  # type: ignore[no-any-return,no-untyped-call]


class PretendedAccelerator(Accelerator):
    """What Lightning asks of one."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [GPU]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return NAME


@contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Gives the arguments with which `train.py` uses it."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *args: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *args: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *args: NAME)
    autocast, enabled = torch.autocast, torch.is_autocast_enabled
    monkeypatch.setattr(torch, "autocast", lambda kind, *args, **kwargs: autocast("cpu", *args, **kwargs))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: enabled("cpu"))
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # no views of a wrapper in the former
    monkeypatch.setattr("transformers.modeling_utils.caching_allocator_warmup", lambda *args: None)
    if NAME not in AcceleratorRegistry:
        AcceleratorRegistry.register(NAME, PretendedAccelerator)
        StrategyRegistry.register(NAME, SingleDeviceStrategy, device=GPU)
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with Devices():
            yield ["--trainer.accelerator", NAME, "--trainer.strategy", NAME]
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
