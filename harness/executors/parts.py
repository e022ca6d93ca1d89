"""The parts of a job: trials that train together, from the beginning or their states to their results."""

import json
import statistics
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from harness import devices
from harness.data import Data
from harness.errors import DataError, UserError
from harness.executors import stints
from harness.executors.evaluation import Subject, dataset, evaluate
from harness.executors.interrupts import INTERRUPTS
from harness.executors.jobs import Epoch, Event, Failed, Finished, Job, Notice, Pruned, Trained
from harness.executors.snapshots import Snapshots
from harness.kernels import library
from harness.models.vae import parameters_of_one
from harness.scores import NotFiniteError, finite
from harness.scores.rows import IMAGES_PER_S, STEP_MS_P50, TRAIN_S
from harness.spec import EXECUTION, Result, TrialSpec
from harness.training.batches import Row, likely_cause
from harness.training.cohort import Cohort
from harness.training.extras import AVERAGE

WRITERS = 8  # threads: 32 lanes take 0.8 s on two cores, one after another 1.7 s


@dataclass(frozen=True)
class Saving:
    """How often a job's checkpoints are written.

    Attributes:
        every_s: the seconds between two checkpoints. The reference model's takes 0.05 s to write, so a kill costs little and safety
            1 % of the time.
        share: the largest share of the time that goes into writing: many lanes take longer, and then write less often.
    """

    every_s: float = 5.0
    share: float = 0.02


SAVING = Saving()


class CheckpointStore(Protocol):
    """A place to keep checkpoints, such as `harness.training.checkpoints.Checkpoints`."""

    def save(self, spec: TrialSpec, epoch: int, state: dict[str, Any]) -> None:
        """Keep the state of a trial after `epoch` epochs."""

    def load(self, spec: TrialSpec, epoch: int) -> dict[str, Any]:
        """Return the state that was saved of a trial after `epoch` epochs.

        Raises:
            CheckpointError: there is none that can be used.
        """


@dataclass(frozen=True)
class Part:
    """Some of a job's trials, which train together.

    Attributes:
        job: the job with these trials only.
        states: their states to go on from by spec id, as in checkpoints; empty if these are to be loaded.
        again: True if the rows of the epochs before are to be yielded again.
    """

    job: Job
    states: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    again: bool = True

    def of(self, specs: Sequence[TrialSpec], states: Mapping[str, dict[str, Any]]) -> "Part":
        """Return the part with these trials, which go on from `states` if there are any."""
        if not states:
            kept = {s.id: self.states[s.id] for s in specs if s.id in self.states}
            return replace(self, job=replace(self.job, specs=tuple(specs)), states=kept)
        own = {s.id: states[s.id] for s in specs}
        start = own[specs[0].id]["state"]["epoch"]
        return Part(replace(self.job, specs=tuple(specs), start=start), own, again=False)


