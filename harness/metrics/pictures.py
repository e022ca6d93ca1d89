"""Tier D: scores of pictures and codes, without a likelihood. Shapes: N images, P values of an image, Z latents."""

from torch import Tensor

from harness.data import Data
from harness.metrics.features import feature_net
from harness.metrics.images import psnr, squared_error, ssim
from harness.metrics.inputs import Encodings, prior_samples
from harness.metrics.latents import active_units, knn_accuracy, linear_probe, mutual_information
from harness.metrics.samples import balls, frechet, precision_recall
from harness.models.vae import VAE
from harness.spec import TrialSpec, unmet

NEIGHBOURHOODS = 3_000  # images a side for precision and recall: 10,000 take 3 s
_REAL_BALLS: dict[tuple[str, str], Tensor] = {}  # of test images, by digest of network and data: the same for all trials


def mean_of(values: Tensor) -> float:
    """Return the mean of all values, in float64."""
    return values.double().mean().item()


def unit(levels: Tensor) -> Tensor:
    """Return levels as floats on [0, 1]."""
    return levels.float() / 255


def pictures(spec: TrialSpec, vae: VAE, data: Data, test: Encodings) -> dict[str, float]:
    """Return the scores of decoded test images against the originals and of decoded prior draws against the test set.

    The latter are left out for images that are too few to train a network on, or to fit a Gaussian to.
    """
    originals = unit(data.test.levels)
    scores = {
        "test/squared_error": mean_of(squared_error(test.image, originals)),
        "test/psnr": mean_of(psnr(test.image, originals)),
        "test/ssim": mean_of(ssim(test.image, originals, data.image_shape)),
    }
    if unmet(("features",), data.counts):
        return scores
    net = feature_net(data, say=lambda _: None)
    real, fake = net.test_features(data), net.features(prior_samples(vae, len(originals), spec.latent))
    some, key = real[:NEIGHBOURHOODS], (net.digest, data.digest)
    if key not in _REAL_BALLS:
        _REAL_BALLS[key] = balls(some)
    precision, recall = precision_recall(some, fake[:NEIGHBOURHOODS], real_balls=_REAL_BALLS[key])
    return scores | {"test/frechet": frechet(real, fake), "test/precision": precision, "test/recall": recall}


def codes(spec: TrialSpec, data: Data, train: Tensor, test: Encodings) -> dict[str, float]:
    """Return the scores of how well codes predict the classes, if there are any, and of how they use the latent space.

    `train` is q's mean of the images that the trial was trained on, (N, Z).
    """
    information = mutual_information(test.mean, test.log_var)
    scores = {
        "test/active_units": active_units(test.mean),
        "test/mutual_information": information.mutual_information,
        "test/marginal_kl": information.marginal_kl,
    }
    if not unmet(("labels",), data.counts):
        known, labels = data.fit_on(spec.fit_on).classes, data.test.classes
        scores["test/probe_accuracy"] = linear_probe(train, known, test.mean, labels)
        if not unmet(("neighbours",), data.counts):
            scores["test/knn15_accuracy"] = knn_accuracy(train, known, test.mean, labels)
    return scores
