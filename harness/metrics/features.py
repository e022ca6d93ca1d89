"""Scores of samples without a likelihood, on the features of a small classifier that the harness trains on the same data.

Shapes: N images, P pixels, F = 64 features. Distances are in the units of this classifier's features: they compare only models that
were scored with the same classifier (the same `digest`), and not with published numbers.
"""

import hashlib
import math
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import devices, paths
from harness.data import Data, Say, Split
from harness.errors import DataError
from harness.stores.locks import lock

VERSION = 1  # raise it with any change to how a classifier is built or trained: files of older versions are then not used
FEATURES = 64
EPOCHS, STEPS = 3, 300  # at least so many of each
TRAIN_BATCH, LEARNING_RATE = 128, 3e-3
BATCH = 1_000
_TEST_FEATURES: dict[tuple[str, str], Tensor] = {}


@dataclass(frozen=True)
class Classifier:
    """A trained classifier.

    Attributes:
        network: The classifier, on the CPU.
        digest: The first 12 hex digits of its weights' sha256.
        accuracy: The share of test images that it classifies correctly.
    """

    network: nn.Sequential
    digest: str
    accuracy: float

    @torch.no_grad()
    def features(self, images: Tensor, batch_size: int = BATCH) -> Tensor:
        """Return the inputs of the last layer, (N, F), for images (N, P) on [0, 1]; computed on the CPU whatever their device."""
        return torch.cat([self.network[:-1](batch) for batch in torch.split(images.float().cpu(), batch_size)])

    def test_features(self, data: Data) -> Tensor:
        """Return the features of a data set's test images, (N, F), cached in this process for all trials."""
        key = (self.digest, data.digest)
        if key not in _TEST_FEATURES:
            _TEST_FEATURES[key] = self.features(data.test.levels.float() / 255)
        return _TEST_FEATURES[key]


def classifier(data: Data, say: Say, *, version: int = VERSION, train: Callable[[Data], Classifier] | None = None) -> Classifier:
    """Return the data set's classifier from the folder `features` beside the data sets.

    If that folder has no valid file of it, the classifier is trained and saved first; other processes wait meanwhile.

    Args:
        data: The data set.
        say: Takes messages about the training.
        version: The version of how a classifier is built and trained, part of the file's name.
        train: Returns a trained classifier for a data set; by default the training of `VERSION`.

    Raises:
        DataError: The folder cannot be written.
    """
    file = paths.data() / "features" / f"{data.name}-{data.digest[:12]}-v{version}.pt"
    saved = _load(file, data)  # needs no lock, because the file is replaced atomically
    if saved is not None:
        return saved
    try:
        with lock(file.with_suffix(".lock")):
            saved = _load(file, data)  # another process may have trained it meanwhile
            if saved is None:
                again = ", for its file is damaged" if file.exists() else ""
                say(f"training the feature classifier for {data.name}{again} ...")
                saved = (train or _train)(data)
                _save(saved, file)
                say(f"trained it to a test accuracy of {saved.accuracy:.4f}: {file}")
    except OSError as fault:
        raise DataError(f"cannot keep the feature classifier: {fault}\nset HARNESS_DATA to a folder that can be written") from None
    return saved


def _network(image_shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """Return an untrained classifier: two strided convolutions, 64 features, one affine map to the classes.

    The activation is SiLU, because on MNIST ReLU left 11 of the 64 features dead and ELU doubled the Frechet distance between two
    halves of the training set.
    """
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Unflatten(1, image_shape),
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.SiLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(32 * math.ceil(height / 4) * math.ceil(width / 4), FEATURES),
        nn.SiLU(),
        nn.Linear(FEATURES, classes),
    )


def _classes(data: Data) -> int:
    """Return the number of classes."""
    return int(data.train.classes.max()) + 1


def _on_cpu(split: Split) -> tuple[Tensor, Tensor]:
    """Return a split's images on [0, 1], (N, P), and its labels, (N,), on the CPU."""
    return split.levels.cpu().float() / 255, split.classes.cpu()


def _train(data: Data) -> Classifier:
    """Train a classifier by Adam on the cross-entropy with a one-cycle learning rate, and return it.

    It is trained on the CPU with one thread and a fixed seed, so its weights are always the same.
    """
    x, labels = _on_cpu(data.train)
    steps = len(x) // TRAIN_BATCH
    epochs = max(EPOCHS, math.ceil(STEPS / steps))
    threads = torch.get_num_threads()
    devices.one_thread()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = _network(data.image_shape, _classes(data))
            adam = torch.optim.Adam(network.parameters())
            rate = torch.optim.lr_scheduler.OneCycleLR(adam, LEARNING_RATE, total_steps=epochs * steps)
            for _ in range(epochs):
                for batch in torch.randperm(len(x))[: steps * TRAIN_BATCH].view(steps, -1):
                    adam.zero_grad()
                    torch.autograd.backward(F.cross_entropy(network(x[batch]), labels[batch]))
                    adam.step()
                    rate.step()
        network.requires_grad_(False)
        x, labels = _on_cpu(data.test)
        correct = torch.cat([network(batch).argmax(1) for batch in torch.split(x, BATCH)]) == labels
    finally:
        torch.set_num_threads(threads)
    return Classifier(network, _digest(network), correct.double().mean().item())


