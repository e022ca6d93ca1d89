"""The training step traced with every tensor on a pretended GPU, on a machine without one and without a compiler.

    python tests/helpers/pretended_gpu.py

prints one JSON line per case, {"case": name, "faults": [...]}: what of its step a CUDA graph could not capture. Tensors have shapes
and a device but no values. It needs a process of its own, because torch keeps the name of the pretended device for good.
"""

import json
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tables import ACTIVATIONS, LIKELIHOODS, NETWORKS, OBJECTIVES, OPTIMIZERS
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

import harness
from harness import catalog, paths
from harness.models.activations import gain
from harness.models.objectives import Objective
from harness.models.vae import Pass, side_by_side
from harness.spec import CHUNK, TrialSpec
from harness.training import optimizers
from harness.training.batches import noisy
from harness.training.extras import Extras
from harness.training.step import Chunk, LaneConstants, StepConfig, flat, trace

GPU = "gpu"  # the name of the pretended device
IMAGES, PIXELS = 50_000, 784  # of (1, 28, 28)
LANES = (1, 4)
FORBIDDEN = ("_local_scalar_dense", "nonzero", "lift_fresh")  # operators that read a value back, or copy one from the host
PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")  # operators that autocast computes in bfloat16


def one_of_each() -> list[TrialSpec]:
    """Return a trial for every entry of every table that a step is made of, and for every precision."""
    return [
        *(TrialSpec(likelihood=name) for name in LIKELIHOODS),
        *(TrialSpec(activation=name) for name in ACTIVATIONS),
        *(TrialSpec(objective=name, num_samples=5) for name in OBJECTIVES),
        *(TrialSpec(network=name) for name in NETWORKS),
        *(TrialSpec(optimizer=name, weight_decay=0.1) for name in OPTIMIZERS),
        *(TrialSpec(precision=name) for name in catalog.names("precision")),
        TrialSpec(clip_norm=1.0, ema_decay=0.999),
    ]


def mixes() -> dict[str, list[TrialSpec]]:
    """Return the trials of different activations, and of different likelihoods of equally many outputs, that share one program."""
    by_outputs: dict[int, list[TrialSpec]] = {}
    for name, likelihood in LIKELIHOODS.items():
        by_outputs.setdefault(likelihood.outputs, []).append(TrialSpec(likelihood=name))
    return {
        "all activations": [TrialSpec(activation=name) for name in ACTIVATIONS],
        **{f"all likelihoods with outputs={n}": specs for n, specs in by_outputs.items() if len(specs) > 1},
    }


def cases() -> dict[str, list[TrialSpec]]:
    """Return the trials that share a step, one per lane, by the name of the case."""
    default = TrialSpec().as_dict()
    found = {}
    for spec in one_of_each():
        changes = {name: value for name, value in spec.as_dict().items() if value != default[name]}
        name = " ".join(f"{field}={value}" for field, value in changes.items()) or "default"
        found |= {f"{name}, lanes={lanes}": [spec.derive(seed=seed) for seed in range(lanes)] for lanes in LANES}
    return found | mixes() | {f"code of the user's own, lanes={lanes}": own(lanes) for lanes in LANES}


def own(lanes: int) -> list[TrialSpec]:
    """Return trials of a likelihood and a network that are a user's own, one per lane."""
    examples = paths.PROJECT / "examples"
    spec = TrialSpec(
        likelihood=f"{examples}/own_likelihood/losses.py:StudentT", network=f"{examples}/own_network/networks.py:conv", latent=4
    )
    return [spec.derive(seed=seed) for seed in range(lanes)]


# -------------------------------------------------------------------------------- planted faults


def planted() -> dict[str, tuple[Objective, str]]:
    """Return objectives that do what a step must not, by the fault's name, each with the words by which it has to be found."""
    return {
        "a tensor on the CPU": (after_elbo(lambda p: torch.ones(())), "on the cpu"),
        "tensors of two devices": (after_elbo(lambda p: torch.ones(len(p.z))), "devices"),
        "a value that is read back": (after_elbo(lambda p: p.z.sum().item()), "_local_scalar_dense"),
        "a condition on a value": (after_elbo(lambda p: 2.0 if p.z.sum() > 0 else 1.0), "_local_scalar_dense"),
        "a shape that depends on values": (after_elbo(lambda p: p.z[p.z > 0].sum()), "nonzero"),
        "a literal on the host": (after_elbo(lambda p: torch.tensor(0.5)), "host literal"),
    }


def after_elbo(factor: Callable[[Pass], Any]) -> Objective:
    """Return the ELBO times a factor."""
    return lambda p, beta, free_bits: OBJECTIVES["elbo"](p, beta, free_bits) * factor(p)


# -------------------------------------------------------------------------------- the pretended device


