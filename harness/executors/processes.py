"""Training in worker processes of this machine."""

import multiprocessing as mp
import os
import signal
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait

from harness import devices, provenance
from harness.errors import MachineError
from harness.executors.interrupts import INTERRUPTS, Stop
from harness.executors.jobs import Epoch, Event, Failed, Job, OutputDirs, Trained, ends_trial
from harness.executors.spares import Spare, Spares
from harness.executors.training import DeviceLostError, train
from harness.training.checkpoints import Checkpoints

GIVEN_UP = 2  # failures of a GPU in a row
END_S = 5.0  # for a worker that has said its last word
EVALUATOR_BYTES = 2 * 2**30  # of this machine's memory for each process that evaluates; one takes 0.8 to 1.1 GiB on MNIST


@dataclass(frozen=True)
class _Lost:
    """The last message of a worker whose GPU has failed it, with the reason."""

    why: str


@dataclass
class _Worker:
    """A worker process and its job.

    Attributes:
        device: the name of its device.
        process: the process.
        pipe: the driver's end of the pipe to it.
        job: its job, or the one before; None if it has had none.
        left: the ids of its job's trials that have not ended yet.
        waits_for_pruning: True if its job waits after every epoch to be told which trials to prune.
        waiting: True while it waits for that.
        lost: how often the GPU of this worker, or of those whose place it took, has failed since the last epoch on it.
        pruned: the ids of its job's trials to prune.
    """

    device: str
    process: mp.process.BaseProcess
    pipe: Connection
    job: Job | None = None
    left: set[str] = field(default_factory=set)
    waits_for_pruning: bool = False
    waiting: bool = False
    lost: int = 0
    pruned: set[str] = field(default_factory=set)


class Processes:
    """An executor with a pool of worker processes of one thread each. A worker that dies loses its trials only, and is replaced.

    `devices` has the name of a device per worker. The driver sends a worker a `Job` or, during a job, a set of ids to prune; in a
    job that waits for pruning one set, which may be empty, after each row. A worker sends events, or the digest of its code if that
    is not the driver's, or at last that its GPU has failed.

    A worker on a GPU only trains: further processes evaluate its trials on the CPU, from the checkpoints of their last epoch, while
    it goes on with the next job. Evaluation is a hundred small tasks on one thread, many of which have no GPU code, and would take
    longer than training.

    Attributes:
        dirs: the folders to write to.
        code: the digest of the driver's code; by default this process's.
        spares: processes that were started before, which become workers first, and which idle workers become when this closes;
            whoever gives them closes what is left. None if there are none.
        workers: the workers.
        evaluators: the processes that evaluate, which are started when a job is submitted.
        most_evaluators: the largest number of them.
        trained: the jobs of one trial each that wait for an evaluator.
    """

    def __init__(
        self,
        devices: Sequence[str],
        dirs: OutputDirs,
        code: str | None = None,
        *,
        most_evaluators: int | None = None,
        spares: Spares | None = None,
    ) -> None:
        self.dirs, self.code = dirs, code or provenance.code()
        self.spares = spares
        self.most_evaluators = _room_beside(devices) if most_evaluators is None else most_evaluators
        self.evaluators: list[_Worker] = []
        self.trained: deque[Job] = deque()
        self.workers = [self._start(device) for device in devices]

    def _start(self, device: str) -> _Worker:
        """Start a worker process on this device."""
        spare = Spare.start() if self.spares is None else self.spares.take(device)
        with suppress(OSError):  # `events` replaces a dead worker
            spare.pipe.send((device, self.dirs, self.code))
        return _Worker(device, spare.process, spare.pipe)

    def free(self) -> int:
        """Return the number of workers without a job."""
        return sum(not w.left for w in self.workers)

    def submit(self, job: Job) -> None:
        """Send a job to a worker without one."""
        worker = next(w for w in self.workers if not w.left)
        _give(worker, replace(job, part="train") if self.most_evaluators else job)
        self._start_evaluators()

    def events(self) -> Iterator[Event]:
        """Yield an event of each worker that has one; wait for the first.

        Raises:
            MachineError: a worker has other code than the driver.
        """
        for worker in self.workers:  # the caller has dealt with the rows of the call before
            if worker.waiting and worker.left:
                worker.waiting = False
                _send(worker, frozenset(worker.pruned))
        busy = {w.pipe: w for w in (*self.workers, *self.evaluators) if w.left}
        for pipe in wait(list(busy)):
            worker = busy[pipe]  # type: ignore[index]  # wait() is typed to return sockets and handles too
            try:
                message = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                yield from self._replace(worker, "")
                continue
            if isinstance(message, str):
                raise MachineError(
                    f"the code has changed since the study was started: {self.code}, now {message}\n"
                    "start it again: the same command goes on"
                )
            if isinstance(message, _Lost):
                worker.lost += 1
                yield from self._replace(worker, message.why)
                continue
            if isinstance(message, Epoch):
                worker.waiting, worker.lost = worker.waits_for_pruning, 0
            elif ends_trial(message):
                worker.left.remove(message.spec)
            if isinstance(message, Trained):
                self._queue_evaluation(worker, message.spec)
            else:
                yield message
        for evaluator in self.evaluators:
            if self.trained and not evaluator.left:
                _give(evaluator, self.trained.popleft())

    def _queue_evaluation(self, worker: _Worker, trial: str) -> None:
        """Add the evaluation of a trial that a worker has trained to those that wait."""
        assert worker.job is not None
        spec = next(s for s in worker.job.specs if s.id == trial)
        figures = worker.job.draw_all_figures & {trial}
        self.trained.append(Job((spec,), start=spec.epochs, part="evaluate", draw_all_figures=figures, images=worker.job.images))

    def _start_evaluators(self) -> None:
        """Start evaluators, as many as there are trials to evaluate now or later: they load torch while these train."""
        trials = len(self.trained) + sum(len(w.left) for w in (*self.workers, *self.evaluators))
        while len(self.evaluators) < min(self.most_evaluators, trials):
            self.evaluators.append(self._start("cpu"))

    def _replace(self, worker: _Worker, why: str) -> Iterator[Event]:
        """Start a new worker in the place of one that has died or is about to. Return the failures of its trials.

        A GPU that fails for the second time without an epoch in between gets no worker any more; others take its trials.

        Raises:
            MachineError: no GPU is left.
        """
        worker.process.join(END_S)  # a process whose GPU has failed may hang while it ends
        worker.process.kill()
        worker.process.join()
        pool = self.workers if worker in self.workers else self.evaluators
        if worker.lost < GIVEN_UP:
            pool[pool.index(worker)] = successor = self._start(worker.device)
            successor.lost = worker.lost
        else:
            pool.remove(worker)
            if not self.workers:
                raise MachineError(f"no GPU is left: {why}\nstart it again: the same command goes on from the checkpoints")
        why = why or f"its worker process ended ({_exit(worker.process.exitcode)})"
        return (Failed(spec, why, final=False) for spec in worker.left)

    def prune(self, ids: Collection[str]) -> None:
        """End these trials at the end of an epoch."""
        for worker in self.workers:
            own = worker.left & set(ids)
            worker.pruned |= own
            if own and not worker.waits_for_pruning:
                _send(worker, frozenset(own))

    def close(self, patience_s: float = 8.0) -> None:
        """Ask busy workers to save the end of their newest epoch and to end, and kill those that take longer than `patience_s`.

        Idle ones end too; those on a CPU go back to the spare processes, where there are any. One on a GPU keeps memory of it.
        """
        workers = [*self.workers, *self.evaluators]
        self.workers, self.evaluators = [], []
        if self.spares is not None:
            idle = [w for w in workers if not w.left and w.process.is_alive() and not devices.is_gpu(w.device)]
            workers = [w for w in workers if w not in idle]
            for worker in idle:
                self.spares.keep(Spare(worker.process, worker.pipe, worker.device))
        for worker in workers:
            worker.process.terminate()
            worker.pipe.close()  # a worker must not wait for ever for its message to be read
        deadline = time.monotonic() + patience_s
        for worker in workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
            worker.process.join()


