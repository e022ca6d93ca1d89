"""How much faster than the loop that everybody writes: interleaved in one run, one thread, ratio of medians."""

import itertools
import statistics
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness import paths, vision
from harness.cohort import CHUNK
from harness.spec import TrialSpec

pytestmark = pytest.mark.usefixtures("provenance")

ROUNDS, REFERENCE_STEPS = 24, 12
FASTER_AT_LEAST = 2.9


class ReferenceModel(nn.Module):
    """The reference VAE as ordinary layers, sigmoid at the end."""

    def __init__(self) -> None:
        super().__init__()

        def layers(*widths: int) -> list[nn.Module]:
            return [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]

        a, b, c, d = layers(784, 256, 64, 32, 4)
        self.encoder = nn.Sequential(a, nn.ELU(), b, nn.ELU(), c, nn.ELU(), d)
        a, b, c, d = layers(2, 32, 64, 256, 784)
        self.decoder = nn.Sequential(a, b, nn.ELU(), c, nn.ELU(), d, nn.Sigmoid())

    def forward(self, x):
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return self.decoder(mean + torch.exp(log_var / 2) * torch.randn_like(mean)), mean, log_var


def reference_steps():
    """The reference loop, a step per `next`: DataLoader with ToTensor and flatten, BCE of probabilities, default Adam, .item()."""
    from torchvision import transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Lambda(torch.flatten)])
    images = vision.datasets.MNIST(paths.data(), transform=transform)
    loader = torch.utils.data.DataLoader(images, batch_size=128, shuffle=True)
    model = ReferenceModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    while True:
        total = 0.0
        for x, _ in loader:
            out, mean, log_var = model(x)
            kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
            loss = F.binary_cross_entropy(out, x, reduction="sum") + kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            yield


def test_one_trial_on_one_thread(benchmark, chunk_of):
    reference, ours = reference_steps(), chunk_of(TrialSpec())
    times: dict[str, list[float]] = {"reference": [], "ours": []}

    def measure() -> None:
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for _ in range(REFERENCE_STEPS):
                next(reference)
            between = time.perf_counter()
            ours()
            times["reference"].append((between - started) / REFERENCE_STEPS)
            times["ours"].append((time.perf_counter() - between) / CHUNK)

    next(reference)
    ours()
    benchmark.pedantic(measure, rounds=1)
    medians = {name: statistics.median(t) for name, t in times.items()}
    ratio = medians["reference"] / medians["ours"]
    benchmark.extra_info.update(ratio=ratio, **{f"{name}_ms": 1e3 * t for name, t in medians.items()})
    print(
        f"\nreference {1e3 * medians['reference']:.2f} ms, ours {1e3 * medians['ours']:.2f} ms per step: {ratio:.2f} times faster"
    )
    assert ratio >= FASTER_AT_LEAST
