"""Native elementary functions and activations equal torch's in float64 to rounding, far from 0 and close to it."""

import ctypes

import pytest
import torch
from torch import Tensor

from harness import catalog

ACTIVATIONS = ("identity", "elu", "relu", "leaky_relu", "selu", "gelu", "silu", "mish", "tanh", "softplus", "sigmoid")
SMALL = torch.logspace(-30, 4, 2_001)
WIDE = torch.cat([torch.linspace(-30, 30, 20_001), SMALL, -SMALL, torch.tensor([0.0, 1e-20, -1e-20, 88, -88, 1e4, -1e4])])
TINY = 1e-30  # below it, values may be flushed to 0
EXACT = {
    "exp": (torch.exp, WIDE[WIDE < 88.7]),
    "expm1": (torch.expm1, WIDE[WIDE < 88.7]),
    "log": (torch.log, torch.logspace(-44, 38, 20_001)),
    "log1p": (torch.log1p, torch.cat([WIDE[WIDE > -1], torch.linspace(-0.999, 1, 4_001)])),
    "tanh": (torch.tanh, WIDE),
}


def applied(lib: ctypes.CDLL, name: str, x: Tensor, *first: int) -> tuple[Tensor, Tensor]:
    """What a function writes for x: y and the slope."""
    x, y, slope = x.contiguous(), torch.empty(len(x)), torch.empty(len(x))
    addresses = (ctypes.c_void_p(t.data_ptr()) for t in (x, y, slope))
    getattr(lib, f"native_{name}")(*map(ctypes.c_int64, first), *addresses, ctypes.c_int64(len(x)))
    return y, slope


@pytest.mark.parametrize("name", EXACT)
def test_a_function_is_right_to_rounding(elementwise: ctypes.CDLL, name: str) -> None:
    exact, x = EXACT[name]
    torch.testing.assert_close(applied(elementwise, name, x)[0].double(), exact(x.double()), rtol=2.5e-7, atol=TINY)


@pytest.mark.parametrize("name", EXACT)
def test_ends_and_nan_are_those_of_torch(elementwise: ctypes.CDLL, name: str) -> None:
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 0, -1, -2, 1e30, 1e38, -1e38, 89])
    exact = EXACT[name][0]
    torch.testing.assert_close(applied(elementwise, name, x)[0], exact(x), equal_nan=True, rtol=1e-6, atol=TINY)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_slope_are_those_of_torch(elementwise: ctypes.CDLL, name: str) -> None:
    assert set(ACTIVATIONS) == set(catalog.ACTIVATIONS)
    y, slope = applied(elementwise, "activation", WIDE, ACTIVATIONS.index(name))
    x = WIDE.double().requires_grad_()
    exact = catalog.find("activation", name)(x)
    (derivative,) = torch.autograd.grad(exact.sum(), x)
    absolute = 1e-6 if name == "gelu" else 1e-12  # below -2 gelu of torch, too, is right in absolute terms only
    torch.testing.assert_close(y.double(), exact.detach(), rtol=3e-7, atol=absolute)
    torch.testing.assert_close(slope.double(), derivative, rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_of_nan_is_nan_and_of_inf_that_of_torch(elementwise: ctypes.CDLL, name: str) -> None:
    x = torch.tensor([torch.nan, torch.inf, 1.0])
    y, _ = applied(elementwise, "activation", x, ACTIVATIONS.index(name))
    torch.testing.assert_close(y, catalog.find("activation", name)(x.double()).float(), equal_nan=True)
