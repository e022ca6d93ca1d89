"""Ways to train the reference model on MNIST, from the usual loop upwards: one thing is added from rung to rung."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import paths
from harness.bench import jax_peer as in_jax
from harness.bench import machine
from harness.bench.machine import BATCH, LAYERS, Spent
from harness.bench.peers import Peer
from harness.data import Data, load_dataset
from harness.data.published import FILES
from harness.data.torchvision_door import torchvision
from harness.spec import CHUNK, TrialSpec
from harness.training.cohort import Cohort
from harness.training.step import Execution

REFERENCE, GOOD, JAX = "reference loop", "+ no .item() (a good loop)", "JAX: jit, scan"
EAGER, BY_HAND, GRAPH = "our step, eager", "our step, by hand", "our step, one graph"
OWN: dict[str, Execution] = {EAGER: "eager", BY_HAND: "manual", GRAPH: "compiled"}
LIGHTNING, PYTHAE = "Lightning's trainer", "Pythae's trainer"
TRAINERS = {LIGHTNING: ("lightning",), PYTHAE: ("pythae",)}  # the packages that they need
LEAST_STEPS = 8  # of a call, so that the shuffle of an epoch weighs little
EPOCH = 2 * CHUNK  # steps of a trainer's epoch, which is a call
RATE = 3e-4


@dataclass(frozen=True)
class Rung:
    """A way to train.

    Attributes:
        name: of the rung.
        call: trains `lanes` models for `steps` steps and returns the time that it took.
        steps: of a call.
        lanes: models that train together.
        compile_s: the seconds of compiling, which is done before.
    """

    name: str
    call: Callable[[], Spent]
    steps: int
    lanes: int = 1
    compile_s: float | None = None


class ReferenceModel(nn.Module):
    """The reference VAE as ordinary layers; the decoder ends in probabilities, or in their logits."""

    def __init__(self, logits: bool = False) -> None:
        super().__init__()
        a, b, c, d, e, f, g, h = (nn.Linear(*widths) for widths in LAYERS)
        self.encoder = nn.Sequential(a, nn.ELU(), b, nn.ELU(), c, nn.ELU(), d)
        self.decoder = nn.Sequential(e, f, nn.ELU(), g, nn.ELU(), h, nn.Identity() if logits else nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the decoder's output (B, P), and mean and log variance of q(z|x) (B, Z), for images x (B, P)."""
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return self.decoder(mean + torch.exp(log_var / 2) * torch.randn_like(mean)), mean, log_var


