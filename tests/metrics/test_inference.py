"""Evaluation by native kernels gives what torch gives."""

from typing import cast

import pytest
import torch
from tables import LIKELIHOODS
from torch import Tensor

from harness import metrics
from harness.catalog import names
from harness.data import Data, load_dataset
from harness.kernels import library
from harness.metrics.inference import inference, log_pmf_of, log_prob_of, mean_of
from harness.models.likelihoods import LogisticMixture
from harness.models.vae import VAE, build, likelihood_of
from harness.spec import TrialSpec

SMALL = TrialSpec(dataset="digits")
DEPTHS = {"quick": metrics.Depth(samples=8, draws=10, images=20, exact_images=5, other_images=2)}
pytestmark = pytest.mark.skipif(library.load() is None, reason="there is nothing native to compare with")


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


def model(spec: TrialSpec, data: Data) -> VAE:
    vae = build(spec, data.image_shape)
    vae.reset(0, torch.Generator().manual_seed(0))
    return vae


def without_kernels(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(library, "_load", lambda: library._Loaded(None, "no kernels"))


@pytest.mark.parametrize("activation", names("activation"))
@pytest.mark.parametrize("rows", [1, 300])  # within a block of rows; more than one
def test_a_model_computes_what_it_does_with_gradients(activation: str, rows: int, digits: Data) -> None:
    vae = model(SMALL.derive(activation=activation), digits)
    x, z = torch.rand(1, rows, 64), torch.randn(1, rows, 2)
    with inference(vae):
        wanted = (*vae.encoder(x), *vae.decode(z))
        assert wanted[0].requires_grad
        with torch.no_grad():
            found = (*vae.encoder(x), *vae.decode(z))
    assert "forward" not in vars(vae.decoder.body)
    torch.testing.assert_close(found, tuple(t.detach() for t in wanted), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_likelihood_is_scored_as_torch_does(name: str, digits: Data) -> None:
    """As a decoder gives its outputs, by draws, and where they lie otherwise; of images as many as rows, and of one."""
    spec = SMALL.derive(likelihood=name)
    vae, likelihood = model(spec, digits), likelihood_of(spec)
    x = metrics.model_inputs(spec, digits.test)[:4]
    out = vae.decode(torch.randn(1, 12, 2))
    by_draw = [o.unflatten(1, (3, 4)) if o.shape[1] == 12 else o for o in out]
    scattered = [o.flip(-2) for o in by_draw]
    for target, given in ((x[None, None], by_draw), (x[:1, None], out), (x[None, None], scattered), (x[:, None, None], by_draw)):
        found = log_prob_of(likelihood)(target, *given)
        wanted = likelihood.log_prob(target.double(), *(o.double() for o in given))
        torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_levels_are_scored_as_torch_does(name: str, digits: Data) -> None:
    spec = SMALL.derive(likelihood=name)
    vae, likelihood, v = model(spec, digits), likelihood_of(spec), digits.test.levels[:4].float()
    by_draw = [o.unflatten(1, (3, 4)) if o.shape[1] == 12 else o for o in vae.decode(torch.randn(1, 12, 2))]
    for given in (by_draw, [o.flip(-2) for o in by_draw]):
        found = log_pmf_of(likelihood)(v[None, None], *given)
        wanted = likelihood.log_pmf(v[None, None].double(), *(o.double() for o in given))
        torch.testing.assert_close(found, None if wanted is None else wanted.float(), rtol=3e-6, atol=5e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_mean_images_are_those_of_torch(name: str, digits: Data) -> None:
    """Where the logit is beyond what a likelihood takes, too."""
    spec = SMALL.derive(likelihood=name)
    vae, likelihood = model(spec, digits), likelihood_of(spec)
    out = vae.decode(torch.randn(1, 12, 2))
    out[0][0, :6] *= 4_000
    torch.testing.assert_close(mean_of(likelihood)(*out), likelihood.mean(*out), rtol=1e-5, atol=2e-6)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
def test_a_mixture_is_native_where_its_outputs_lie_as_a_decoder_gives_them(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture, (draws, images, values) = LogisticMixture(components=2, channels=channels), (3, 4, 21)
    g = torch.Generator().manual_seed(0)
    out = torch.randn(1, draws, images, mixture.outputs * values, generator=g).chunk(mixture.outputs, -1)
    v = torch.randint(-64, 320, (1, 1, images, values), generator=g).clamp(0, 255).float()
    wide, x = [o.double() for o in out], v / 255
    wanted = [mixture.log_prob(v.double() / 255, *wide), mixture.log_pmf(v.double(), *wide), mixture.mean(*wide)]

    def found(like: LogisticMixture, *out: Tensor) -> list[Tensor]:
        scores = [log_prob_of(like)(x, *out), cast(Tensor, log_pmf_of(like)(v, *out)), mean_of(like)(*out)]
        return [t.double() for t in scores]

    torch.testing.assert_close(found(mixture, *(o.clone() for o in out)), wanted, rtol=3e-6, atol=1e-4)
    for name in ("log_prob", "log_pmf", "mean"):
        monkeypatch.setattr(LogisticMixture, name, lambda *_: pytest.fail("torch computes it"))
    torch.testing.assert_close(found(mixture, *out), wanted, rtol=3e-6, atol=1e-4)


def test_every_score_is_that_of_torch(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SMALL.derive(likelihood="continuous_bernoulli")
    vae = model(spec, digits)
    found = metrics.evaluate(spec, vae, digits, depths=DEPTHS).scores
    without_kernels(monkeypatch)
    assert found == pytest.approx(metrics.evaluate(spec, vae, digits, depths=DEPTHS).scores, rel=2e-6, abs=2e-5)
