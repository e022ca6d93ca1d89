"""Native layers against float64: the map, its gradients, Adam's step at the end of a product; on every set of instructions here."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness import resources
from harness.errors import UserError
from harness.kernels import library
from harness.kernels.library import AdamStep, Layer, Library

pytestmark = pytest.mark.skipif(library.load() is None, reason=library.fault())
# Rows, inputs, outputs: of the reference network, of tiles that are not full in any direction, and of single numbers.
SIZES = [
    (128, 784, 256),
    (96, 32, 4),
    (128, 2, 32),
    (13, 64, 256),
    (1, 1, 1),
    (9, 17, 33),
    (40, 100, 112),
    (7, 3, 130),
    (130, 41, 50),
]
Images = Callable[..., Tensor]
RATES = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def images(*size: int, seed: int = 0) -> Tensor:
    """Zeros but for one in five, and columns of nothing else."""
    x = random(*size, seed=seed).clamp(min=0) * (random(*size, seed=seed + 1) > 0.5)
    x[..., ::3] = 0
    return x


class Tensors:
    """A layer of random weights and the tensors that it points to, each of them between two rows that nothing may touch."""

    def __init__(self, rows: int, inputs: int, outputs: int, x: Tensor, activation: str = "identity", sparse: bool = False) -> None:
        self.guards: list[Tensor] = []
        w, b = random(inputs, outputs, seed=3) / inputs**0.5, random(outputs, seed=4)
        self.x, self.w, self.b = self.guarded(x), self.guarded(w), self.guarded(b)
        self.y, self.slope, self.gx = (self.guarded(random(rows, width, seed=5)) for width in (outputs, outputs, inputs))
        self.moments = {f"{of}_{name}": self.guarded(like * 0) for of, like in (("w", w), ("b", b)) for name in ("mean", "square")}
        self.grads = {"w_grad": self.guarded(w * 0), "b_grad": self.guarded(b * 0)}
        self.layer = Layer(inputs, outputs, library.ACTIVATIONS.index(activation), sparse)
        tensors = {"x": self.x, "w": self.w, "b": self.b, "y": self.y, **self.moments, **self.grads}
        for name, tensor in tensors.items():
            setattr(self.layer, name, tensor.data_ptr())
        if activation != "identity":
            self.layer.slope = self.slope.data_ptr()
        self.rows = rows

    def guarded(self, values: Tensor) -> Tensor:
        whole = torch.full((values.numel() + 64,), 7.0)
        self.guards += [whole[:32], whole[-32:]]
        return whole[32:-32].view(values.shape).copy_(values)

    def assert_untouched(self) -> None:
        assert all((guard == 7).all() for guard in self.guards)


def close(ours: Tensor, exact: Tensor, terms: int) -> None:
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=4e-6 * terms**0.5)


@pytest.mark.parametrize(("of", "sparse"), [(random, False), (images, True), (random, True)], ids=["dense", "sparse", "not sparse"])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_forward_is_the_map(
    native: Library, rows: int, inputs: int, outputs: int, of: Images, sparse: bool, activation: str
) -> None:
    t = Tensors(rows, inputs, outputs, of(rows, inputs), activation, sparse)
    native.forward(t.layer, rows)
    exact = t.x.double() @ t.w.double() + t.b.double()
    if activation == "relu":
        torch.testing.assert_close(t.slope, (t.y > 0).float())
        exact = exact.relu()
    close(t.y, exact, 1)
    t.assert_untouched()


@pytest.mark.parametrize("with_slope", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_backward_is_the_gradient(native: Library, rows: int, inputs: int, outputs: int, with_slope: bool) -> None:
    t, g = Tensors(rows, inputs, outputs, random(rows, inputs)), random(rows, outputs, seed=9)
    slope = random(rows, inputs, seed=8)
    native.backward(t.layer, g.data_ptr(), slope.data_ptr() if with_slope else None, t.gx.data_ptr(), rows)
    exact = g.double() @ t.w.double().T
    close(t.gx, exact * slope.double() if with_slope else exact, outputs)
    t.assert_untouched()


@pytest.mark.parametrize(("of", "sparse"), [(random, False), (images, True), (random, True)], ids=["dense", "sparse", "not sparse"])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_gradients_of_weights_are_the_gradients(
    native: Library, rows: int, inputs: int, outputs: int, of: Images, sparse: bool
) -> None:
    t, g = Tensors(rows, inputs, outputs, of(rows, inputs), sparse=sparse), random(rows, outputs, seed=9)
    before = t.w.clone(), t.b.clone()
    native.update(t.layer, g.data_ptr(), None, rows)
    close(t.grads["w_grad"], t.x.double().T @ g.double(), rows)
    close(t.grads["b_grad"], g.double().sum(0), rows)
    assert torch.equal(t.w, before[0])
    assert torch.equal(t.b, before[1])
    t.assert_untouched()


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES)
def test_a_step_is_adams(native: Library, rows: int, inputs: int, outputs: int, sparse: bool, optimizer: type) -> None:
    t = Tensors(rows, inputs, outputs, images(rows, inputs), sparse=sparse)
    w, b = t.w.double().requires_grad_(), t.b.double().requires_grad_()
    adam = optimizer([w, b], lr=1e-2, weight_decay=0.1)
    bias, grad = t.b.clone(), t.grads["b_grad"]
    moments = torch.zeros_like(bias), torch.zeros_like(bias)
    for number in range(1, 4):
        t.x.copy_(images(rows, inputs, seed=number))
        g = random(rows, outputs, seed=number + 20)
        w.grad, b.grad = t.x.double().T @ g.double(), g.double().sum(0)
        adam.step()
        step = AdamStep(
            rate=1e-2 / (1 - 0.9**number), spread=(1 - 0.999**number) ** -0.5, learning_rate=1e-2, weight_decay=0.1, **RATES
        )
        step.decoupled = optimizer is torch.optim.AdamW
        native.update(t.layer, g.data_ptr(), None, rows)
        native.adam(bias.data_ptr(), grad.data_ptr(), moments[0].data_ptr(), moments[1].data_ptr(), outputs, step)
        native.update(t.layer, g.data_ptr(), step, rows)
    for ours, theirs, name in ((t.w, w, "w"), (t.b, b, "b")):
        torch.testing.assert_close(t.moments[f"{name}_mean"].double(), adam.state[theirs]["exp_avg"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(t.moments[f"{name}_square"].double(), adam.state[theirs]["exp_avg_sq"], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(ours.double(), theirs.detach(), rtol=1e-4, atol=1e-4)
    assert torch.equal(bias, t.b)
    t.assert_untouched()


def test_every_call_gives_the_same_bits(native: Library) -> None:
    results = []
    for _ in range(2):
        t, g = Tensors(128, 784, 50, images(128, 784), "relu", sparse=True), random(128, 50, seed=9)
        native.forward(t.layer, 128)
        native.backward(t.layer, g.data_ptr(), None, t.gx.data_ptr(), 128)
        native.update(t.layer, g.data_ptr(), AdamStep(rate=1e-3, spread=30, learning_rate=1e-3, **RATES), 128)
        results.append((t.y, t.slope, t.gx, t.w, t.b))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_what_is_not_finite_stays_so(native: Library) -> None:
    t, g = Tensors(16, 32, 48, random(16, 32), "relu"), random(16, 48)
    t.x[3, 5], t.w[7, 9], g[2, 4] = float("nan"), float("inf"), float("nan")
    native.forward(t.layer, 16)
    assert t.y[3].isnan().all()
    assert not (t.y[:, 9].isfinite() & (t.y[:, 9] != 0)).any()  # the activation makes 0 of -inf
    native.backward(t.layer, g.data_ptr(), None, t.gx.data_ptr(), 16)
    assert t.gx[2].isnan().all()
    native.update(t.layer, g.data_ptr(), AdamStep(rate=1e-3, spread=30, learning_rate=1e-3, **RATES), 16)
    assert t.w[:, 4].isnan().all()
    assert t.b[4].isnan()
    assert t.w[5].isnan().all()


def test_subnormal_numbers_are_not_flushed_in_this_process(native: Library) -> None:
    native.forward(Tensors(8, 8, 8, random(8, 8)).layer, 8)
    assert float(torch.tensor(2e-38) / 100) > 0


# ------------------------------------------------------------------------------------------- the library


def test_a_set_of_instructions_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(resources.KERNELS, "sse9")
    for refuses in (library.instructions, lambda: resources.check("cpu", "processes", None, 1)):
        with pytest.raises(UserError, match=r"sse9.*\n.*avx512, avx2, portable, off"):
            refuses()


def test_instructions_that_the_processor_lacks_are_refused(native: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lacking(ctypes.CDLL):
        def __getattr__(self, name: str) -> object:
            return (lambda: 0) if name == "harness_runs" else super().__getattr__(name)

    monkeypatch.setattr(ctypes, "CDLL", Lacking)
    with pytest.raises(UserError, match="cannot run"):
        library._bind(native.path, native.instructions, library.sources())


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"HARNESS_KERNELS": "off"}, "off"),
        ({"CXX": "/nonexistent", "PATH": ""}, "no C++ compiler"),
        ({"CXX": "false"}, "false failed"),
    ],
    ids=["off", "no compiler", "failing compiler"],
)
def test_without_a_library_it_says_why(setting: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty cache folder and no library beside the sources."""
    monkeypatch.setattr(library, "_bind", lambda *_: None)
    for name, value in {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), **setting}.items():
        monkeypatch.setenv(name, value)
    library._load.cache_clear()
    try:
        assert library.load() is None
        assert says in library.fault()
    finally:
        library._load.cache_clear()


