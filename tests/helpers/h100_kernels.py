"""Counts of the kernels that Inductor makes of a training step for an H100, on a machine without one.

    python tests/helpers/h100_kernels.py [--refresh]

prints one JSON line per case, {"case": name, "counts": {...}}: `triton`, the launches of Triton kernels of one step, and the calls
of each external kernel by its name. With `--refresh` it also writes them into tests/bench/h100_kernels.json, beside those of other
versions of torch.

It takes a build of torch with CUDA, Triton and a C++ compiler, but no GPU: the step that tests/helpers/pretended_gpu.py traces is
put on CUDA tensors without values and lowered by Inductor, which believes in an H100 and stops when the program is written. What an
external kernel launches by itself is not seen (cuBLAS copies the bias for `baddbmm`), nor what Inductor would decide by measuring.
"""

import argparse
import ast
import importlib.util
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pretended_gpu
import torch
from torch import Tensor
from torch._subclasses import fake_tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx

from harness import devices
from harness.bench import counts
from harness.models.objectives import Objective
from harness.spec import TrialSpec

CUDA = "cuda:0"
H100 = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3",
    type="cuda",
    index=0,
    major=9,
    minor=0,
    multi_processor_count=132,
    warp_size=32,
    regs_per_multiprocessor=65_536,
    max_threads_per_multi_processor=2_048,
    max_threads_per_block=1_024,
    shared_memory_per_block_optin=232_448,
    shared_memory_per_multiprocessor=233_472,
    L2_cache_size=50 * 2**20,
    total_memory=80 * 2**30,
)
PLANTED = "bce, 1 lane, with a running sum too many"


class Written(BaseException):
    """Inductor has written its program. It is no Exception, so that torch does not take it for an error of its own."""


def cases() -> dict[str, list[TrialSpec]]:
    """Return the trials that share a step, one per lane, by the name of the case."""
    shapes = {
        "bce, 1 lane": (1, TrialSpec()),
        "bce, 4 lanes": (4, TrialSpec()),
        "bce, 64 lanes": (64, TrialSpec()),
        "categorical, 4 lanes": (4, TrialSpec(likelihood="categorical")),
        "gaussian_per_pixel, 4 lanes": (4, TrialSpec(likelihood="gaussian_per_pixel")),
        "iwae of 5 samples, 4 lanes": (4, TrialSpec(objective="iwae", num_samples=5)),
    }
    mixes = pretended_gpu.mixes()
    alike = {name: [spec.derive(seed=seed) for seed in range(lanes)] for name, (lanes, spec) in shapes.items()}
    return alike | {name: mixes[name] for name in ("all likelihoods with outputs=1", "all activations")}


def obstacle() -> str | None:
    """Return why this machine cannot count, or None if it can."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA, so its Inductor writes no program for a GPU"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed, in which Inductor writes its kernels"
    if devices.compiler(torch.device("cpu")) is None:
        return "no C++ compiler, to build a guard of devices that does nothing"
    return None


# -------------------------------------------------------------------------------- an H100 that is not there


def load_guard() -> None:
    """Compile the guard of devices that does nothing, and put it in the place of CUDA's, which would ask the driver."""
    root = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "noop_guard.so")
        source = Path(__file__).with_name("noop_guard.cpp")
        compiler = devices.compiler(torch.device("cpu"))
        options = ("-std=c++20", "-shared", "-fPIC", f"-I{root / 'include'}", f"-L{root / 'lib'}")
        subprocess.run([compiler, *options, str(source), "-lc10", "-o", str(library)], check=True)
        torch.ops.load_library(library)


def returning(value: Any) -> Callable[..., Any]:
    """Return a function of anything that returns this value."""
    return lambda *_, **__: value


class OnCuda(Interpreter):
    """A graph of the pretended device, run on a CUDA device."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call one operation."""
        return super().call_function(target, args, _moved(kwargs, CUDA))


