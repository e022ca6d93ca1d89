"""Features of images without a likelihood: of a small network that was trained on the same data.

It is a classifier where the images have classes, else an autoencoder. Those of MNIST and Fashion-MNIST come with the package, in
`feature_networks`, so that they are the same on every machine; others are trained at their first use, which rounds otherwise on
other processors. Shapes: N images, C channels, H rows, W columns, P = C H W
values, F = 64 features. Distances are in the units of this network's features: they compare only models that were scored with the
same network (the same `digest`), and not with published numbers.
"""

import hashlib
import math
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from harness import devices, paths
from harness.data import Data, Say, Split
from harness.errors import DataError
from harness.metrics.feature_kinds import KINDS, kind_of, network_of
from harness.scores import FEATURE_BATCH
from harness.stores.locks import lock

VERSION = 1  # raise it with any change to how a network is built or trained: files of older versions are then not used
PACKAGED = Path(__file__).parent / "feature_networks"  # made by tests/helpers/feature_networks.py
EPOCHS, STEPS = 3, 300  # at least so many of each
BATCH = 1_000
VALUES = 2**20  # of the first layer's output at a time
_TEST_FEATURES: dict[tuple[str, str], Tensor] = {}


@dataclass(frozen=True)
class FeatureNet:
    """A trained network, whose features are the inputs of its last module.

    Attributes:
        network: The network, on the CPU.
        digest: The first 12 hex digits of its weights' sha256.
        kind: `classifier` or `autoencoder`.
        quality: Of a classifier the share of test images that it classifies correctly; of an autoencoder its mean squared error on
            test images, per value on [0, 1].
    """

    network: nn.Sequential
    digest: str
    kind: str
    quality: float

    @property
    def in_words(self) -> str:
        """What the network is and how good, such as `a classifier (test accuracy 0.9890)`."""
        return f"{KINDS[self.kind].article} {self.kind} (test {KINDS[self.kind].quality} {self.quality:.4f})"

    @property
    def name(self) -> str:
        """The digest, followed by the kind if the features are not those of a classifier."""
        return self.digest + KINDS[self.kind].infix

    @torch.no_grad()
    def features(self, images: Tensor, batch_size: int = BATCH) -> Tensor:
        """Return the features, (N, F), of images (N, P) on [0, 1]; computed on the CPU whatever their device."""
        fitting = VALUES // math.prod(self.network[:2](images[:1].float().cpu()).shape)
        size = max(1, min(batch_size, fitting))
        return torch.cat([self.network[:-1](batch.float().cpu()) for batch in torch.split(images, size)])

    def test_features(self, data: Data) -> Tensor:
        """Return the features of a data set's test images, (N, F), cached in this process for all trials."""
        key = (self.digest, data.digest)
        if key not in _TEST_FEATURES:
            _TEST_FEATURES[key] = self.features(data.test.levels.float() / 255)
        return _TEST_FEATURES[key]


def feature_net(
    data: Data,
    say: Say,
    *,
    version: int = VERSION,
    train: Callable[[Data], FeatureNet] | None = None,
    doing: Say = lambda words: None,
) -> FeatureNet:
    """Return the data set's network from the folder `features` beside the data sets, or else the one that comes with the package.

    If neither has a valid file of it, the network is trained and saved first; other processes wait meanwhile.

    Args:
        data: The data set, with as many images as scores of features need.
        say: Takes messages about the training.
        version: The version of how a network is built and trained, part of the file's name.
        train: Returns a trained network for a data set; by default the training of `VERSION`.
        doing: Takes how far the training is, in words.

    Raises:
        DataError: The folder cannot be written.
    """
    kind = kind_of(data)
    file = paths.data() / "features" / f"{data.name}-{data.digest[:12]}{KINDS[kind].infix}-v{version}.pt"
    saved = _load(file, data) or _load(PACKAGED / file.name, data)  # needs no lock, because the file is replaced atomically
    if saved is not None:
        return saved
    try:
        with lock(file.with_suffix(".lock")):
            saved = _load(file, data)  # another process may have trained it meanwhile
            if saved is None:
                again = ", for its file is damaged" if file.exists() else ""
                say(f"training the feature {kind} for {data.name}{again} ...")
                saved = train(data) if train else _train(data, doing)
                _save(saved, file)
                say(f"trained it to a test {KINDS[kind].quality} of {saved.quality:.4f}: {file}")
    except OSError as fault:
        raise DataError(f"cannot keep the feature {kind}: {fault}\nset HARNESS_DATA to a folder that can be written") from None
    return saved


