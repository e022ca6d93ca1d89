"""What a small classifier, trained here on the same data, sees in images: scores of samples that need no likelihood.

Shapes: N images, P pixels, F = 64 features. Distances are in the units of this classifier's features: they compare models scored
with the same classifier (the same `digest`), and nothing published.
"""

import hashlib
import math
import os
import pickle
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

RECIPE = 1  # raise it with any change to how a classifier is built or trained: older ones are then left alone, not used
FEATURES = 64
EPOCHS, STEPS = 3, 300  # at least so many of each
TRAIN_BATCH, LEARNING_RATE = 128, 3e-3
BATCH = 1_000
_OF_TEST: dict[tuple[str, str], Tensor] = {}


@dataclass(frozen=True)
class Classifier:
    """A trained classifier. `digest` is 12 hex digits of its weights' sha256, `accuracy` its share of the test set."""

    network: nn.Sequential
    digest: str
    accuracy: float

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What stands before the last layer: images (N, P) on [0, 1] to (N, F), on the CPU whatever the device."""
        return torch.cat([self.network[:-1](batch) for batch in images.float().cpu().split(BATCH)])

    def of_test(self, data: Data) -> Tensor:
        """The features of a data set's test images, (N, F), kept for the process: every trial is held against them."""
        key = (self.digest, data.digest)
        if key not in _OF_TEST:
            _OF_TEST[key] = self.features(data.test.levels.float() / 255)
        return _OF_TEST[key]


def classifier(data: Data, say: Say) -> Classifier:
    """The data set's classifier, from `features/` beside the data sets; trained first if none is there that holds.

    Raises:
        DataError: that folder cannot be written.
    """
    file = paths.data() / "features" / f"{data.name}-{data.digest[:12]}-v{RECIPE}.pt"
    found = _load(file, data)  # without a lock: the file appears whole
    if found is not None:
        return found
    try:
        with lock(file.with_suffix(".lock")):
            found = _load(file, data)  # another process may have trained it meanwhile
            if found is None:
                again = ", for its file is damaged" if file.exists() else ""
                say(f"training the feature classifier for {data.name}{again} ...")
                found = _train(data)
                _save(found, file)
                say(f"trained it to a test accuracy of {found.accuracy:.4f}: {file}")
    except OSError as fault:
        raise DataError(f"cannot keep the feature classifier: {fault}\nset HARNESS_DATA to a folder that can be written") from None
    return found


def _network(side: int, classes: int) -> nn.Sequential:
    """Two strided convolutions, 64 features, one affine map to the classes.

    SiLU, for on MNIST ReLU left 11 of the 64 features dead, and ELU doubled the distance between two halves of the training set.
    """
    across = math.ceil(side / 4)
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.SiLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(32 * across**2, FEATURES),
        nn.SiLU(),
        nn.Linear(FEATURES, classes),
    )


def _classes(data: Data) -> int:
    return int(data.train.labels.max()) + 1


def _on_cpu(split: Split) -> tuple[Tensor, Tensor]:
    return split.levels.cpu().float() / 255, split.labels.cpu()


def _train(data: Data) -> Classifier:
    """Cross-entropy by Adam under a one-cycle rate: on the CPU, one thread and a seed of its own, so always the same weights."""
    x, labels = _on_cpu(data.train)
    steps = len(x) // TRAIN_BATCH
    epochs = max(EPOCHS, math.ceil(STEPS / steps))
    threads = torch.get_num_threads()
    devices.one_thread()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = _network(data.side, _classes(data))
            adam = torch.optim.Adam(network.parameters())
            rate = torch.optim.lr_scheduler.OneCycleLR(adam, LEARNING_RATE, total_steps=epochs * steps)
            for _ in range(epochs):
                for batch in torch.randperm(len(x))[: steps * TRAIN_BATCH].view(steps, -1):
                    adam.zero_grad()
                    F.cross_entropy(network(x[batch]), labels[batch]).backward()
                    adam.step()
                    rate.step()
        network.requires_grad_(False)
        x, labels = _on_cpu(data.test)
        right = torch.cat([network(batch).argmax(1) for batch in x.split(BATCH)]) == labels
    finally:
        torch.set_num_threads(threads)
    return Classifier(network, _digest(network), right.double().mean().item())


def _digest(network: nn.Sequential) -> str:
    weights = b"".join(p.numpy().tobytes() for p in network.state_dict().values())
    return hashlib.sha256(weights).hexdigest()[:12]


def _save(found: Classifier, file: Path) -> None:
    """Write the file whole or not at all."""
    scratch = file.with_suffix(".building")
    with scratch.open("wb") as out:
        torch.save({"weights": found.network.state_dict(), "digest": found.digest, "accuracy": found.accuracy}, out)
        out.flush()
        os.fsync(out.fileno())
    scratch.replace(file)


def _load(file: Path, data: Data) -> Classifier | None:
    """What `file` holds, or None where it is missing, cannot be read or has weights of another digest."""
    with torch.device("meta"):  # no weights yet: drawing some would move the process on in its random numbers
        network = _network(data.side, _classes(data)).requires_grad_(False)
    try:
        kept = torch.load(file, weights_only=True)
        network.load_state_dict(kept["weights"], assign=True)
        digest, accuracy = kept["digest"], float(kept["accuracy"])
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, ValueError):
        return None
    return Classifier(network, digest, accuracy) if digest == _digest(network) else None


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance between the Gaussian fits of two sets of features, (N, F) and (M, F); in squared units of features.

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), Heusel et al., 2017 (https://arxiv.org/abs/1706.08500). In float64; with
    S = R^T R, R from the QR of the centred set, the last trace is the sum of the singular values of R_a R_b^T: exact where a
    covariance is singular. The fit to few images is biased upwards: compare scores of equal N and M only.
    """

    def fit(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(0)
        return mean, torch.linalg.qr((x - mean) / math.sqrt(len(x) - 1), mode="r").R

    (mean_a, root_a), (mean_b, root_b) = fit(a.double()), fit(b.double())
    shift = (mean_a - mean_b).square().sum()
    spread = root_a.square().sum() + root_b.square().sum() - 2 * torch.linalg.matrix_norm(root_a @ root_b.T, "nuc")
    return max(0.0, (shift + spread).item())


class PrecisionRecall(NamedTuple):
    """Shares on [0, 1]: fakes that lie among the reals, and reals that lie among the fakes."""

    precision: float
    recall: float


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall, Kynkaanniemi et al., 2019 (https://arxiv.org/abs/1904.06991), of features (N, F) and (M, F).

    A point lies among a set if it is within some member's ball, whose radius is the distance to that member's k-th nearest
    neighbour in the set, itself left out. Compare scores of equal N, M and k only.
    """
    real, fake = real.double(), fake.double()
    real_radius, fake_radius = _radius(real, k), _radius(fake, k)
    among_reals = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    among_fakes = []
    for points, radius in zip(real.split(BATCH), real_radius.split(BATCH), strict=True):
        distance = torch.cdist(points, fake)
        among_reals |= (distance <= radius[:, None]).any(0)
        among_fakes.append((distance <= fake_radius).any(1))
    return PrecisionRecall(among_reals.double().mean().item(), torch.cat(among_fakes).double().mean().item())


def _radius(points: Tensor, k: int) -> Tensor:
    """Distance from each point to its k-th nearest other, (N,): the k + 1 nearest start with the point itself."""
    return torch.cat([torch.cdist(chunk, points).topk(k + 1, largest=False).values[:, -1] for chunk in points.split(BATCH)])
