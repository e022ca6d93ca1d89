"""Memory follows the bytes of what a model gives, not the number of images, and scores are the same whatever fits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from harness import metrics
from harness.data import Data, Split
from harness.metrics import bounds, diagnostics, inputs, memory
from harness.metrics.bits_per_dim import CommonHead
from harness.metrics.quadrature import exact
from harness.models.networks.stacked import stacked
from harness.models.vae import VAE, build
from harness.spec import TrialSpec

SHAPE = (3, 6, 4)
PIXELS = 72
SPEC = TrialSpec(dataset="digits", network="mlp", hidden=(8,), latent=2, likelihood="categorical")


def peak_of(function: Callable[[], object]) -> int:
    """The most bytes that tensors made meanwhile take at a time, as torch's allocator tells them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    most = now = 0
    for event in sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def model(spec: TrialSpec = SPEC, shape: tuple[int, int, int] = SHAPE) -> VAE:
    vae = build(spec, shape)
    vae.reset(0, torch.Generator().manual_seed(0))
    return vae


def colour(images: int) -> Tensor:
    return torch.randint(256, (images, PIXELS), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def fits(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so many values fit, however few rows that are."""
    monkeypatch.setattr(memory, "CPU_VALUES", values)
    monkeypatch.setattr(memory, "FEW_ROWS", 1)


def scored(vae: VAE, spec: TrialSpec, levels: Tensor) -> dict[str, Callable[[], Any]]:
    """What is computed batch by batch, by name: tuples of numbers, or tensors."""
    x, v = levels.float() / 255, levels.float()
    mean, log_var = inputs.encode(spec, vae, Split("test", levels, None))
    head = CommonHead(-torch.arange(64 * 256) / 4_096)  # so smooth that a mean image on the edge of a bin does not tell
    return {
        "elbo": lambda: bounds.estimate_elbo(vae, bounds.native(vae, x), 3),
        "importance": lambda: bounds.importance(vae, bounds.native(vae, x[:25]), 100).bounds[100],
        "common": lambda: bounds.estimate_elbo(vae, head.view(vae, x, v), 2),
        "exact": lambda: exact(vae, bounds.native(vae, x[:2])).log_px,
        "encodings": lambda: inputs.encodings(vae, x).image,
        "encode": lambda: inputs.encode(spec, vae, Split("test", levels, None))[1],
        "samples": lambda: inputs.prior_samples(vae, len(x), spec.latent),
        "head": lambda: CommonHead.count(vae, mean, log_var, levels).log_table,
        "noise": lambda: torch.tensor(list(diagnostics.noise(spec, vae, x).values())),
        "dead": lambda: torch.cat(list(diagnostics.dead_units(vae, x, spec.latent).values())).float(),
    }


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian_per_pixel", "bce"])
def test_scores_are_the_same_however_few_rows_fit(likelihood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The draws are those of a batch, whatever part of it is decoded at a time: arms of any likelihood share them."""
    spec = SPEC.derive(likelihood=likelihood)
    vae, levels = model(spec), colour(60)
    whole = {name: compute() for name, compute in scored(vae, spec, levels).items()}
    fits(7 * PIXELS * vae.likelihood.outputs, monkeypatch)
    rows: list[int] = []
    vae.decoder.register_forward_pre_hook(lambda _, z: rows.append(z[0].shape[1]))
    for name, compute in scored(vae, spec, levels).items():
        found, want = (torch.tensor(t) if isinstance(t, tuple) else t for t in (compute(), whole[name]))
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4, msg=lambda words, name=name: f"{name}: {words}")
    assert max(rows) <= 16  # a cell of the quadrature at least


def test_peaks_follow_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a few times the largest tensor that is allowed, and did take a multiple of that."""
    vae, levels = model(), colour(200)
    fits(40 * PIXELS * 16, monkeypatch)
    allowed = 4 * memory.CPU_VALUES
    for name, compute in scored(vae, SPEC, levels).items():
        if name == "exact":  # a cell of the quadrature has nodes of its own
            continue
        inherent = levels.numel() * 4 * 3  # images as floats, and copies of them
        assert peak_of(compute) < 5 * allowed + inherent, name
    fits(2**22, monkeypatch)
    assert peak_of(scored(vae, SPEC, levels)["importance"]) > 50 * allowed


@pytest.mark.slow
def test_iw_100_of_fifty_large_images_takes_less_than_a_gibibyte() -> None:
    """64 x 64, 16 outputs a pixel: 4.3 GiB where 5,000 rows were decoded at once."""
    vae = model(SPEC.derive(hidden=(32,)), (1, 64, 64))
    x = torch.rand(50, 64 * 64, generator=torch.Generator().manual_seed(0))
    assert peak_of(lambda: bounds.importance(vae, bounds.native(vae, x), 100)) < 2**30


class Wide(nn.Module):
    """An encoder or decoder whose inner layer is wider than what it gives."""

    def __init__(self, taken: tuple[int, ...], given: tuple[int, ...], parts: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(taken).numel(), 5_000))
        self.out = nn.Linear(5_000, torch.Size(given).numel() * parts)
        self.given, self.parts = given, parts

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        out: Tensor = self.out(self.wide(x)).unflatten(1, (self.parts, *self.given))
        return (out[:, 0], out[:, 1]) if len(self.given) == 1 else out


@pytest.mark.parametrize("lanes", [1, 3])
def test_what_lies_between_counts_for_networks_of_any_kind(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, decoder = stacked(lambda: (Wide((3, 4, 5), (2,), 2), Wide((2,), (3, 4, 5), 2)), lanes, (3, 4, 5))
    for lane in range(lanes):
        for module in (encoder, decoder):
            module.reset(lane, torch.Generator().manual_seed(0))
    for module, x in ((encoder, torch.zeros(lanes, 9, 60)), (decoder, torch.zeros(lanes, 9, 2))):
        monkeypatch.setattr(memory, "FEW_ROWS", 100)
        assert memory.at_once(module, x) == 100  # some rows are taken though fewer would fit into the cache,
        monkeypatch.setattr(memory, "FEW_VALUES", 50 * 5_000 * lanes)
        assert memory.at_once(module, x) == 50  # up to a bound of their own
        monkeypatch.setattr(memory, "FEW_ROWS", 1)
        assert memory.at_once(module, x) == memory.CPU_VALUES // (5_000 * lanes)
        monkeypatch.setattr(memory, "FEW_VALUES", 2**23)


def test_an_evaluation_of_colour_scores_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPEC.derive(evaluation="full", likelihood="discretized_logistic")
    depths = {"full": metrics.Depth(samples=8, draws=10, images=20, exact_images=4, other_images=2)}
    splits = {name: Split(name, colour(60), None) for name in ("train", "validation", "test")}
    data, vae = Data(name="colour", image_shape=SHAPE, digest="colour", **splits), model(spec)
    whole = metrics.evaluate(spec, vae, data, depths=depths).scores
    fits(7 * PIXELS * 2, monkeypatch)
    scores = metrics.evaluate(spec, vae, data, depths=depths).scores
    assert scores == pytest.approx(whole, rel=1e-4, abs=1e-5)
    assert {"test/common_bits", "test/own_bits", "test/exact_log_px", "test/ssim"} <= scores.keys()
    assert not {"test/frechet", "test/knn15_accuracy", "test/probe_accuracy"} & scores.keys()