def _room_beside(workers: Sequence[str]) -> int:
    """Return how many processes may evaluate beside these workers: none unless they are on GPUs."""
    if not any(map(devices.is_gpu, workers)):
        return 0
    return max(1, min(devices.cores() - len(workers) - 1, devices.memory_of_machine() // EVALUATOR_BYTES))  # 1 for the driver


def _give(worker: _Worker, job: Job) -> None:
    """Send a job to a worker."""
    worker.job, worker.left, worker.pruned = job, {s.id for s in job.specs}, set()
    worker.waits_for_pruning, worker.waiting = job.waits_for_pruning, False
    _send(worker, job)


def _send(worker: _Worker, message: Job | frozenset[str]) -> None:
    """Send a message to a worker, unless it is dead."""
    with suppress(OSError):  # `events` replaces a dead worker
        worker.pipe.send(message)


def _exit(code: int | None) -> str:
    """Return the exit code of a process in words."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def work(pipe: Connection, device: str, dirs: OutputDirs, code: str) -> None:
    """Run a worker: take jobs and send their events until the process is asked to end or the driver is gone.

    The driver may send the arguments anew, where the next jobs are for another executor; the device stays.
    """
    INTERRUPTS.listen()
    if not devices.is_gpu(device):  # whose compiler makes tens of kernels at a time while nothing else can be done
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # read when the compiler is imported, with the first program
    devices.one_thread()
    message: object = (device, dirs, code)
    try:
        while True:
            if isinstance(message, tuple):
                _, dirs, code = message
                checkpoints = Checkpoints(dirs.checkpoints)
                if checkpoints.code != code:
                    pipe.send(checkpoints.code)
                    return
            elif isinstance(message, Job):  # a set of ids to prune is of trials that have ended already
                _train(message, pipe, device, dirs, checkpoints)
            with INTERRUPTS.cutting_short():
                message = pipe.recv()
    except DeviceLostError as fault:  # this process can do nothing more with its GPU; the driver starts another
        pipe.send(_Lost(str(fault).partition("\n")[0]))
    except (EOFError, OSError):  # the driver closed the pipe
        return
    except Stop:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)  # end by the signal, now that all is saved


def _train(job: Job, pipe: Connection, device: str, dirs: OutputDirs, checkpoints: Checkpoints) -> None:
    """Train a job, send its events, and receive the ids of trials to prune after every row."""
    pruned: set[str] = set()
    with closing(train(job, device, dirs.scratch, checkpoints, pruned)) as events:
        for event in events:
            pipe.send(event)
            if isinstance(event, Epoch):
                with INTERRUPTS.cutting_short():
                    if job.waits_for_pruning:
                        pruned |= pipe.recv()
                    while not job.waits_for_pruning and pipe.poll():
                        pruned |= pipe.recv()
