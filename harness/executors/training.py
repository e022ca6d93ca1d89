"""A job from its start, or its checkpoints, to its results: the one function behind all executors."""

import statistics
import time
import traceback
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from harness import devices, figures, metrics
from harness.data import Data, load_dataset
from harness.executors.interrupts import INTERRUPTS
from harness.executors.jobs import Epoch, Event, Failed, Finished, Job, Pruned
from harness.models.vae import parameters_of_one
from harness.spec import Result, TrialSpec
from harness.training.batches import Row
from harness.training.checkpoints import CheckpointError
from harness.training.cohort import Cohort

# Seconds between two checkpoints: writing the reference model's takes 0.05 s, so a kill costs little and safety 1 % of the time.
EVERY_S = 5.0
SHARE = 0.02  # of the time, at most, goes into writing: many lanes take longer, and then write less often
WRITERS = 8  # threads: 32 lanes take 0.8 s on two cores, one after another 1.7 s
TRY_AGAIN = (MemoryError, torch.OutOfMemoryError, OSError, CheckpointError)  # what the machine did, not the trial


class Store(Protocol):
    """Where checkpoints are: `harness.training.checkpoints.Checkpoints`."""

    def save(self, spec: TrialSpec, epoch: int, state: dict[str, Any]) -> None: ...

    def load(self, spec: TrialSpec, epoch: int) -> dict[str, Any]: ...


def train(job: Job, device: str, scratch: Path, checkpoints: Store, pruned: Collection[str] = frozenset()) -> Generator[Event]:
    """Train a job's trials and tell what happens. Their files go to `scratch`/<spec id>.

    A job that goes on from checkpoints first tells all epochs before again, so that whoever has lost some has them. Between an
    epoch's last row and the next epoch it drops the trials whose ids are in `dropped`, which whoever reads the events may fill.
    Closed, or ended by anything but a fault, it first saves the newest epoch border. A fault fails the trials that are left.

    Results are a function of the specs alone, to rounding: `compiled` and company change the order of sums.
    """
    left = {s.id for s in job.specs}
    training = None
    try:
        with INTERRUPTS.cutting_short():
            training = _Training(job, devices.device(device), checkpoints)
        for event in training.events(scratch, pruned):
            if not isinstance(event, Epoch):
                left.discard(event.spec)
            yield event
    except Exception as fault:  # whatever a trial raises fails that trial, with its reason; the study goes on
        where = traceback.extract_tb(fault.__traceback__)[-1]
        why = f"{type(fault).__name__}: {fault} ({Path(where.filename).name}:{where.lineno})"
        yield from (Failed(s.id, why, final=not isinstance(fault, TRY_AGAIN)) for s in job.specs if s.id in left)
    except BaseException:  # the reader closed it, or a signal ends the process
        if training is not None:
            with suppress(OSError):  # a full disk must not stand in the way of ending; the checkpoint before is kept
                training.save([s for s in training.cohort.specs if s.id in left and s.id not in pruned])
        raise


