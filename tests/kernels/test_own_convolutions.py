"""Our own convolutions and their gradients equal torch's in float64, in whatever order images and weights lie in memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from harness import resources
from harness.kernels import library, matmul, operators

pytestmark = pytest.mark.skipif(not operators.available(), reason="no native library here")

# images (B, C, H, W), outputs, kernel, stride, padding
CASES = {
    "as on MNIST": ((40, 1, 28, 28), 16, (4, 4), (2, 2), (1, 1)),
    "blocks of patches, the last one smaller": ((37, 16, 14, 13), 33, (4, 4), (2, 2), (1, 1)),
    "odd": ((3, 5, 9, 7), 6, (3, 3), (2, 2), (1, 1)),
    "stride 1": ((2, 7, 5, 6), 70, (3, 3), (1, 1), (1, 1)),
    "one pixel of every channel": ((2, 9, 3, 4), 5, (1, 1), (1, 1), (0, 0)),
    "neither side alike": ((2, 2, 11, 6), 3, (2, 5), (1, 3), (0, 2)),
    "kernel beyond the image": ((2, 3, 1, 2), 4, (4, 4), (2, 2), (2, 2)),
    "a residual block": ((17, 32, 7, 7), 32, (3, 3), (1, 1), (1, 1)),
    "whole vectors, neither side alike": ((9, 16, 6, 11), 48, (3, 2), (2, 3), (2, 0)),
    "whole vectors, kernel beyond the image": ((9, 16, 1, 2), 16, (4, 4), (2, 2), (2, 2)),
    "a vector and a half": ((5, 11, 6, 7), 24, (3, 3), (1, 1), (1, 1)),
    "a patch larger than a block": ((1, 12500, 2, 2), 2, (2, 2), (2, 2), (0, 0)),
    "four floats of two channels": ((2, 2, 8, 8), 4, (2, 2), (2, 2), (0, 0)),
}


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_convolution_and_its_gradients_are_torchs(case: str, transposed: bool, last: bool) -> None:
    size, outputs, kernel, stride, padding = CASES[case]
    kind = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    more = {"output_padding": tuple(s - 1 for s in stride)} if transposed else {}
    layer = kind(size[1], outputs, kernel, stride, padding, **more)
    x = random(*size)
    if last:
        x = x.to(memory_format=torch.channels_last)
    names = [name for name, _ in layer.named_parameters()]
    gradient = random(*layer(x).shape, seed=1)

    def step(x: Tensor, gradient: Tensor, *params: Tensor) -> list[Tensor]:
        """Return the output, and the gradients of images, weight and bias for this one of the output."""
        x, *leaves = (t.detach().requires_grad_() for t in (x, *params))
        out = torch.func.functional_call(layer, dict(zip(names, leaves, strict=True)), (x,))
        return [out.detach(), *torch.autograd.grad(out, (x, *leaves), gradient)]

    inputs = [x, gradient, *(p.detach() for p in layer.parameters())]
    graph = make_fx(step, decomposition_table=matmul.Matmuls(True).table)(*inputs)
    used = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert {f"harness.{name}.default" for name in ("convolve", "convolve_weight", "convolve_image")} <= used
    assert not any("aten.convolution" in name for name in used)
    ours = graph(*inputs)
    exact = step(*(t.double() for t in inputs))
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("change", [{"groups": 2}, {"dilation": 2}])
def test_others_are_left_to_torch(change: dict) -> None:
    layer = torch.nn.Conv2d(4, 4, 3, **change)
    graph = make_fx(layer, decomposition_table=matmul.Matmuls(True).table)(random(2, 4, 8, 8))
    assert any("aten.convolution" in str(node.target) for node in graph.graph.nodes)


def test_tensors_in_another_order_are_refused() -> None:
    x, weight = random(2, 8, 8, 4), random(3, 4, 3, 3)
    with pytest.raises(RuntimeError, match="must be contiguous"):
        torch.ops.harness.convolve(x.transpose(1, 2), weight, 8, 8, 3, 3, 1, 1, 1, 1)


RESIDENT = Path("/proc/self/statm")


@pytest.mark.skipif(not RESIDENT.exists(), reason="this system does not tell a process's memory that way")
def test_arguments_and_results_are_let_go() -> None:
    def pages(times: int) -> int:
        for _ in range(times):  # 1 MiB of images and as much of outputs
            torch.ops.harness.convolve(torch.zeros(64, 8, 8, 64), torch.zeros(64, 64, 1, 1), 8, 8, 1, 1, 1, 1, 0, 0)
        return int(RESIDENT.read_text().split()[1])

    before = pages(5)
    assert (pages(200) - before) * os.sysconf("SC_PAGE_SIZE") < 50 * 2**20


def others() -> list[str]:
    """The sets of instructions that this processor has beside the one that it uses."""
    names = list(library.INSTRUCTIONS)
    return names[names.index(library.instructions()) + 1 :] if library.instructions() in names else []


@pytest.mark.slow
@pytest.mark.parametrize("instructions", others())
def test_other_sets_of_instructions_convolve_too(instructions: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", "first", __file__]
    ran = subprocess.run(command, env=os.environ | {resources.KERNELS: instructions}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "skipped" not in ran.stdout
