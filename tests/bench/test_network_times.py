"""How much faster than the same modules in a loop of plain PyTorch: interleaved in one run, one thread, median of the ratios."""

import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import devices
from harness.bench import ladder, machine
from harness.bench.machine import BATCH
from harness.bench.rungs import Rung, mnist
from harness.models.vae import kl_per_dimension, maker_of
from harness.spec import TrialSpec
from harness.training.cohort import Cohort

pytestmark = pytest.mark.usefixtures("provenance")

OURS, PLAIN = "our step, one graph", "plain PyTorch"
STEPS, ROUNDS = 65, 8  # 64 in the program and the last one, which is taken by operations
CPU = torch.device("cpu")
ARGUMENTS = {"conv": {}, "resnet": {}, "mlp": {"norm": True, "residual": True}}
FASTER_AT_LEAST = {"conv": 1.5, "resnet": 1.5, "mlp": 1.5}  # measured 2.1, 1.9 and 1.9 on two busy cores


class Layer(nn.Module):
    """A hidden layer of the network `mlp` with norm and residual, by torch's own modules."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ELU())
        self.skip = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)


def plain_modules(spec: TrialSpec) -> tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., Tensor], list[nn.Parameter]]:
    """Return an encoder of images, a decoder to images' logits, and the parameters of both."""
    if spec.network != "mlp":
        encoder, decoder = maker_of(spec, (1, 28, 28), 1)()
        return encoder, lambda z: decoder(z)[:, 0], [*encoder.parameters(), *decoder.parameters()]
    widths = [784, *spec.hidden]
    down = nn.Sequential(nn.Flatten(), *(Layer(a, b) for a, b in pairwise(widths)), nn.Linear(widths[-1], 2 * spec.latent))
    around = [spec.latent, *reversed(spec.hidden)]
    up = nn.Sequential(*(Layer(a, b) for a, b in pairwise(around)), nn.Linear(around[-1], 784), nn.Unflatten(1, (1, 28, 28)))
    return lambda x: down(x).chunk(2, dim=1), up, [*down.parameters(), *up.parameters()]


def plain_loop(spec: TrialSpec) -> Callable[[], None]:
    """Return a function that trains ordinary modules operation by operation: resident images, logits, torch's Adam."""
    encoder, decoder, params = plain_modules(spec)
    optimizer = torch.optim.Adam(params, spec.learning_rate)
    images = mnist().train.levels.float().view(-1, 1, 28, 28) / 255

    def run() -> None:
        for index in torch.randperm(len(images)).split(BATCH)[:STEPS]:
            x = torch.bernoulli(images[index])
            mean, log_var = encoder(x)
            logits = decoder(mean + torch.exp(log_var / 2) * torch.randn_like(mean))
            loss = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl_per_dimension(mean, log_var).sum()
            optimizer.zero_grad()
            (loss / BATCH).backward()
            optimizer.step()

    return run


@pytest.mark.parametrize("network", FASTER_AT_LEAST)
def test_a_network(benchmark, network):
    """By CPU time, which does not count what else runs on the machine."""
    if devices.compiler(CPU) is None:
        pytest.skip("no compiler here")
    spec = TrialSpec(network=network, network_args=ARGUMENTS[network], latent=20, likelihood="bernoulli", learning_rate=1e-3)
    cohort = Cohort([spec], mnist(), CPU, "compiled")

    def ours() -> None:
        assert cohort.run_steps(STEPS)

    contenders = [Rung(name, partial(machine.timed, CPU, run), STEPS) for name, run in ((OURS, ours), (PLAIN, plain_loop(spec)))]
    for contender in contenders:
        contender.call()
    times = benchmark.pedantic(ladder.race, args=(contenders, ROUNDS), rounds=1)
    ms = {name: 1e3 * statistics.median(t.cpu for t in spent) for name, spent in times.items()}
    ratio = statistics.median(b.cpu / a.cpu for a, b in zip(times[OURS], times[PLAIN], strict=True))
    benchmark.extra_info.update(ms=ms, ratio=ratio)
    print(f"\n{network}: {ms[OURS]:.1f} ms a step, {ms[PLAIN]:.1f} by plain PyTorch, {ratio:.2f} times faster")
    assert ratio >= FASTER_AT_LEAST[network]