@dataclass(frozen=True)
class LoopVariant:
    """The usual loop with some changes.

    Attributes:
        resident: True to hold the images on the device as one float tensor; else a DataLoader reads them, with ToTensor.
        fused: True to take Adam's update in one kernel.
        logits: True to take the binary cross-entropy of logits; else of probabilities.
        item: True to read the loss after every step.
        bf16: True to take forward products in bfloat16.
    """

    resident: bool = False
    fused: bool = False
    logits: bool = False
    item: bool = True
    bf16: bool = False

    def loss(self, model: ReferenceModel, x: Tensor) -> Tensor:
        """Return the binary cross-entropy plus the KL, summed over the batch."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            out, mean, log_var = model(x)
        mean, log_var = mean.float(), log_var.float()
        kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
        entropy = F.binary_cross_entropy_with_logits if self.logits else F.binary_cross_entropy
        return entropy(out.float(), x, reduction="sum") + kl

    def steps(self, device: torch.device) -> Iterator[float]:
        """Run the loop without end: take a step per `next`, and yield the loss so far in its epoch; NaN if it is not read."""
        model = ReferenceModel(self.logits).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=self.fused or None)
        epoch = _resident(device) if self.resident else _loaded(device)
        while True:
            total = 0.0
            for x in epoch():
                loss = self.loss(model, x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() if self.item else math.nan
                yield total


USUAL = LoopVariant()
LOOP_VARIANTS = {
    REFERENCE: USUAL,
    "+ resident data": replace(USUAL, resident=True),
    "+ fused Adam": replace(USUAL, resident=True, fused=True),
    "+ logits": replace(USUAL, resident=True, fused=True, logits=True),
    GOOD: replace(USUAL, resident=True, fused=True, logits=True, item=False),
    "+ bf16 autocast": replace(USUAL, resident=True, fused=True, logits=True, item=False, bf16=True),
}


def _loaded(device: torch.device) -> Callable[[], Iterator[Tensor]]:
    """Return a function that yields an epoch of batches as most programs read them."""
    transforms = torchvision().transforms
    transform = transforms.Compose([transforms.ToTensor(), transforms.Lambda(torch.flatten)])
    images = torchvision().datasets.MNIST(paths.data(), transform=transform)
    loader = torch.utils.data.DataLoader(images, batch_size=BATCH, shuffle=True)
    return lambda: (x.to(device) for x, _ in loader)


def _resident(device: torch.device) -> Callable[[], Iterator[Tensor]]:
    """Return a function that yields an epoch of batches out of one tensor on the device."""
    images = mnist().train.levels.to(device).float() / 255
    return lambda: (images[index] for index in torch.split(torch.randperm(len(images), device=device), BATCH))


@cache
def mnist() -> Data:
    """Return the MNIST images, which are read once."""
    return load_dataset("mnist")


def usual_loop(name: str, device: torch.device) -> Rung:
    """Return the rung of the loop variant called `name`."""
    steps = LOOP_VARIANTS[name].steps(device)

    def run() -> None:
        for _ in islice(steps, CHUNK):
            pass

    return Rung(name, partial(machine.timed, device, run), CHUNK)


def own_step(name: str, device: torch.device, lanes: int, execution: Execution) -> Rung:
    """Return the rung of this harness's own step for `lanes` trials."""
    specs = [TrialSpec(seed=s) for s in range(lanes)]
    cohort = Cohort(specs, mnist(), device, execution)
    # A call is a shortened epoch without its evaluation, long enough that the work done once per epoch does not count too much.
    steps = 4 * CHUNK if lanes == 1 else max(LEAST_STEPS, CHUNK // lanes)

    def run() -> None:
        if not cohort.run_steps(steps):
            raise RuntimeError(f"{name}: the loss is not finite")

    run()
    compile_s = cohort.compile_s if execution == "compiled" else None
    return Rung(name, partial(machine.timed, device, run), steps, lanes, compile_s)


def jax_peer(device: torch.device, threads: int, lanes: int = 1, steps: int = CHUNK) -> Peer:
    """Return a process that trains the same model on the same images with JAX, so many side by side, in chunks of so many steps."""
    images = mnist().train
    file = str(paths.data() / "MNIST" / "raw" / FILES[0])
    job = {"images": len(images), "layers": LAYERS, "batch": BATCH, "steps": steps, "rate": RATE, "lanes": lanes}
    return in_jax.peer(device.type, threads, file=file, **job)


def jax(device: torch.device, threads: int, stack: ExitStack) -> Rung:
    """Return the rung of the same steps in JAX, in a process of its own that ends with `stack`."""
    peer = stack.enter_context(jax_peer(device, threads))
    return Rung(JAX, lambda: Spent(*peer.call()), CHUNK, compile_s=peer.started["compile_s"])


def trainer_peer(name: str, device: torch.device, threads: int) -> Peer:
    """Return a process that trains with a library's trainer called `name`, an epoch of `EPOCH` steps a call."""
    job = {"name": name, "device": device.type, "threads": threads, "steps": EPOCH}
    return Peer(name, "trainer_peers", TRAINERS[name], {}, job)


def trainer(name: str, device: torch.device, threads: int, stack: ExitStack) -> Rung:
    """Return the rung of a library's trainer called `name`, in a process of its own that ends with `stack`."""
    peer = stack.enter_context(trainer_peer(name, device, threads))
    return Rung(name, lambda: Spent(*peer.call()), EPOCH)