class _Training:
    """A job's cohort, and what its trials have shown so far."""

    def __init__(self, job: Job, where: torch.device, checkpoints: Store) -> None:
        self.job, self.where, self.checkpoints = job, where, checkpoints
        self.cohort = Cohort(job.specs, _data(job.specs[0].dataset), where, job.compiled)
        self.history: dict[str, list[Row]] = {s.id: [] for s in job.specs}
        self.throughput: dict[str, list[float]] = {s.id: [] for s in job.specs}  # images/s of one trial, by epoch
        self.trained_s = dict.fromkeys(self.history, 0.0)
        if job.start:
            kept = {s.id: checkpoints.load(s, job.start) for s in job.specs}
            self.cohort.restore([kept[s.id]["state"] for s in job.specs])
            for trial, state in kept.items():
                self.history[trial], self.throughput[trial] = state["history"], state["throughput"]
                self.trained_s[trial] = state["trained_s"]
        self.newest = self.cohort.training_state()
        self.saved = job.start
        self.next_save = time.monotonic() + EVERY_S

    def events(self, scratch: Path, pruned: Collection[str]) -> Iterator[Event]:
        """Tell what was trained before, train what is left of the epochs, then evaluate."""
        for epoch in range(1, self.job.start + 1):
            yield from (Epoch(trial, epoch, history[epoch - 1]) for trial, history in self.history.items())
        yield from self._prune(pruned)
        while self.cohort.specs and self.cohort.epoch < self.job.specs[0].epochs:
            failed = set(self.cohort.failures)
            rows = self._epoch()
            yield from (Failed(t, why, final=True) for t, why in self.cohort.failures.items() if t not in failed)
            yield from (Epoch(trial, self.cohort.epoch, row) for trial, row in rows.items())
            yield from self._prune(pruned)
            if time.monotonic() >= self.next_save:
                self.save(self.cohort.specs)
        for spec in self.cohort.specs:
            with INTERRUPTS.cutting_short():
                result = self._result(spec, scratch / spec.id)
            yield Finished(spec.id, result, scratch / spec.id)

    def _prune(self, pruned: Collection[str]) -> Iterator[Pruned]:
        gone = [s.id for s in self.cohort.specs if s.id in pruned]
        self.cohort.prune(gone)
        return map(Pruned, gone)

    def _epoch(self) -> dict[str, Row]:
        """One epoch, on record with what it took."""
        compile_s, started = self.cohort.compile_s, time.perf_counter()
        with INTERRUPTS.cutting_short():
            rows = self.cohort.run_epoch()
            newest = self.cohort.training_state()
        took = time.perf_counter() - started - (self.cohort.compile_s - compile_s)
        for trial, row in rows.items():
            self.history[trial].append(row)
            self.throughput[trial].append(row["perf/images_per_s"] / len(rows))
            self.trained_s[trial] += took
        self.newest = newest
        return rows

    def save(self, specs: Sequence[TrialSpec]) -> None:
        """Keep the newest border of these trials, unless it is kept already."""
        if self.saved == self.newest.epoch:
            return

        def keep(spec: TrialSpec) -> None:
            state = {
                "state": self.newest.snapshot(spec),
                "history": self.history[spec.id][: self.newest.epoch],
                "throughput": self.throughput[spec.id][: self.newest.epoch],
                "trained_s": self.trained_s[spec.id],
            }
            self.checkpoints.save(spec, self.newest.epoch, state)

        started = time.monotonic()
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(keep, specs))
        now = time.monotonic()
        self.saved, self.next_save = self.newest.epoch, now + max(EVERY_S, (now - started) / SHARE)

    def _result(self, spec: TrialSpec, files: Path) -> Result:
        """Score a trial that is trained, and write its files. `validation` has no pictures: they would show the test set."""
        vae, history, data = self.cohort.trained(spec), self.history[spec.id], self.cohort.data
        files.mkdir(parents=True, exist_ok=True)
        if spec.evaluation == "validation":
            scores = metrics.validate(spec, vae, data)
        else:
            evaluation = metrics.evaluate(spec, vae, data)
            scores = evaluation.scores
            subject = figures.Subject(spec, vae, _data(spec.dataset), evaluation, history)
            names = tuple(figures.FIGURES) if spec.id in self.job.draw_all_figures else figures.AT_A_GLANCE
            list(figures.draw(subject, files / "figures", names))
            arrays: dict[str, Any] = _pictures(subject)
            np.savez_compressed(files / "pictures.npz", **arrays)
        torch.save({k: v.cpu() for k, v in vae.state_dict().items()}, files / "state_dict.pt")
        cost = {
            "perf/train_s": self.trained_s[spec.id],
            "perf/throughput": statistics.median(self.throughput[spec.id]),
            "perf/step_ms": statistics.median(row["perf/step_ms_p50"] for row in history),
            "perf/compiled": float(self.job.compiled),
            "perf/compile_s": self.cohort.compile_s,
            "perf/peak_memory_mib": devices.peak_memory_mib(self.where),
            "model/parameters": parameters_of_one(vae),
        }
        return Result(spec, scores | _late_gain(history) | cost)


def _late_gain(history: Sequence[Row]) -> dict[str, float]:
    """What the last fifth of the epochs brought, in nats of ELBO: much of it means that training was cut short."""
    if len(history) < 2:
        return {}
    split = "validation" if "elbo/validation" in history[-1] else "train"
    then, now = (history[i][f"elbo/{split}"] for i in (-1 - max(1, len(history) // 5), -1))
    return {"diagnostics/late_gain": now - then}


@cache
def _data(name: str) -> Data:
    return load_dataset(name, say=lambda _: None)


def _pictures(subject: figures.Subject) -> dict[str, np.ndarray]:
    """What a study's report shows of a trial: reconstructions of one test image a class, latents of some, samples."""
    test, labels = subject.evaluation.test, subject.data.test.labels
    shown = figures.examples(labels)
    points = figures.scatter_points(labels)
    z = torch.randn(16, subject.spec.latent, generator=torch.Generator().manual_seed(0))
    i, j = figures.axes_to_show(subject.evaluation)
    return {
        "original": subject.data.test.levels[shown].cpu().numpy(),
        "reconstruction": _bytes(test.image[shown].cpu().numpy()),
        "samples": _bytes(figures.decode(subject.vae, z, subject.data.side)),
        "latents": test.mean.cpu()[points][:, [i, j]].numpy(),
        "labels": labels[points].numpy().astype(np.uint8),
    }


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)
