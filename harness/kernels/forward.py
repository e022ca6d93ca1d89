"""Affine maps with activations, one after another, without gradients: what encodes and decodes in evaluations.

Shapes: R rows, I inputs and O outputs of all maps together.
"""

from collections.abc import Sequence
from ctypes import byref

from torch import Tensor

from harness.kernels.chain import Affine, address
from harness.kernels.library import Layer, Library

ROWS = 256  # at a time: what maps give each other, 256 KiB at a width of 256, stays in the cache of a core


class Forward:
    """Maps h = f(x w + b), one after another, on any number of rows; between the maps memory is taken once."""

    def __init__(self, library: Library, maps: Sequence[Affine], *, sparse: bool) -> None:
        """Take memory for the maps, whose moments are not used; `sparse` if many inputs are zero, as those of images are."""
        self.library, self._maps = library, list(maps)  # whose addresses the layers hold
        self._inner = [m.weight.new_empty(ROWS, m.weight.shape[2]) for m in maps[:-1]]
        self._layers: list[Layer] = []
        given: Tensor | None = None
        for m, y in zip(maps, [*self._inner, None], strict=True):
            _, inputs, outputs = m.weight.shape
            known = m.activation if isinstance(m.activation, int) else 0
            layer = Layer(inputs=inputs, outputs=outputs, activation=known, sparse=int(sparse and given is None))
            for name, tensor in (("x", given), ("w", m.weight), ("b", m.bias), ("y", y)):
                setattr(layer, name, address(tensor))
            self._layers.append(layer)
            given = y

    def __call__(self, x: Tensor) -> Tensor:
        """Return what the last map gives, (1, R, O), for x (1, R, I)."""
        x, rows = x.contiguous(), x.shape[1]
        first, last = self._layers[0], self._layers[-1]
        out = x.new_empty(1, rows, last.outputs)
        for start in range(0, rows, ROWS):
            some = min(ROWS, rows - start)
            first.x = x.data_ptr() + start * first.inputs * x.element_size()
            last.y = out.data_ptr() + start * last.outputs * x.element_size()
            ends = [*(y[None, :some] for y in self._inner), out[:, start : start + some]]
            for layer, m, y in zip(self._layers, self._maps, ends, strict=True):
                self.library.forward(byref(layer), some)
                if not isinstance(m.activation, int):
                    y.copy_(m.activation(y))
        return out
