"""Every score is of the split that its key names, and of nothing else.

The splits of the data here differ so much that a score of another one tells: whole splits are exchanged, and what may not follow
must stay the same bit by bit, while what must follow changes.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness import metrics
from harness.data import Data, Split, frozen_noise, load_dataset
from harness.metrics import features
from harness.metrics.inputs import prior_samples
from harness.models.vae import VAE, build
from harness.spec import TrialSpec
from harness.training.cohort import Cohort
from harness.training.validation import Validation

SHALLOW = {"full": metrics.Depth(samples=8, draws=10, images=40, exact_images=4, other_images=1)}
SPEC = TrialSpec(
    dataset="digits",
    network="mlp",
    hidden=(16,),
    latent=3,
    likelihood="gaussian_per_pixel",
    evaluation="full",
    batch_size=64,
    epochs=1,
)
# Test scores that rest on the training images too: the common head counts on them, and classifiers are trained on them.
OF_TRAINING = {f"test/{key}" for key in ("common_bits", "common_bits_iw", "common_bits_exact")} | {
    f"test/{key}" for key in ("knn15_accuracy", "probe_accuracy", "frechet", "precision", "recall")
}


@pytest.fixture(scope="module")
def apart() -> Data:
    """Training images as they are, validation images brighter, test images turned."""
    digits = load_dataset("digits")
    levels = {
        "train": digits.train.levels[:300],
        "validation": 255 - digits.validation.levels[:120] // 2,
        "test": digits.test.levels[:150].flip(1),
    }
    splits = {name: Split(name, images, getattr(digits, name).labels[: len(images)]) for name, images in levels.items()}
    return Data(name="apart", image_shape=(1, 8, 8), digest="apart", **splits)


def exchanged(data: Data, name: str) -> Data:
    """The same data but for one split, whose images and labels are others; held-out ones are black, so units are dead."""
    split: Split = getattr(data, name)
    streaks = torch.arange(split.levels.numel()).view_as(split.levels) * 37 % 251
    levels = streaks // (1 + split.classes[:, None]) * (name == "train")
    other = Split(name, levels.to(torch.uint8), (split.classes * 7 + 3) % 10)
    return replace(data, **{name: other}, digest=f"{data.digest}, but {name}")


def model(spec: TrialSpec, data: Data) -> VAE:
    """A model that tells images apart: trained for a moment."""
    cohort = Cohort([spec.derive(epochs=10, learning_rate=1e-2)], data, torch.device("cpu"))
    for _ in range(10):
        cohort.run_epoch()
    return cohort.trained(cohort.specs[0])


@pytest.fixture
def quick_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feature classifiers of a few steps, in a folder of their own."""
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setattr(features, "EPOCHS", 1)
    monkeypatch.setattr(features, "STEPS", 20)


def differing(scores: dict[str, float], others: dict[str, float]) -> set[str]:
    return {key for key in scores if scores[key] != others[key]}


@pytest.mark.usefixtures("quick_features")
@pytest.mark.parametrize("latent", [3, pytest.param(2, marks=pytest.mark.slow)])  # at 2 also what quadrature gives
def test_test_scores_look_at_the_test_split_and_validation_scores_at_validation(apart: Data, latent: int) -> None:
    spec = SPEC.derive(latent=latent)
    vae = model(spec, apart)

    def scored(data: Data) -> dict[str, float]:
        return metrics.evaluate(spec, vae, data, depths=SHALLOW).scores

    scores = scored(apart)
    of_test = {key for key in scores if key.startswith("test/")}
    of_validation = {key for key in scores if key.startswith(("validation/", "dead_units/"))}
    assert ("test/common_bits_exact" in of_test) == (latent == 2)
    changed = {name: differing(scores, scored(exchanged(apart, name))) for name in ("train", "validation", "test")}
    dreamt = (prior_samples(vae, len(apart.test), latent, seed=1) * 255).to(torch.uint8)  # so that recall is not 0 twice
    changed["test"] |= differing(scores, scored(replace(apart, test=replace(apart.test, levels=dreamt), digest="dreamt")))
    assert changed["validation"] <= of_validation
    assert changed["validation"] >= {"validation/squared_error", "validation/common_bits", "validation/dead_units"}
    assert changed["test"] >= of_test - {"test/exact_resolved"}  # which is 1 for any images that quadrature can score
    assert not changed["test"] & of_validation
    assert changed["train"] & of_test <= OF_TRAINING
    assert changed["train"] >= {"test/common_bits", "test/knn15_accuracy", "test/frechet"}


def test_what_selects_never_looks_at_the_test_split(apart: Data) -> None:
    vae = model(SPEC, apart)
    assert metrics.validate(SPEC, vae, exchanged(apart, "test")) == metrics.validate(SPEC, vae, apart)
    assert metrics.validate(SPEC, vae, exchanged(apart, "validation")) != metrics.validate(SPEC, vae, apart)


def trained(data: Data, spec: TrialSpec = SPEC) -> tuple[dict[str, float], list[Tensor]]:
    """The row of an epoch, but for its times, and the weights after it."""
    cohort = Cohort([spec], data, torch.device("cpu"))
    (row,) = cohort.run_epoch().values()
    return {key: value for key, value in row.items() if not key.startswith("perf/")}, [p.detach() for p in cohort.params]


def test_training_never_looks_at_the_test_split_and_learns_nothing_from_validation(apart: Data) -> None:
    row, weights = trained(apart)
    for name in ("test", "validation"):
        other_row, other_weights = trained(exchanged(apart, name))
        curves = {f"{score}/validation" for score in ("elbo", "recon", "kl")}
        assert differing(row, other_row) == (curves if name == "validation" else set())
        assert all(torch.equal(a, b) for a, b in zip(weights, other_weights, strict=True))
    assert trained(exchanged(apart, "train"))[0]["elbo/train"] != row["elbo/train"]
    row, _ = trained(apart, SPEC.derive(fit_on="train+validation"))
    assert trained(exchanged(apart, "validation"), SPEC.derive(fit_on="train+validation"))[0]["elbo/train"] != row["elbo/train"]


def constant(spec: TrialSpec) -> VAE:
    """A model that knows nothing of an image: q is the prior, and every logit is 1."""
    vae = build(spec, (1, 8, 8))
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            parameter.fill_(float(name.startswith("decoder") and name.endswith("bias")))
    return vae


@pytest.mark.usefixtures("quick_features")
@pytest.mark.parametrize("seed", [0, 1])
def test_an_evaluation_reads_each_split_by_its_own_frozen_noise(apart: Data, seed: int) -> None:
    """By hand: log p of binarised pixels whose logit is 1, whatever the trial's seed and torch's generator."""
    spec = TrialSpec(dataset="digits", network="mlp", hidden=(4,), latent=2, likelihood="bernoulli", evaluation="quick", seed=seed)
    torch.manual_seed(seed)

    def elbo(split: Split) -> float:
        white = (frozen_noise(split) < split.levels / 255).double()
        return float((white - torch.ones((), dtype=torch.float64).exp().log1p()).sum(1).mean())

    unlabelled = replace(apart, **{name: replace(getattr(apart, name), labels=None) for name in ("train", "validation", "test")})
    scores = metrics.evaluate(spec, constant(spec), unlabelled).scores
    assert scores["test/kl"] == 0
    assert scores["test/elbo"] == pytest.approx(elbo(apart.test), rel=1e-5)
    (row,) = Validation(apart.validation).score([spec], constant(spec))
    assert row["elbo/validation"] == pytest.approx(elbo(apart.validation), rel=1e-5)
    assert abs(elbo(apart.validation) - elbo(apart.test)) > 5