def _on_cpu(data: Data, split: Split) -> tuple[Tensor, Tensor]:
    """Return a split's levels, uint8 (N, P), and its classes, (N,), on the CPU.

    Classes are numbered from 0 in the order of the training images' labels; labels that these do not have are no number of theirs.
    """
    known, labels = data.train.classes.unique().cpu(), split.classes.cpu()
    number = torch.searchsorted(known, labels).clamp_max(len(known) - 1)
    return split.levels.cpu(), number.masked_fill(known[number] != labels, -1)


def _train(data: Data, doing: Say = lambda words: None) -> FeatureNet:
    """Train a network by Adam on its kind's loss with a one-cycle learning rate, and return it.

    It is trained on the CPU with one thread and a fixed seed, so its weights are always the same.
    """
    kind = kind_of(data)
    levels, labels = _on_cpu(data, data.train)
    steps = len(levels) // FEATURE_BATCH
    epochs = max(EPOCHS, math.ceil(STEPS / steps))
    threads = torch.get_num_threads()
    devices.one_thread()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = network_of(data)
            adam = torch.optim.Adam(network.parameters())
            rate = torch.optim.lr_scheduler.OneCycleLR(adam, KINDS[kind].rate, total_steps=epochs * steps)
            for epoch in range(1, epochs + 1):
                doing(f"training the feature {kind} for {data.name}, epoch {epoch} of {epochs}")
                for batch in torch.randperm(len(levels))[: steps * FEATURE_BATCH].view(steps, -1):
                    adam.zero_grad()
                    x = levels[batch].float() / 255
                    torch.autograd.backward(KINDS[kind].loss(network(x), x, labels[batch]))
                    adam.step()
                    rate.step()
        network.requires_grad_(False)
        parts = (torch.split(t, FEATURE_BATCH) for t in _on_cpu(data, data.test))
        judged = [KINDS[kind].judge(network(v.float() / 255), v.float() / 255, own) for v, own in zip(*parts, strict=True)]
    finally:
        torch.set_num_threads(threads)
    return FeatureNet(network, _digest(network), kind, torch.cat(judged).mean().item())


def _digest(network: nn.Sequential) -> str:
    """Return the first 12 hex digits of the sha256 of all weights."""
    weights = b"".join(p.numpy().tobytes() for p in network.state_dict().values())
    return hashlib.sha256(weights).hexdigest()[:12]


def _save(net: FeatureNet, file: Path) -> None:
    """Write a network to a file, which appears complete or not at all."""
    scratch = file.with_suffix(".building")
    with scratch.open("wb") as out:
        torch.save({"weights": net.network.state_dict(), "digest": net.digest, KINDS[net.kind].quality: net.quality}, out)
        out.flush()
        os.fsync(out.fileno())
    scratch.replace(file)


def _load(file: Path, data: Data) -> FeatureNet | None:
    """Return the network in a file, or None if it is missing, cannot be read or has weights of another digest."""
    kind = kind_of(data)
    with torch.device("meta"):  # weights drawn here would change the state of the process's random numbers
        network = network_of(data).requires_grad_(False)
    try:
        content = torch.load(file, weights_only=True)
        network.load_state_dict(content["weights"], assign=True)
        digest, quality = content["digest"], float(content[KINDS[kind].quality])
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, ValueError):
        return None
    return FeatureNet(network, digest, kind, quality) if digest == _digest(network) else None
