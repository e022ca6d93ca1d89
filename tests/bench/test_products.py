"""Time of every native call of a step of the reference network, one thread, with torch's product of the same sizes beside it.

The table's unit is a GFLOP, so its rate is GFLOP/s: that of the multiplications which a product without zeros would have.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.data import Data
from harness.kernels import library
from harness.kernels.library import AdamStep, Layer

ROWS = 128
WIDTHS = [(784, 256), (256, 64), (64, 32), (32, 4), (2, 32), (32, 64), (64, 256), (256, 784)]
STEP = AdamStep(rate=1e-3, spread=30, learning_rate=1e-3, beta1=0.9, beta2=0.999, eps=1e-8)
ACTIVATION = library.ACTIVATIONS.index("elu")


class Calls:
    """The calls of one layer with its tensors; the first layer's inputs are images."""

    def __init__(self, inputs: int, outputs: int, images: Tensor) -> None:
        self.images = inputs == images.shape[1]
        self.x = images if self.images else torch.randn(ROWS, inputs)
        self.w, self.b = torch.randn(inputs, outputs) / inputs**0.5, torch.zeros(outputs)
        self.y, self.g, self.slope = torch.empty(ROWS, outputs), torch.randn(ROWS, outputs) / 1000, torch.empty(ROWS, outputs)
        self.gx, self.slope_x, self.gradient = torch.empty(ROWS, inputs), torch.ones(ROWS, inputs), torch.empty(inputs, outputs)
        self.moments = {
            f"{of}_{name}": torch.zeros_like(t) for of, t in (("w", self.w), ("b", self.b)) for name in ("mean", "square")
        }
        self.layer = Layer(inputs, outputs, ACTIVATION, self.images)
        for name, t in {"x": self.x, "w": self.w, "b": self.b, "y": self.y, "slope": self.slope, **self.moments}.items():
            setattr(self.layer, name, t.data_ptr())

    def native(self) -> dict[str, Callable[[], object]]:
        """The library's calls by name."""
        kernels = library.load()
        assert kernels is not None
        g = self.g.data_ptr()
        return {
            "forward": lambda: kernels.forward(self.layer, ROWS),
            "backward": lambda: kernels.backward(self.layer, g, self.slope_x.data_ptr(), self.gx.data_ptr(), ROWS),
            "update": lambda: kernels.update(self.layer, g, STEP, ROWS),
        }

    def torch(self) -> dict[str, Callable[[], object]]:
        """Torch's products alone, without activation and without Adam."""
        return {
            "forward": lambda: torch.mm(self.x, self.w, out=self.y),
            "backward": lambda: torch.mm(self.g, self.w.T, out=self.gx),
            "update": lambda: torch.mm(self.x.T, self.g, out=self.gradient),
        }


@pytest.fixture(scope="module")
def layers(mnist: Data) -> list[Calls]:
    images = (mnist.train.levels[:ROWS].float() / 255).contiguous()
    return [Calls(*widths, images) for widths in WIDTHS]


def measure(benchmark, run: Callable[[], object], flops: float) -> None:
    benchmark.extra_info.update(units=flops / 1e9, unit="GFLOP")
    benchmark.pedantic(run, rounds=50, iterations=5, warmup_rounds=2)


@pytest.mark.skipif(library.load() is None, reason=library.fault())
@pytest.mark.parametrize("by", ["native", "torch"])
@pytest.mark.parametrize("call", ["forward", "backward", "update"])
@pytest.mark.parametrize("number", range(len(WIDTHS)), ids=["x".join(map(str, w)) for w in WIDTHS])
def test_call(benchmark, layers, number, call, by):
    benchmark.group = f"{call} {WIDTHS[number]}"
    inputs, outputs = WIDTHS[number]
    measure(benchmark, getattr(layers[number], by)()[call], 2 * ROWS * inputs * outputs)


@pytest.mark.skipif(library.load() is None, reason=library.fault())
@pytest.mark.parametrize("by", ["native", "torch"])
def test_step(benchmark, layers, by):
    """All products of a step in their order; the gradient of the images is not wanted."""
    benchmark.group = "all products of a step"
    calls = [getattr(layer, by)() for layer in layers]

    def step() -> None:
        for layer in calls:
            layer["forward"]()
        for number, layer in reversed([*enumerate(calls)]):
            if number:
                layer["backward"]()
            layer["update"]()

    products = sum((3 if number else 2) * inputs * outputs for number, (inputs, outputs) in enumerate(WIDTHS))
    measure(benchmark, step, 2 * ROWS * products)
