"""Native elementary functions and activations equal torch's in float64 to rounding, far from 0 and close to it."""

import ctypes
import subprocess

import pytest
import torch
from torch import Tensor

from harness import catalog, devices, paths
from harness.kernels import library
from harness.kernels.library import ACTIVATIONS, Layer, Library

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


@pytest.fixture(scope="module")
def functions(native: Library, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The elementary functions, compiled as the library is."""
    built, compiler = tmp_path_factory.mktemp("native") / "math.so", devices.compiler(torch.device("cpu"))
    if compiler is None:
        pytest.skip("no compiler here")
    flags = (*library.FLAGS, *library.INSTRUCTIONS[native.instructions])
    source = paths.PROJECT / "tests" / "helpers" / "native_math.cpp"
    subprocess.run((compiler, *flags, "-shared", str(source), "-o", str(built)), check=True)
    return ctypes.CDLL(str(built))


def applied(functions: ctypes.CDLL, name: str, x: Tensor) -> Tensor:
    y = torch.full_like(x, torch.nan)
    getattr(functions, f"native_{name}")(*map(ctypes.c_void_p, (x.data_ptr(), y.data_ptr())), ctypes.c_int64(len(x)))
    return y


def activated(native: Library, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """An activation of x and its slope, by a layer of one input whose weight is 1."""
    weight, bias, y, slope = torch.ones(1), torch.zeros(1), torch.full_like(x, torch.nan), torch.ones_like(x)
    tensors = {"x": x, "w": weight, "b": bias, "y": y, "slope": slope}
    if name == "identity":
        del tensors["slope"]
    addresses = {field: t.data_ptr() for field, t in tensors.items()}
    native.forward(ctypes.byref(Layer(inputs=1, outputs=1, activation=ACTIVATIONS.index(name), **addresses)), len(x))
    return y, slope


@pytest.mark.parametrize("name", EXACT)
def test_a_function_is_right_to_rounding(functions: ctypes.CDLL, name: str) -> None:
    exact, x = EXACT[name]
    torch.testing.assert_close(applied(functions, name, x).double(), exact(x.double()), rtol=2.5e-7, atol=TINY)


@pytest.mark.parametrize("name", EXACT)
def test_ends_and_nan_are_those_of_torch(functions: ctypes.CDLL, name: str) -> None:
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 0, -1, -2, 1e30, 1e38, -1e38, 89])
    exact = EXACT[name][0]
    torch.testing.assert_close(applied(functions, name, x), exact(x), equal_nan=True, rtol=1e-6, atol=TINY)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_slope_are_those_of_torch(native: Library, name: str) -> None:
    assert set(ACTIVATIONS) == set(catalog.ACTIVATIONS)
    y, slope = activated(native, name, WIDE)
    x = WIDE.double().requires_grad_()
    exact = catalog.find("activation", name)(x)
    (derivative,) = torch.autograd.grad(exact.sum(), x)
    absolute = 1e-6 if name == "gelu" else 1e-12  # below -2 gelu of torch, too, is right in absolute terms only
    torch.testing.assert_close(y.double(), exact.detach(), rtol=3e-7, atol=absolute)
    torch.testing.assert_close(slope.double(), derivative, rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_of_nan_is_nan_and_of_inf_that_of_torch(native: Library, name: str) -> None:
    x = torch.tensor([torch.nan, torch.inf, 1.0])
    y, _ = activated(native, name, x)
    torch.testing.assert_close(y, catalog.find("activation", name)(x.double()).float(), equal_nan=True)
