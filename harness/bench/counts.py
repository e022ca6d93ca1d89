"""What a training step does, counted: free of noise, so any change shows. Held against tests/bench/counts.json."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.fx.proxy import TraceError
from torch.multiprocessing.reductions import StorageWeakRef
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from harness import devices, paths
from harness.data import Data, Split
from harness.models.vae import parameters_of_one
from harness.spec import TrialSpec
from harness.training import step
from harness.training.batches import BatchStream
from harness.training.cohort import Cohort

COUNTED = ("bce", "bernoulli", "gaussian_shared", "continuous_bernoulli", "discretized_logistic")
STEPS = 4  # of the longer run; the data set has one batch for each
TOLERANCE = {"peak_bytes": 0.01}  # all else is exact

Counts = dict[str, dict[str, int]]


class Meter(TorchDispatchMode):
    """Counts aten operations, and the most bytes held at once by tensors made under it."""

    def __init__(self) -> None:
        super().__init__()
        self.ops = self.peak = 0
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.ops += 1
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and (storage := t.untyped_storage())._cdata not in given:
                self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.live = {k: (ref, size) for k, (ref, size) in self.live.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return out


def count(likelihood: str, device: str = "cpu") -> dict[str, int]:
    """Counts of the reference model's step: what one more step in a chunk adds, so that the chunk's own costs stay out.

    aten_ops, flops: of one step. parameters: of one trial. peak_bytes: of tensors made during a chunk of a few steps.
    graph_breaks, graph_ops: of the step as the one graph that is compiled. On an accelerator also kernels (copies among them) and
    synchronisations of one step.
    """
    where = devices.device(device)
    cohort = Cohort([TrialSpec(likelihood=likelihood)], _noise(), where)

    def run(steps: int) -> None:
        assert cohort.run_steps(steps), "training met a value that is not finite"

    def metered(steps: int) -> Meter:
        with Meter() as meter:
            run(steps)
        return meter

    def flops(steps: int) -> int:
        with FlopCounterMode(display=False) as counter:
            run(steps)
        return counter.get_total_flops()

    run(STEPS)
    long, short = metered(STEPS), metered(STEPS // 2)
    found = {
        "aten_ops": _per_step(long.ops, short.ops),
        "flops": _per_step(flops(STEPS), flops(STEPS // 2)),
        "parameters": parameters_of_one(cohort.vae),
        "peak_bytes": long.peak,
    }
    if where.type != "cpu":
        kernels, waits = zip(_profiled(run, STEPS), _profiled(run, STEPS // 2), strict=True)
        found |= {"kernels": _per_step(*kernels), "synchronisations": _per_step(*waits)}
    return found | _graph(cohort)


def _graph(cohort: Cohort) -> dict[str, int]:
    """Operations of the whole step traced as one graph, the program that is compiled, and 1 break where it cannot be traced."""
    stream = BatchStream(cohort.lanes, cohort.levels, cohort.steps_per_epoch, epoch=0)
    chunk = stream.chunk(range(1), cohort.config.optimizer, whole=False)
    constant = step.LaneConstants(cohort.levels, cohort.weight_decay, cohort.free_bits)
    state = (cohort.params, *cohort.state.slots.values())
    try:
        graph = step.trace(cohort.config, state, constant, chunk, torch.zeros(1, dtype=torch.long, device=cohort.device))
    except (RuntimeError, TraceError):
        return {"graph_breaks": 1}
    return {"graph_breaks": 0, "graph_ops": sum(node.op == "call_function" for node in graph.graph.nodes)}


def _per_step(long: int, short: int) -> int:
    return (long - short) // (STEPS - STEPS // 2)


def _profiled(run: Callable[[int], None], steps: int) -> tuple[int, int]:
    """Kernels and synchronisations of a chunk."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run(steps)
    events = seen.events() or []
    kernels = sum(e.device_type.name != "CPU" for e in events)
    return kernels, sum("Synchronize" in e.name for e in events)


def _noise() -> Data:
    images = STEPS * TrialSpec().batch_size
    levels = torch.randint(0, 256, (images, 784), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    train, validation, test = (Split(n, levels, torch.zeros(images).long()) for n in ("train", "validation", "test"))
    return Data(name="noise", side=28, train=train, validation=validation, test=test, digest="")


# -------------------------------------------------------------------------------- the file


def file() -> Path:
    """The counts on record, checked in."""
    return paths.PROJECT / "tests" / "bench" / "counts.json"


def key(device: str = "cpu") -> str:
    """Under what the counts of this device and this torch stand in the file: kernels differ between releases."""
    return f"{devices.device(device).type}, torch {'.'.join(torch.__version__.split('.')[:2])}"


def count_all(device: str = "cpu") -> Counts:
    """Counts by likelihood."""
    return {likelihood: count(likelihood, device) for likelihood in COUNTED}


def on_record() -> dict[str, Counts]:
    """What the file holds, by key."""
    return json.loads(file().read_text(encoding="utf-8")) if file().exists() else {}


def changes(now: Counts, before: Counts) -> list[str]:
    """Every count that differs (peak bytes: by more than 1 %), or that only one side has, in words."""
    lines = []
    for likelihood in sorted(now.keys() | before.keys()):
        ours, theirs = now.get(likelihood, {}), before.get(likelihood, {})
        for name in sorted(ours.keys() | theirs.keys()):
            new, old = ours.get(name), theirs.get(name)
            if new is None or old is None or abs(new - old) > TOLERANCE.get(name, 0) * old:
                lines.append(f"{likelihood}: {name} {_words(old)} -> {_words(new)}")
    return lines


def _words(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"


def report(console: Console, device: str = "cpu") -> bool:
    """Say how today's counts stand to the file. True if they changed."""
    before = on_record().get(key(device))
    if before is None:
        console.print(
            f"counts: NOT CHECKED, {file().name} has no entry for {key(device)} (it has: {'; '.join(on_record()) or 'none'})\n"
            "`harness bench counts --refresh` writes one",
            highlight=False,
            markup=False,
        )
        return False
    lines = changes(count_all(device), before)
    for line in lines:
        console.print(f"counts: CHANGED {line}", highlight=False, markup=False)
    if lines:
        console.print("if that is meant, refresh the file with `harness bench counts --refresh`", highlight=False, markup=False)
    else:
        console.print(f"counts: unchanged ({len(before)} likelihoods; {key(device)})", highlight=False, markup=False)
    return bool(lines)


def refresh(device: str = "cpu") -> Path:
    """Write today's counts of this device and this torch into the file; other entries stay."""
    whole = on_record() | {key(device): count_all(device)}
    fresh = file().with_suffix(".fresh")
    fresh.write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(fresh, file())
    return file()
