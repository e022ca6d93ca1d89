"""Where trials train: in this process, or in worker processes. `train` is the pure function behind both: specs in, results out."""

import multiprocessing as mp
import os
import signal
import time
import traceback
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from harness import engine, figures, metrics
from harness.cohort import Cohort
from harness.data import Data, load
from harness.spec import Result, TrialSpec
from harness.vae import parameters_of_one


@dataclass(frozen=True)
class Epoch:
    """A trial finished an epoch (counted from 1); `row` is what it shows."""

    spec: str
    epoch: int
    row: dict[str, float]


@dataclass(frozen=True)
class Finished:
    """A trial is done: its scores, and the folder with its files."""

    spec: str
    result: Result
    files: Path


@dataclass(frozen=True)
class Failed:
    """A trial has no result. `final`: trying again would fail again."""

    spec: str
    why: str
    final: bool


Event = Epoch | Finished | Failed


def train(
    specs: Sequence[TrialSpec],
    device: str,
    folder: Path,
    send: Callable[[Event], None],
    *,
    compiled: bool = False,
    pictured: Container[str] = (),
) -> None:
    """Train trials of one program and tell everything through `send`. Files go to `folder`/spec id.

    All figures are drawn of the trials whose ids are `pictured`, those at a glance of the others: drawing all takes 3 s a trial.

    Results are a function of the specs alone, to rounding: `compiled` and company change the order of sums.
    """
    where = engine.device(device)
    data = _data(specs[0].dataset)
    cohort = Cohort(specs, data, where, compiled)
    history: dict[str, list[dict[str, float]]] = {s.id: [] for s in specs}
    reported: set[str] = set()
    started = time.perf_counter()
    for epoch in range(1, specs[0].epochs + 1):
        rows = cohort.run_epoch()
        for lost in set(cohort.failures) - reported:
            send(Failed(lost, cohort.failures[lost], final=True))
        reported |= set(cohort.failures)
        for trial, row in rows.items():
            history[trial].append(row)
            send(Epoch(trial, epoch, row))
        if not cohort.specs:
            return
    trained_s = time.perf_counter() - started - cohort.compile_s
    for spec in cohort.specs:
        vae = cohort.trained(spec)
        evaluation = metrics.evaluate(spec, vae, cohort.data)
        scores = (
            evaluation.scores
            | _late_gain(history[spec.id])
            | {
                "perf/train_s": trained_s,
                "perf/compiled": float(compiled),
                "perf/compile_s": cohort.compile_s,
                "perf/peak_memory_mib": engine.peak_memory_mib(where),
                "model/parameters": parameters_of_one(vae),
            }
        )
        files = folder / spec.id
        subject = figures.Subject(spec, vae, data, evaluation, history[spec.id])
        names = tuple(figures.FIGURES) if spec.id in pictured else figures.AT_A_GLANCE
        list(figures.draw(subject, files / "figures", names))
        torch.save({k: v.cpu() for k, v in vae.state_dict().items()}, files / "state_dict.pt")
        arrays: dict[str, Any] = _pictures(subject)
        np.savez_compressed(files / "pictures.npz", **arrays)
        send(Finished(spec.id, Result(spec, scores), files))


def _late_gain(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """What the last fifth of the epochs brought, in nats of ELBO: much of it means that training was cut short."""
    split = "validation" if "elbo/validation" in history[-1] else "train"
    if len(history) < 2:
        return {}
    then, now = (history[i][f"elbo/{split}"] for i in (-1 - max(1, len(history) // 5), -1))
    return {"diagnostics/late_gain": now - then}


@cache
def _data(name: str) -> Data:
    return load(name, say=lambda _: None)


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


class Executor(Protocol):
    """Takes jobs (the specs of one program) while it has a free place, and yields what happens."""

    def free(self) -> int:
        """Jobs that would start at once."""

    def submit(self, specs: Sequence[TrialSpec], folder: Path, *, compiled: bool, pictured: Collection[str]) -> None:
        """Start a job: a program, compiled or not; `pictured` are the ids of trials to draw all figures of."""

    def events(self) -> Iterator[Event]:
        """What has happened; waits for the first thing to happen while jobs are running."""

    def close(self) -> None:
        """End all work at once."""


@dataclass
class InProcess:
    """One job at a time, in this process."""

    device: str = "cpu"
    happened: list[Event] = field(default_factory=list)

    def free(self) -> int:
        return int(not self.happened)

    def submit(self, specs: Sequence[TrialSpec], folder: Path, *, compiled: bool, pictured: Collection[str]) -> None:
        train(specs, self.device, folder, self.happened.append, compiled=compiled, pictured=pictured)

    def events(self) -> Iterator[Event]:
        while self.happened:
            yield self.happened.pop(0)

    def close(self) -> None:
        self.happened.clear()


@dataclass
class _Worker:
    process: mp.process.BaseProcess
    pipe: Connection
    job: list[str]  # ids of trials that it has not told the end of


class Processes:
    """A pool of worker processes, one thread each. A worker that dies loses its trials only, and is replaced."""

    def __init__(self, workers: int, device: str) -> None:
        self.device = device
        self.context = mp.get_context("spawn")
        self.workers = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        with _environment(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TORCHINDUCTOR_COMPILE_THREADS="1"):
            process = self.context.Process(target=_work, args=(theirs, self.device), daemon=True)
            process.start()
        theirs.close()
        return _Worker(process, ours, [])

    def free(self) -> int:
        return sum(not w.job for w in self.workers)

    def submit(self, specs: Sequence[TrialSpec], folder: Path, *, compiled: bool, pictured: Collection[str]) -> None:
        worker = next(w for w in self.workers if not w.job)
        worker.job = [s.id for s in specs]
        worker.pipe.send((list(specs), folder, compiled, list(pictured)))

    def events(self) -> Iterator[Event]:
        busy = {w.pipe: w for w in self.workers if w.job}
        for pipe in wait(list(busy)):
            worker = busy[pipe]  # type: ignore[index]  # wait() is typed to return sockets and handles too
            try:
                event = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                worker.process.join()
                self.workers[self.workers.index(worker)] = self._start()
                why = f"its worker process ended ({_exit(worker.process.exitcode)})"
                yield from (Failed(spec, why, final=False) for spec in worker.job)
                continue
            if not isinstance(event, Epoch):
                worker.job.remove(event.spec)
            yield event

    def close(self) -> None:
        for worker in self.workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables that processes started in this block inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(pipe: Connection, device: str) -> None:
    """A worker's life: take a job, tell what happens, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    engine.one_thread()
    while True:
        try:
            specs, folder, compiled, pictured = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        left = {s.id for s in specs}

        def send(event: Event, left: set[str] = left) -> None:
            if not isinstance(event, Epoch):
                left.discard(event.spec)
            pipe.send(event)

        try:
            train(specs, device, folder, send, compiled=compiled, pictured=pictured)
        except BrokenPipeError:  # the driver is gone
            return
        except Exception as fault:  # whatever a trial raises fails that trial, with its reason; the study goes on
            where = traceback.extract_tb(fault.__traceback__)[-1]
            why = f"{type(fault).__name__}: {fault} ({Path(where.filename).name}:{where.lineno})"
            for spec in left.copy():
                send(Failed(spec, why, final=not isinstance(fault, MemoryError | torch.OutOfMemoryError)))
