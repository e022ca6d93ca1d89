"""Affine maps with activations, one after another, whose backward pass and update are written out on the native kernels.

Shapes: R rows (images, or draws of them), I inputs and O outputs of a map.
"""

from collections.abc import Callable, Sequence
from ctypes import byref
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.kernels.library import AdamStep, Layer, Library

Activation = Callable[[Tensor], Tensor]


class Affine(NamedTuple):
    """One map of a chain.

    Attributes:
        weight: (1, I, O), contiguous.
        bias: (1, 1, O), contiguous.
        activation: The index of an activation that the kernels know (`library.ACTIVATIONS`), or any function of (1, R, O).
        moments: Adam's moments: the weight's mean and square, then the bias's; none if the chain is to give gradients.
    """

    weight: Tensor
    bias: Tensor
    activation: int | Activation
    moments: tuple[Tensor, ...]


class Chain:
    """Maps h = f(x w + b), one after another, on R rows.

    All memory is taken once. Calls follow each other in this order: fill `x`, `forward`, read `y`, fill `g`, `backward`.

    Attributes:
        x: The input, (R, I).
        y: The output, (R, O).
        g: The gradient of the loss by `y`, (R, O).
        gx: The gradient of the loss by `x`, (R, I), which `backward` sets; None if it is not wanted.
        gradients: Those of each map's weight and bias, in turn, which `backward` sets if it takes no step; empty if it does.
    """

    def __init__(self, library: Library, maps: Sequence[Affine], x: Tensor, *, sparse: bool, inwards: bool) -> None:
        """Take memory for the maps.

        Args:
            library: The kernels.
            maps: The maps.
            x: The memory of the input, (R, I).
            sparse: True if many inputs are zero, as those of images are.
            inwards: True if the gradient by `x` is wanted.
        """
        self.library, self.x, self.rows = library, x, len(x)
        self.gx = torch.empty_like(x) if inwards else None
        self.gradients: list[Tensor] = []
        self._activations = [None if isinstance(m.activation, int) else m.activation for m in maps]
        self._kept: list[Any] = [*maps]  # whose addresses the layers hold
        self._layers: list[Layer] = []
        self._slopes: list[Tensor | None] = [None]  # of the activation in front of each map
        self._inner: list[Tensor] = []  # what each map gives; behind an activation of the user's own this is not what it gives on
        self._outer: list[Tensor] = []
        self._graphs: list[tuple[Tensor, Tensor] | None] = [None] * len(maps)
        for i, m in enumerate(maps):
            outputs = m.weight.shape[2]
            y = x.new_empty(self.rows, outputs)
            own, known = self._activations[i], m.activation if isinstance(m.activation, int) else 0
            slope = torch.empty_like(y) if known else None
            layer = Layer(inputs=m.weight.shape[1], outputs=outputs, activation=known, sparse=int(sparse and i == 0))
            given = x if i == 0 else self._outer[-1]
            wanted = [] if m.moments else [torch.empty_like(m.weight), torch.empty_like(m.bias)]
            names = ("w_mean", "w_square", "b_mean", "b_square") if m.moments else ("w_grad", "b_grad")
            for name, tensor in (("x", given), ("w", m.weight), ("b", m.bias), ("y", y), ("slope", slope)):
                setattr(layer, name, address(tensor))
            for name, tensor in zip(names, m.moments or wanted, strict=True):
                setattr(layer, name, address(tensor))
            self.gradients += wanted
            self._layers.append(layer)
            self._slopes.append(slope)
            self._inner.append(y)
            self._outer.append(y if own is None else torch.empty_like(y))
        self.y = self._outer[-1]
        self._gs = [torch.empty_like(y) for y in self._inner]
        self.g = self._gs[-1]
        # What each call takes: the layer, the gradients behind it and in front of it, and the slope in front of it.
        behind = [address(g) for g in self._gs]
        before = [address(self.gx), *behind[:-1]]
        slopes = map(address, self._slopes)
        self._calls = list(zip(map(byref, self._layers), behind, before, slopes, strict=False))

    def forward(self) -> None:
        """Set `y` from `x`."""
        forward = self.library.forward
        for (layer, *_), (i, own) in zip(self._calls, enumerate(self._activations), strict=True):
            forward(layer, self.rows)
            if own is not None:
                with torch.enable_grad():
                    before = self._inner[i][None].detach().requires_grad_()
                    after = own(before.clone())  # which it may change in place
                self._graphs[i] = before, after
                self._outer[i].copy_(after.detach()[0])

    def backward(self, adam: AdamStep | None) -> None:
        """Set `gx` from `g`, and take Adam's step on all weights and biases, or set `gradients` if there is no `adam`."""
        step = None if adam is None else byref(adam)
        backward, update = self.library.backward, self.library.update
        for i, (layer, g, into, slope) in reversed(list(enumerate(self._calls))):
            graph = self._graphs[i]
            if graph is not None:
                self._gs[i].copy_(torch.autograd.grad(graph[1], graph[0], self._gs[i][None])[0][0])
                self._graphs[i] = None
            if into is not None:  # before the update, which changes the weight
                backward(layer, g, slope, into, self.rows)
            update(layer, g, step, self.rows)


def address(tensor: Tensor | None) -> int | None:
    """Return where a tensor's values begin in memory, None for no tensor.

    Raises:
        ValueError: its values do not lie one after another.
    """
    if tensor is not None and not tensor.is_contiguous():
        raise ValueError(f"a kernel takes contiguous tensors, got strides {tensor.stride()} of {tuple(tensor.shape)}")
    return None if tensor is None else tensor.data_ptr()