class PartTraining:
    """The cohort of a part of a job, and the numbers of its trials so far.

    Attributes:
        part: the part.
        job: the part's job.
        device: the device that it trains on.
        checkpoints: the store of checkpoints.
        saving: how often checkpoints are saved.
        lacking: why this machine cannot take the job's steps as the driver wants them; empty if it can.
        cohort: the trials in training.
        history: the rows of all epochs by spec id.
        throughput: the images per second of one trial, for each epoch, by spec id.
        trained_s: the seconds that the epochs took by spec id, without compiling.
        cost: what else the training took, by metric key.
        snapshots: the pictures of its trials at a few epochs.
        stint: the facts of the training in this process.
        earlier: the stints before, of other processes or other lanes, by spec id.
        newest: the training state at the end of the newest epoch.
        saved: the number of epochs that the newest checkpoints have.
        next_save: the time of the next checkpoints, in seconds of the monotonic clock.
    """

    def __init__(self, part: Part, device: torch.device, checkpoints: CheckpointStore, saving: Saving) -> None:
        self.part, self.job, self.device, self.checkpoints, self.saving = part, part.job, device, checkpoints, saving
        job = part.job
        devices.reset_peak_memory(device)
        # The driver has chosen for its own machine, and this one may have neither the kernels nor a compiler.
        self.lacking = library.fault() if job.execution == "manual" else ""
        self.cohort = Cohort(job.specs, _images_of(job), device, "eager" if self.lacking else job.execution)
        self.history: dict[str, list[Row]] = {s.id: [] for s in job.specs}
        self.throughput: dict[str, list[float]] = {s.id: [] for s in job.specs}
        self.trained_s = dict.fromkeys(self.history, 0.0)
        self.cost = self._cost_so_far()
        self.snapshots = Snapshots(job)
        self.stint = stints.begun(job.specs, device, self.cohort.execution, job.start)
        self.earlier: dict[str, list[dict[str, Any]]] = {s.id: [] for s in job.specs}
        if job.start:
            states = {s.id: part.states.get(s.id) or checkpoints.load(s, job.start) for s in job.specs}
            self.cohort.restore([states[s.id]["state"] for s in job.specs])
            for trial, state in states.items():
                self.history[trial], self.throughput[trial] = list(state["history"]), list(state["throughput"])
                self.trained_s[trial], self.cost = state["trained_s"], state["cost"]
                self.earlier[trial] = list(state["stints"])
                self.snapshots.restore(trial, state["pictures"])
        self.newest = self.cohort.training_state()
        self.saved = 0 if part.states else job.start
        self.next_save = time.monotonic() + saving.every_s

    def events(self, scratch: Path, pruned: Collection[str]) -> Iterator[Event]:
        """Yield the rows of the epochs before, train the epochs that are left, then evaluate the trials one after another."""
        for epoch in range(1, self.job.start + 1) if self.part.again and self.job.part != "evaluate" else ():
            yield from _rows(epoch, {trial: rows[epoch - 1] for trial, rows in self.history.items() if epoch <= len(rows)})
        yield from self._prune(pruned)
        yield from self._end_stopped(scratch)
        if self.lacking and self.cohort.specs:
            yield Notice(self.job.specs[0].id, f"by torch's operations, no native kernels: {self.lacking}")
        told = False
        while self.cohort.specs and self.cohort.epoch < self.job.specs[0].epochs:
            failed = set(self.cohort.failures)
            rows = self._epoch()
            if self.cohort.compiler_fault and not told:
                yield Notice(self.job.specs[0].id, f"not compiled, the compiler failed: {self.cohort.compiler_fault}")
                told = True
            yield from (Failed(t, why, final=True) for t, why in self.cohort.failures.items() if t not in failed)
            yield from _rows(self.cohort.epoch, rows)
            yield from self._prune(pruned)
            yield from self._end_stopped(scratch)
            if time.monotonic() >= self.next_save:
                self.save(self.cohort.specs)
        if self.job.part == "train":
            with INTERRUPTS.cutting_short():
                self.save(self.cohort.specs)
            yield from (Trained(spec.id) for spec in self.cohort.specs)
        else:
            yield from self._evaluate(self.cohort.specs, scratch)

    def _end_stopped(self, scratch: Path) -> Iterator[Event]:
        """Evaluate the trials that have stopped early, or save them as after their last epoch for whoever evaluates them."""
        while self.cohort.patience.stopped:
            spec = self.cohort.patience.stopped[0]
            if self.job.part == "train":
                with INTERRUPTS.cutting_short():
                    self.checkpoints.save(spec, spec.epochs, self._state(spec, spec.epochs))
                yield Trained(spec.id)
            else:
                yield from self._evaluate([spec], scratch)
            self.cohort.patience.stopped.remove(spec)

    def _evaluate(self, specs: Sequence[TrialSpec], scratch: Path) -> Iterator[Event]:
        """Evaluate trials one after another and yield their results."""
        for spec in specs:
            try:
                with INTERRUPTS.cutting_short():
                    result = self._result(spec, scratch / spec.id)
            except NotFiniteError as fault:  # of this trial alone: those beside it have results
                yield Failed(spec.id, f"not finite after the last epoch ({spec.epochs}): {fault}; {likely_cause(spec)}", final=True)
            except UserError as fault:  # a score of the user's own that breaks its contract with this model
                yield Failed(spec.id, str(fault), final=True)
            else:
                yield Finished(spec.id, result, scratch / spec.id)

    def _prune(self, pruned: Collection[str]) -> Iterator[Pruned]:
        """Give up the trials whose ids are in `pruned`, and return their events."""
        ids = [s.id for s in (*self.cohort.specs, *self.cohort.patience.stopped) if s.id in pruned]
        self.cohort.prune(ids)
        return map(Pruned, ids)

    def _epoch(self) -> dict[str, Row]:
        """Train one epoch, record its rows and times, and return the rows by spec id."""
        compile_s, started = self.cohort.compile_s, time.perf_counter()
        with INTERRUPTS.cutting_short():
            rows = self.cohort.run_epoch()
            newest = self.cohort.training_state()
        seconds = time.perf_counter() - started - (self.cohort.compile_s - compile_s)
        for trial, row in rows.items():
            self.history[trial].append(row)
            self.throughput[trial].append(row[IMAGES_PER_S.key] / len(rows))
            self.trained_s[trial] += seconds
        self.cost = self._cost_so_far()
        self.newest = newest
        for spec in self.cohort.specs:
            if self.snapshots.wants(spec, newest.epoch):
                self.snapshots.take(spec, newest.epoch, self.cohort.trained(spec), self.cohort.data)
        return rows

    def _cost_so_far(self) -> dict[str, float]:
        """Return what the whole program has cost, by metric key."""
        return {
            "perf/compiled": float(self.cohort.compiled),
            "perf/compile_s": self.cohort.compile_s,
            "perf/peak_memory_mib": devices.peak_memory_mib(self.device),
        }

    def states(self, specs: Sequence[TrialSpec]) -> dict[str, dict[str, Any]]:
        """Return the states of these trials at the end of the newest epoch by spec id, on the CPU; none before the first epoch."""
        return {s.id: self._state(s) for s in specs} if self.newest.epoch else {}

    def _state(self, spec: TrialSpec, epoch: int | None = None) -> dict[str, Any]:
        """Return the state of one trial at the end of the newest epoch, which a checkpoint keeps: as that of `epoch`, if given."""
        return {
            "images": self.cohort.data.digest,
            "state": self.newest.snapshot(spec) | ({"epoch": epoch} if epoch else {}),
            "history": self.history[spec.id][: self.newest.epoch],
            "throughput": self.throughput[spec.id][: self.newest.epoch],
            "trained_s": self.trained_s[spec.id],
            "cost": self.cost,
            "stints": self._stints(spec),
            "pictures": self.snapshots.until(spec.id, self.newest.epoch),
        }

    def _stints(self, spec: TrialSpec) -> list[dict[str, Any]]:
        """Return the stints of a trial up to the end of the newest epoch, the last one of this process if it trained any."""
        if self.newest.epoch == self.stint["from_epoch"]:
            return self.earlier[spec.id]
        return [*self.earlier[spec.id], stints.ended(self.stint, self.newest.epoch, compiled=self.cohort.compiled)]

    def save(self, specs: Sequence[TrialSpec]) -> None:
        """Save the end of the newest epoch of these trials as checkpoints, unless that is done already."""
        if self.saved == self.newest.epoch:
            return
        started = time.monotonic()
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(lambda spec: self.checkpoints.save(spec, self.newest.epoch, self._state(spec)), specs))
        now = time.monotonic()
        self.saved, self.next_save = self.newest.epoch, now + max(self.saving.every_s, (now - started) / self.saving.share)

    def _result(self, spec: TrialSpec, files: Path) -> Result:
        """Score a trained trial, write its files to the folder `files`, and return its result.

        Raises:
            NotFiniteError: one of its scores is not finite. Nothing that is not leaves a worker.
        """
        vae, history = self.cohort.trained(spec), self.history[spec.id]
        average = self.cohort.trained(spec, AVERAGE) if spec.ema_decay else None
        trained, watch = self._stints(spec), stints.Stopwatch()
        scores = evaluate(
            Subject(spec, vae, self.cohort.data, history, average), files, draw_all_figures=spec.id in self.job.draw_all_figures
        )
        self.snapshots.write(spec, vae, self.cohort.data, files)
        times = {
            TRAIN_S.key: self.trained_s[spec.id],
            "perf/throughput": statistics.median(self.throughput[spec.id]),
            "perf/step_ms": statistics.median(row[STEP_MS_P50.key] for row in history),
            "model/parameters": parameters_of_one(vae),
        }
        facts = stints.facts_of(spec, trained, watch.facts(self.device), self.trained_s[spec.id], self.device)
        (files / EXECUTION).write_text(json.dumps(facts), encoding="utf-8")
        return Result(spec, finite(scores | times | self.cost))


def _images_of(job: Job) -> Data:
    """Return the data set of a job's trials.

    Raises:
        DataError: it is not to be had, or another than the study has: its function or its files give other images here, or by now.
    """
    wanted = job.specs[0].dataset, job.specs[0].dataset_args
    try:
        data = dataset(*wanted)
        if job.images not in ("", data.digest):  # this process may have had it since before the study
            dataset.cache_clear()
            data = dataset(*wanted)
    except UserError as fault:  # of a function that gave images where the study was started
        raise DataError(str(fault)) from fault
    if job.images not in ("", data.digest):
        raise DataError(
            f"{data.name}: the study has images of the digest {job.images[:12]}, this worker {data.digest[:12]}\n"
            "what gives them must give the same each time and on each machine; with other code of it they are other trials"
        )
    return data


def _rows(epoch: int, rows: Mapping[str, Row]) -> Iterator[Epoch]:
    """Yield the events of an epoch, given the row of every trial that trained in it."""
    for left, (trial, row) in enumerate(rows.items(), start=1 - len(rows)):
        yield Epoch(trial, epoch, row, last=left == 0)
