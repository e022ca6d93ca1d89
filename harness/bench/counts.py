"""Counts of what a training step does, free of noise, so that any change shows. They are held against tests/bench/counts.json."""

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

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
from harness.kernels import library
from harness.models.vae import parameters_of_one
from harness.spec import TrialSpec
from harness.training import step
from harness.training.batches import BatchStream
from harness.training.cohort import Cohort

COUNTED = ("bce", "bernoulli", "gaussian_shared", "continuous_bernoulli", "discretized_logistic")
STEPS = 4  # of the longer run; the data set has one batch for each step
TOLERANCE = {"peak_bytes": 0.01}  # relative; all other counts are exact
BY_HAND = ("by_hand_calls", "by_hand_ops")

Counts = dict[str, dict[str, int]]


class Meter(TorchDispatchMode):
    """A mode that counts aten operations, and the most bytes held at once by tensors made under it.

    Attributes:
        ops: the number of operations.
        peak: the most bytes.
        live: the storages that are held, with their bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch.utils._python_dispatch leaves it untyped
        self.ops = self.peak = 0
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.ops += 1
        inputs = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and (storage := t.untyped_storage())._cdata not in inputs:
                self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.live = {k: (ref, size) for k, (ref, size) in self.live.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return out


def count(likelihood: str, device: str = "cpu") -> dict[str, int]:
    """Return the counts of the reference model's step: what one more step in a chunk adds, without the chunk's own costs.

    aten_ops, flops: of one step. parameters: of one trial. peak_bytes: of tensors made during a chunk of a few steps.
    graph_breaks, graph_ops: of the step as the one graph that is compiled. On a CPU with native kernels also by_hand_calls and
    by_hand_ops: calls of kernels and of aten operations by one step whose backward pass is written out. On an accelerator also
    kernels (copies among them) and synchronisations of one step.
    """
    torch_device = devices.named(device)
    cohort = Cohort([TrialSpec(likelihood=likelihood)], _noise(), torch_device)

    def run(steps: int) -> None:
        assert cohort.run_steps(steps), "training met a value that is not finite"

    def flops(steps: int) -> int:
        with FlopCounterMode(display=False) as counter:
            run(steps)
        return int(counter.get_total_flops())

    run(STEPS)
    long, short = _metered(run, STEPS), _metered(run, STEPS // 2)
    counts = {
        "aten_ops": _per_step(long.ops, short.ops),
        "flops": _per_step(flops(STEPS), flops(STEPS // 2)),
        "parameters": parameters_of_one(cohort.vae),
        "peak_bytes": long.peak,
    }
    if torch_device.type != "cpu":
        kernels, waits = zip(_profiled(run, STEPS), _profiled(run, STEPS // 2), strict=True)
        counts |= {"kernels": _per_step(*kernels), "synchronisations": _per_step(*waits)}
    elif (native := library.load()) is not None:
        counts |= _by_hand(likelihood, native)
    return counts | _graph(cohort)


def _by_hand(likelihood: str, native: library.Library) -> dict[str, int]:
    """Return the counts of the step whose backward pass is written out."""
    calls: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            calls[name] += 1
            getattr(native, name)(*arguments)

        return call

    functions: dict[str, Any] = {name: counted(name) for name in library.SIGNATURES}
    with patch.object(library, "load", lambda: replace(native, **functions)):
        cohort = Cohort([TrialSpec(likelihood=likelihood)], _noise(), torch.device("cpu"), "manual")

        def run(steps: int) -> None:
            calls.clear()
            assert cohort.run_steps(steps), "training met a value that is not finite"

        run(STEPS)
        (long, many), (short, few) = ((_metered(run, steps), calls.total()) for steps in (STEPS, STEPS // 2))
    return dict(zip(BY_HAND, (_per_step(many, few), _per_step(long.ops, short.ops)), strict=True))


def _metered(run: Callable[[int], None], steps: int) -> Meter:
    """Return the meter of so many steps."""
    meter = Meter()
    with meter:
        run(steps)
    return meter


def _graph(cohort: Cohort) -> dict[str, int]:
    """Return the operations of the whole step traced as one graph, as it is compiled; or 1 break if it cannot be traced."""
    stream = BatchStream(cohort.lanes, cohort.levels, cohort.steps_per_epoch, 0, cohort.config.optimizer)
    chunk = next(stream.chunks(1, whole=False))
    constant = step.LaneConstants(cohort.levels, cohort.weight_decay, cohort.free_bits)
    state = (cohort.params, *cohort.state.slots.values())
    try:
        graph = step.trace(cohort.config, state, constant, chunk, torch.zeros(1, dtype=torch.long, device=cohort.device))
    except (RuntimeError, TraceError):
        return {"graph_breaks": 1}
    return {"graph_breaks": 0, "graph_ops": sum(node.op == "call_function" for node in graph.graph.nodes)}


def _per_step(long: int, short: int) -> int:
    """Return what one step costs, from the counts of a long and a short run."""
    return (long - short) // (STEPS - STEPS // 2)


def _profiled(run: Callable[[int], None], steps: int) -> tuple[int, int]:
    """Return the kernels and synchronisations of a chunk."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run(steps)
    events = profiler.events() or []
    kernels = sum(e.device_type.name != "CPU" for e in events)
    return kernels, sum("Synchronize" in e.name for e in events)