class _Backend(_DummyBackendModule):
    """What torch asks a device's module for; the dummy has no autocast."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


@cache
def pretend() -> tuple[torch.library.Library, ...]:
    """Make the pretended device known to torch, and return the definitions of its autocast, which last as long as they are kept."""
    _setup_privateuseone_for_python_backend(GPU, backend_module=_Backend())
    others, products = (torch.library.Library(of, "IMPL", "AutocastPrivateUse1") for of in ("_", "aten"))
    others.fallback(torch.library.fallthrough_kernel)
    for name in PRODUCTS:
        products.impl(name, _in_bfloat16(getattr(torch, name)))
    for name in ACTIVATIONS:
        gain(name)  # cached, because it reads a value, which no pretended tensor has
    return others, products


def _in_bfloat16(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a matrix product as autocast takes it."""

    def cast(*tensors: Tensor, **options: Any) -> Tensor:
        with torch.autocast(GPU, enabled=False):
            return product(*(t.bfloat16() if t.dtype == torch.float32 else t for t in tensors), **options)

    return cast


def traced(specs: Sequence[TrialSpec], objective: Objective | None = None) -> tuple[GraphModule, list[Tensor]]:
    """Return the graph of a step of these trials, one per lane, on the pretended device, and the tensors it takes."""
    shape, lanes = specs[0], len(specs)
    optimizer, extras = OPTIMIZERS[shape.optimizer], Extras.of(specs)
    with FakeTensorMode() as mode, torch.device(GPU):
        vae = side_by_side(specs, (1, 28, 28))
        params = list(vae.parameters())
        state = (params, *optimizers.start(optimizer, params, extras.slots).slots.values())
        rates = torch.zeros(CHUNK, lanes)
        chunk = Chunk(
            batch=torch.zeros(CHUNK, lanes, shape.batch_size, dtype=torch.long),
            eps=torch.zeros(CHUNK, lanes, shape.num_samples, shape.batch_size, shape.latent),
            u=torch.zeros(CHUNK, lanes, *((shape.batch_size, PIXELS) if any(map(noisy, specs)) else (1, 1))),
            beta=torch.zeros(CHUNK, lanes),
            learning_rate=rates,
            factors=torch.cat((optimizer.factors(torch.arange(1, CHUNK + 1), rates), torch.zeros(CHUNK, sum(extras), lanes)), 1),
            history=torch.zeros(CHUNK, 3, lanes),
        )
        levels = torch.zeros(IMAGES, PIXELS, dtype=torch.uint8)
        constants = LaneConstants(levels=levels, weight_decay=torch.zeros(lanes), free_bits=torch.zeros(lanes))
        at = torch.zeros(1, dtype=torch.long)
    config = StepConfig(vae, objective or OBJECTIVES[shape.objective], optimizer, shape.precision, extras)
    with mode, warnings.catch_warnings():  # a tensor that the step makes is on the CPU again if the step does not say where
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # the step compares addresses of its images
        return trace(config, state, constants, chunk, at), flat(state, constants, chunk, at)


# -------------------------------------------------------------------------------- what is wrong with a step


def faults(specs: Sequence[TrialSpec], objective: Objective | None = None) -> list[str]:
    """Return in words what a CUDA graph could not capture of a step of these trials."""
    try:
        graph, _ = traced(specs, objective)
    except Exception as error:  # any: tracing stops at the first fault, with an error of the operation that met it
        return [f"{type(error).__name__}: {error} (at {_place(error)})"]
    return [fault for node in graph.graph.nodes for fault in _faults_of(node)]


def _place(error: Exception) -> str:
    """Return the innermost line of the product that raised an error."""
    lines = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(Path(harness.__file__).parent)]
    return f"{Path(lines[-1].filename).name}:{lines[-1].lineno}" if lines else "no line of the product"


def _faults_of(node: Node) -> Iterable[str]:
    """Return in words what is wrong with one operation of a graph."""
    if node.op == "get_attr":
        yield f"{node.name} is a host literal"
    if any(word in str(node.target) for word in FORBIDDEN):
        yield f"{node.name} is {node.target}"
    values = [t for t in tree_leaves(node.meta.get("val")) if isinstance(t, Tensor)]
    if device := next((t.device for t in values if t.device.type != GPU), None):
        yield f"{node.name} ({node.target}) is on the {device}"


def main() -> None:
    """Print a line for every case and for every planted fault."""
    pretend()
    named: Mapping[str, tuple[list[TrialSpec], Objective | None]] = {
        **{name: (specs, None) for name, specs in cases().items()},
        **{name: ([TrialSpec()], objective) for name, (objective, _) in planted().items()},
    }
    for name, (specs, objective) in named.items():
        print(json.dumps({"case": name, "faults": faults(specs, objective)}), flush=True)


if __name__ == "__main__":
    main()