def fault_of_a_first_load(monkeypatch: pytest.MonkeyPatch, **setting: str) -> str:
    """Why there is no library in a process with these variables, which has loaded none before."""
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    library._load.cache_clear()
    try:
        assert library.load() is None
        return library.fault()
    finally:
        library._load.cache_clear()


def test_a_folder_that_cannot_be_written_to_leaves_torch_s_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(library, "_bind", lambda *_: None)
    assert "file" in fault_of_a_first_load(monkeypatch, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "file" / "folder"))


def test_a_compiler_that_hangs_is_given_up_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "hangs"
    compiler.write_text("#!/bin/sh\nexec sleep 60\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(library, "_bind", lambda *_: None)
    monkeypatch.setattr(library, "COMPILER_S", 0.1)
    cache = tmp_path / "cache"
    assert "no end" in fault_of_a_first_load(monkeypatch, CXX=str(compiler), TORCHINDUCTOR_CACHE_DIR=str(cache))
    assert not list(cache.iterdir())


def test_no_code_is_loaded_from_a_folder_that_others_may_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / f"harness_{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.delenv(library.CACHE, raising=False)
    monkeypatch.setattr(library.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(library, "_bind", lambda *_: None)
    monkeypatch.setattr(library, "_compile", lambda *_: pytest.fail("compiled"))
    assert "may write into" in fault_of_a_first_load(monkeypatch)
    folder.chmod(0o700)
    assert library._foreign(folder) == ""


def test_a_library_of_other_sources_is_not_used(tmp_path: Path) -> None:
    path = library.load().path
    assert library._bind(path, "avx2", library.sources()) is not None
    assert library._bind(path, "avx2", "0" * 64) is None
    (tmp_path / "text.so").write_text("not a library")
    assert library._bind(tmp_path / "text.so", "avx2", library.sources()) is None
