"""The executor on a Ray cluster.

No file system is shared: workers send results' files and checkpoints to the driver's machine, where they are written.

A worker is an actor that keeps a CPU, and its share of a GPU, as long as the executor lives: Ray would run each task on a GPU in a
new process, which loads torch and compiles its program anew. Ray is set to retry nothing: the driver does, from checkpoints.
"""

import io
import pickle
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from shutil import rmtree
from typing import Any, ParamSpec, TypeVar

import torch

from harness.errors import HarnessError, MachineError
from harness.executors.jobs import Event, Failed, Finished, Job, OutputDirs, ends_trial
from harness.executors.parts import SAVING, Saving
from harness.executors.ray import cluster, mailbox
from harness.executors.ray.mailbox import Mailbox, Message
from harness.executors.ray.worker import DriverEnvironment, Introduction, PackedCheckpoint, PackedResult, Worker
from harness.executors.remote import ONE_THREAD
from harness.training.checkpoints import CheckpointError, Checkpoints

P = ParamSpec("P")
T = TypeVar("T")

START_S = 60.0  # the wait for a first worker: loading torch takes 4 s, a node that is busy may take long
LISTEN_S = 0.5  # the wait for messages between two checks of whether a worker has died


@dataclass
class _Worker:
    """A worker.

    Attributes:
        actor: Ray's handle of the actor.
        pending: Ray's reference to its introduction.
        introduction: its introduction; None until it has started.
    """

    actor: Any
    pending: Any
    introduction: Introduction | None = None


@dataclass
class _Running:
    """A job in training.

    Attributes:
        worker: the worker that trains it.
        end: Ray's reference to the result of the actor's call, which is None.
        left: the ids of its trials that have not ended yet.
    """

    worker: _Worker
    end: Any
    left: set[str]