def _moved(kwargs: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return the arguments of an operation, with this device in the place of the one that they may name."""
    return {**kwargs, "device": torch.device(device)} if kwargs.get("device") is not None else dict(kwargs)


def on_cpu(run_node: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of an interpreter that takes an operation on the CPU, made from its method `run_node`."""

    def run(self: Interpreter, node: Node) -> Any:
        """Run one operation and leave it as it was."""
        kwargs = node.kwargs
        node.kwargs = _moved(kwargs, "cpu")
        try:
            return run_node(self, node)
        finally:
            node.kwargs = kwargs

    return run


@contextmanager
def pretended_h100() -> Iterator[None]:
    """Let Inductor and Triton believe in an H100, as far as they ask while a program is written."""
    # Imported here because they take seconds, and Triton may be absent.
    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor.fx_passes import fuse_attention, pad_mm
    from torch._inductor.fx_passes.joint_graph import UniformValueConstantFolder
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    target = SimpleNamespace(get_current_target=returning(GPUTarget("cuda", 90, 32)), get_current_device=returning(0))
    answers: list[tuple[Any, str, Any]] = [
        (torch.cuda, "is_available", returning(True)),
        (torch.cuda, "device_count", returning(1)),
        (torch.cuda, "current_device", returning(0)),
        (torch.cuda, "get_device_properties", returning(H100)),
        (torch.cuda, "get_rng_state", returning(torch.zeros(16, dtype=torch.uint8))),
        (torch.cuda, "_exchange_device", returning(0)),
        (torch.cuda, "_maybe_exchange_device", returning(0)),
        (CudaInterface, "get_device_properties", staticmethod(returning(H100))),
        (fake_tensor, "init_gpu_context", returning(None)),
        (UniformValueConstantFolder, "run_node", on_cpu(UniformValueConstantFolder.run_node)),  # it computes constants
        (fuse_attention, "_sfdp_init", returning(None)),  # these two try their patterns on the device; no step has attention,
        (pad_mm, "_pad_mm_init", returning(None)),  # and products are padded only where that was measured to pay
        (type(driver), "active", target),
    ]
    with ExitStack() as stack:
        for owner, name, answer in answers:
            stack.enter_context(mock.patch.object(owner, name, answer))
        yield


def program(graph: GraphModule, tensors: Sequence[Tensor]) -> str:
    """Return the Python program that Inductor writes for a graph of the pretended device and the tensors that it takes."""
    # Imported here because it takes seconds.
    from torch._guards import TracingContext, tracing
    from torch._inductor import compile_fx, config
    from torch._inductor.graph import GraphLowering

    written: list[str] = []
    codegen = GraphLowering.codegen

    def stop(self: GraphLowering) -> None:
        """Write the program and go no further."""
        written.append(codegen(self)[0].value)
        raise Written

    with fake_tensor.FakeTensorMode() as mode, torch.no_grad():
        inputs = [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=CUDA) for t in tensors]
        on_cuda = make_fx(lambda *inputs: OnCuda(graph).run(*inputs))(*inputs)
    settings = {"fx_graph_cache": False, "compile_threads": 1}  # no program from the cache, and no pool of compilers
    with mode, tracing(TracingContext(mode)), config.patch(settings), mock.patch.object(GraphLowering, "codegen", stop):
        try:
            compile_fx.compile_fx(on_cuda, inputs)
        except Written:
            return written[0]
    raise AssertionError("Inductor did not write a program")


# -------------------------------------------------------------------------------- counts


def kernels(program: str) -> dict[str, int]:
    """Return the launches of Triton kernels in a program of Inductor, as `triton`, and the calls of others by their names."""
    called = (ast.unparse(node.func) for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call))
    return dict(Counter(filter(None, map(_kernel, called))))


def _kernel(name: str) -> str | None:
    """Return under which name the call of a function of this name is counted, or None if it launches nothing."""
    if name.startswith("triton_") and name.endswith(".run"):
        return "triton"
    if name.endswith(".copy_"):
        return "copy_"
    return name if name.startswith(("extern_kernels.", "aten.", "torch.ops.")) else None


def count(specs: Sequence[TrialSpec], objective: Objective | None = None) -> dict[str, int]:
    """Return the kernels of a step of these trials, one per lane."""
    graph, tensors = pretended_gpu.traced(specs, objective)
    with pretended_h100():
        return kernels(program(graph, tensors))


def file() -> Path:
    """Return the path of the counts on record, which are checked in."""
    return counts.file().with_name("h100_kernels.json")


def key() -> str:
    """Return the key of the counts of this version of torch, whose Inductor differs from the next."""
    return f"torch {'.'.join(torch.__version__.split('.')[:2])}"


def main() -> None:
    """Print a line for every case and for the planted one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--refresh", action="store_true", help="write the counts into the file on record")
    refresh = parser.parse_args().refresh
    if reason := obstacle():
        parser.error(reason)
    pretended_gpu.pretend()
    load_guard()
    found: counts.Counts = {}
    for name, specs in cases().items():
        found[name] = count(specs)
        print(json.dumps({"case": name, "counts": found[name]}), flush=True)
    if refresh:
        whole = counts.on_record(file()) | {key(): found}
        file().write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return
    planted = pretended_gpu.after_elbo(lambda p: p.log_px.flatten().cumsum(0)[-1])
    print(json.dumps({"case": PLANTED, "counts": count([TrialSpec()], planted)}), flush=True)


if __name__ == "__main__":
    main()