def _digest(network: nn.Sequential) -> str:
    """Return the first 12 hex digits of the sha256 of all weights."""
    weights = b"".join(p.numpy().tobytes() for p in network.state_dict().values())
    return hashlib.sha256(weights).hexdigest()[:12]


def _save(classifier: Classifier, file: Path) -> None:
    """Write a classifier to a file, which appears complete or not at all."""
    scratch = file.with_suffix(".building")
    with scratch.open("wb") as out:
        torch.save({"weights": classifier.network.state_dict(), "digest": classifier.digest, "accuracy": classifier.accuracy}, out)
        out.flush()
        os.fsync(out.fileno())
    scratch.replace(file)


def _load(file: Path, data: Data) -> Classifier | None:
    """Return the classifier in a file, or None if it is missing, cannot be read or has weights of another digest."""
    with torch.device("meta"):  # weights drawn here would change the state of the process's random numbers
        network = _network(data.image_shape, _classes(data)).requires_grad_(False)
    try:
        content = torch.load(file, weights_only=True)
        network.load_state_dict(content["weights"], assign=True)
        digest, accuracy = content["digest"], float(content["accuracy"])
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, ValueError):
        return None
    return Classifier(network, digest, accuracy) if digest == _digest(network) else None


def frechet(a: Tensor, b: Tensor) -> float:
    """Return the Frechet distance between Gaussian fits of two sets of features, (N, F) and (M, F), in squared units of features.

    It is |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) (Heusel et al., 2017, https://arxiv.org/abs/1706.08500), in float64.
    With S = R^T R, R from the QR decomposition of the centred set, the last trace is the sum of the singular values of R_a R_b^T,
    which is exact even if a covariance is singular. The fit to few images is biased upwards: compare scores of equal N and M only.
    """

    def fit(x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean (F,) and R, at most (F, F), of a set of features."""
        mean = x.mean(0)
        return mean, torch.linalg.qr((x - mean) / math.sqrt(len(x) - 1), mode="r").R

    (mean_a, root_a), (mean_b, root_b) = fit(a.double()), fit(b.double())
    shift = (mean_a - mean_b).square().sum()
    spread = root_a.square().sum() + root_b.square().sum() - 2 * torch.linalg.matrix_norm(root_a @ root_b.T, "nuc")
    return max(0.0, float(shift + spread))


class PrecisionRecall(NamedTuple):
    """Precision and recall of generated samples, on [0, 1].

    Attributes:
        precision: The share of generated points that are within the manifold of the real ones.
        recall: The share of real points that are within the manifold of the generated ones.
    """

    precision: float
    recall: float


def precision_recall(real: Tensor, fake: Tensor, k: int = 3, *, batch_size: int = BATCH) -> PrecisionRecall:
    """Return improved precision and recall (Kynkaanniemi et al., 2019, https://arxiv.org/abs/1904.06991).

    A point is within the manifold of a set if it is within the ball of some member, whose radius is the distance to that member's
    k-th nearest other member. Compare scores of equal N, M and k only.

    Args:
        real: Features of real images, (N, F).
        fake: Features of generated images, (M, F).
        k: The neighbour that sets a ball's radius.
        batch_size: Points whose distances to all others are computed at a time.
    """
    real, fake = real.double(), fake.double()
    real_radius, fake_radius = _radius(real, k, batch_size), _radius(fake, k, batch_size)
    among_reals = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    among_fakes = []
    for points, radius in zip(torch.split(real, batch_size), torch.split(real_radius, batch_size), strict=True):
        distance = torch.cdist(points, fake)
        among_reals |= (distance <= radius[:, None]).any(0)
        among_fakes.append((distance <= fake_radius).any(1))
    return PrecisionRecall(among_reals.double().mean().item(), torch.cat(among_fakes).double().mean().item())


def _radius(points: Tensor, k: int, batch_size: int) -> Tensor:
    """Return the distance from each point (N, F) to its k-th nearest other point, (N,)."""
    # The k + 1 nearest points start with the point itself.
    return torch.cat(
        [torch.cdist(chunk, points).topk(k + 1, largest=False).values[:, -1] for chunk in torch.split(points, batch_size)]
    )