class Ray:
    """An executor with a pool of workers on a Ray cluster.

    A worker that dies, by itself or with its node, loses the epoch that it was training; another takes its place if there is room.

    All calls of Ray are made in one thread. An exception that a signal's handler raises inside of Ray comes out as a SystemError,
    and only once the call is over; handlers run in the main thread, which waits for the other and can be interrupted at once.

    `devices` has an entry per worker, of which the first gives the kind of device of all: auto, cpu or cuda.

    Attributes:
        dirs: the folders to write to.
        checkpoints: the store of checkpoints on the driver's machine.
        driver: the code and data folder of the driver, which workers are checked against.
        device: the kind of device.
        saving: how often workers send a checkpoint.
        running: the jobs in training by number.
        workers: the workers.
        last_number: the number of the newest job.
        handled: the number of messages that were handled.
        closing: True once `close` was called.
        thread: the thread that calls Ray.
        session: the session folder of a cluster that was started here; None for one that was joined.
        ray: the module ray, imported late.
        mailbox: Ray's handle of the actor `Mailbox`.
        worker_class: Ray's remote class of `Worker`.

    Raises:
        UserError: RAY_ADDRESS is no address to join.
        MachineError: the cluster cannot be joined, has no room for the workers, or a worker cannot start.
    """

    most_evaluators = 0

    def __init__(self, devices: Sequence[str], dirs: OutputDirs, saving: Saving = SAVING) -> None:
        self.dirs, self.checkpoints, self.driver = dirs, Checkpoints(dirs.checkpoints), DriverEnvironment.current()
        self.device = devices[0].partition(":")[0]
        self.saving = saving
        self.running: dict[int, _Running] = {}
        self.workers: list[_Worker] = []
        self.last_number = self.handled = 0
        self.closing = False
        self.thread = ThreadPoolExecutor(1, "ray")
        try:
            self._run(self._connect, len(devices))
        except BaseException:
            self.close(0)
            raise

    def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in Ray's thread and return its result."""
        return self.thread.submit(function, *args, **kwargs).result()

    def _connect(self, workers: int) -> None:
        """Join or start the cluster, start mailbox and workers, and wait for these for at most START_S."""
        self.session = cluster.connect(workers)
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.ray = ray
        share = cluster.gpu_share(workers, self.device)
        ray.cloudpickle.register_pickle_by_value(mailbox)
        on_this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox = ray.remote(num_cpus=0, scheduling_strategy=on_this_node)(Mailbox).remote()
        self.worker_class = ray.remote(
            num_cpus=1,
            num_gpus=share,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": ONE_THREAD},
        )(Worker)
        self.workers = [self._start() for _ in range(workers)]
        deadline = time.monotonic() + START_S
        while not all(w.introduction for w in self.workers) and time.monotonic() < deadline and not self.closing:
            self._await_introductions(LISTEN_S)

    def _start(self) -> _Worker:
        """Start a worker, without waiting for it."""
        actor = self.worker_class.remote(self.device, self.driver, self.saving)
        return _Worker(actor, actor.introduce.remote())

    def _await_introductions(self, patience_s: float) -> None:
        """Take the introductions of workers that have started; wait for them for at most `patience_s`.

        Raises:
            MachineError: a worker cannot start.
        """
        expected = [w.pending for w in self.workers if not w.introduction]
        if not expected:
            return
        self.ray.wait(expected, num_returns=len(expected), timeout=patience_s)
        for index, worker in enumerate(self.workers):
            if worker.introduction or not self.ray.wait([worker.pending], timeout=0)[0]:
                continue
            try:
                worker.introduction = self.ray.get(worker.pending)
            except self.ray.exceptions.RayTaskError as fault:
                if isinstance(fault.cause, HarnessError):
                    raise fault.cause from None
                raise MachineError(f"a Ray worker cannot start: {fault.cause}") from None
            except self.ray.exceptions.RayError as fault:
                if getattr(fault, "_actor_init_failed", False):  # the same would happen again
                    raise MachineError(f"a Ray worker cannot start: {str(fault).strip().splitlines()[-1]}") from None
                self.workers[index] = self._start()

    def _idle(self) -> list[_Worker]:
        """Return the workers that have started and have no job."""
        busy = [id(job.worker) for job in self.running.values()]
        return [w for w in self.workers if w.introduction and id(w) not in busy]

    def free(self) -> int:
        """Return the number of workers without a job. If there is neither a job nor a worker, wait for a worker.

        Raises:
            MachineError: no worker came within START_S.
        """
        self._run(self._await_introductions, 0)
        deadline = time.monotonic() + START_S
        while not self.running and not self._idle():
            if time.monotonic() > deadline:
                raise MachineError(f"no worker found a place on the Ray cluster in {START_S:.0f} s: it is busy, or nodes have died")
            self._run(self._await_introductions, LISTEN_S)
        return len(self._idle())

    def submit(self, job: Job) -> None:
        """Send a job to an idle worker, with its checkpoints and the driver's feature classifier."""
        self.last_number += 1
        states = {}
        for spec in job.specs if job.start else ():
            with suppress(CheckpointError):  # the worker fails the trial that lacks one
                content = io.BytesIO()
                torch.save(self.checkpoints.load(spec, job.start), content)
                states[spec.id] = content.getvalue()
        worker = self._idle()[0]
        args = (self.mailbox, self.last_number, job, states, self.driver.features(job.specs[0].dataset))
        end = self._run(lambda: worker.actor.train.remote(*args))
        self.running[self.last_number] = _Running(worker, end, {s.id for s in job.specs})

    def events(self) -> Iterator[Event]:
        """Yield the events that have come; while jobs are running, wait for the first one."""
        happened = False
        while self.running and not happened:
            messages, ended = self._run(self._listen, LISTEN_S)
            for number, message in messages:
                self.handled += 1
                event = self._read(number, message)
                if event is not None:
                    happened = True
                    yield event
            for number, why in ended.items():
                if number in self.running:
                    happened = True
                    yield from (Failed(spec, why, final=False) for spec in self.running.pop(number).left)

    def _listen(self, patience_s: float) -> tuple[list[Message], dict[int, str]]:
        """Return new messages, and the reasons by number of jobs that have ended before all their trials had."""
        ends = {job.end: number for number, job in self.running.items()}
        over, _ = self.ray.wait(list(ends), num_returns=len(ends), timeout=0) if ends else ([], [])
        try:  # after that check, so that all messages of jobs that have ended are among these
            messages = self.ray.get(self.mailbox.fetch.remote(self.handled, 0 if over else patience_s))
        except self.ray.exceptions.RayActorError:
            raise MachineError("the Ray node that the study was started on died\nonce it is back, the command goes on") from None
        return messages, {ends[end]: self._reason(self.running[ends[end]].worker, end) for end in over if ends[end] in self.running}

    def _reason(self, worker: _Worker, end: Any) -> str:
        """Return why a job is over, by Ray's reference `end`, and replace its worker if that is dead."""
        try:
            self.ray.get(end)
            return "its Ray worker did not say what became of it"
        except self.ray.exceptions.RayActorError:
            if not self.closing:
                self.workers[self.workers.index(worker)] = self._start()
            assert worker.introduction is not None
            node = next((n for n in self.ray.nodes() if n["NodeID"] == worker.introduction.node), {"Alive": False})
            if not node["Alive"]:
                return f"its Ray node {worker.introduction.host} died"
            return f"its Ray worker died (process {worker.introduction.pid} on {worker.introduction.host})"
        except self.ray.exceptions.RayError as fault:
            return f"{type(fault).__name__}: {str(fault).strip().splitlines()[-1]}"

    def _read(self, number: int, message: bytes) -> Event | None:
        """Return the event in a message of the job `number`; write files and checkpoints to disk. None if it has no event.

        A message of a job that is over comes from a worker that was taken for dead, and is ignored.
        """
        if number not in self.running:
            return None
        content: Event | PackedCheckpoint | PackedResult = pickle.loads(message)
        if isinstance(content, PackedCheckpoint):
            state = torch.load(io.BytesIO(content.state), weights_only=True)
            self.checkpoints.save(content.spec, content.epoch, state)
            return None
        event = self._unpacked(content.event, content.files) if isinstance(content, PackedResult) else content
        if ends_trial(event):
            left = self.running[number].left
            left.discard(event.spec)
            if not left:
                del self.running[number]
        return event

    def _unpacked(self, event: Finished, files: Mapping[str, bytes]) -> Finished:
        """Write a result's files to the scratch folder and return its event with that folder."""
        folder = self.dirs.scratch / event.spec
        rmtree(folder, ignore_errors=True)
        for name, content in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return replace(event, files=folder)

    def prune(self, ids: Collection[str]) -> None:
        """End these trials at the end of an epoch."""
        for number, job in self.running.items():
            own = job.left & set(ids)
            if own:
                self._run(self._prune, number, own)

    def _prune(self, number: int, ids: Collection[str]) -> None:
        """Tell the mailbox which trials of a job to end."""
        self.ray.get(self.mailbox.prune.remote(number, ids))

    def close(self, patience_s: float = 8.0) -> None:
        """Let jobs send the end of their newest epoch for at most `patience_s`, then end all workers and leave the cluster."""
        if not self.closing:
            self.closing = True
            self._run(self._end, patience_s)
            self.thread.shutdown()

    def _end(self, patience_s: float) -> None:
        """Take in the newest checkpoints, then leave the cluster, or end it if it was started here."""
        if not hasattr(self, "ray"):
            return
        deadline = time.monotonic() + patience_s
        with suppress(MachineError, self.ray.exceptions.RayError):
            if self.running:
                self.ray.get(self.mailbox.stop.remote())
            while self.running and time.monotonic() < deadline:
                messages, ended = self._listen(LISTEN_S)
                for number, message in messages:
                    self.handled += 1
                    self._read(number, message)
                for number in ended:
                    self.running.pop(number, None)
        for worker in self.workers:
            self.ray.kill(worker.actor)
        self.ray.shutdown()
        if self.session:
            rmtree(self.session, ignore_errors=True)