def _noise() -> Data:
    """Return a data set of noise with one batch per step."""
    images = STEPS * TrialSpec().batch_size
    levels = torch.randint(0, 256, (images, 784), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    train, validation, test = (Split(n, levels, torch.zeros(images).long()) for n in ("train", "validation", "test"))
    return Data(name="noise", image_shape=(1, 28, 28), train=train, validation=validation, test=test, digest="")


# -------------------------------------------------------------------------------- the file


def file(project: Path = paths.PROJECT) -> Path:
    """Return the path of a checkout's counts on record, which are checked in."""
    return project / "tests" / "bench" / "counts.json"


def key(device: str = "cpu") -> str:
    """Return the key of the counts of this device and this version of torch.

    They have counts of their own because kernels differ between releases.
    """
    return f"{devices.named(device).type}, torch {'.'.join(torch.__version__.split('.')[:2])}"


def count_all(device: str = "cpu", likelihoods: Sequence[str] = COUNTED) -> Counts:
    """Return the counts by likelihood."""
    return {name: count(name, device) for name in likelihoods}


def on_record(path: Path | None = None) -> dict[str, Counts]:
    """Return the counts on record, by key; `path` is a file of its own, as in `report` and `refresh`."""
    path = path or file()
    counts: dict[str, Counts] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return counts


def changes(now: Counts, before: Counts) -> list[str]:
    """Return in words every count that differs (peak bytes: by more than 1 %), or that only one side has."""
    lines = []
    for of in sorted(now.keys() | before.keys()):
        now_of, before_of = now.get(of, {}), before.get(of, {})
        for name in sorted(now_of.keys() | before_of.keys()):
            new, old = now_of.get(name), before_of.get(name)
            if new is None or old is None or abs(new - old) > TOLERANCE.get(name, 0) * old:
                lines.append(f"{of}: {name} {_words(old)} -> {_words(new)}")
    return lines


def _words(value: int | None) -> str:
    """Return a count as text."""
    return "none" if value is None else f"{value:,}"


def report(console: Console, device: str = "cpu", path: Path | None = None, likelihoods: Sequence[str] = COUNTED) -> bool:
    """Print how today's counts compare to the file. Return True if they have changed."""
    path = path or file()
    before = on_record(path).get(key(device))
    if before and any(name in counts for counts in before.values() for name in BY_HAND) and library.load() is None:
        console.print(f"counts: of the step by hand NOT CHECKED, {library.fault()}", highlight=False, markup=False)
        before = {of: {name: n for name, n in counts.items() if name not in BY_HAND} for of, counts in before.items()}
    if before is None:
        console.print(
            f"counts: NOT CHECKED, {path.name} has no entry for {key(device)} (it has: {'; '.join(on_record(path)) or 'none'})\n"
            "`harness bench counts --refresh` writes one",
            highlight=False,
            markup=False,
        )
        return False
    lines = changes(count_all(device, likelihoods), before)
    for line in lines:
        console.print(f"counts: CHANGED {line}", highlight=False, markup=False)
    if lines:
        console.print("if that is meant, refresh the file with `harness bench counts --refresh`", highlight=False, markup=False)
    else:
        console.print(f"counts: unchanged ({len(before)} likelihoods; {key(device)})", highlight=False, markup=False)
    return bool(lines)


def refresh(device: str = "cpu", path: Path | None = None, likelihoods: Sequence[str] = COUNTED) -> Path:
    """Write today's counts of this device and this version of torch into the file and return its path. Other entries stay."""
    path = path or file()
    whole = on_record(path) | {key(device): count_all(device, likelihoods)}
    fresh = path.with_suffix(".fresh")
    fresh.write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(fresh, path)
    return path
