"""On a Ray cluster. No file system is shared: results' files and checkpoints travel to the driver's machine and are written there.

A worker is an actor that keeps a CPU, and its share of a GPU, as long as the executor lives: to each task on a GPU Ray would give
a new process, which loads torch and compiles its program anew. Ray is told to retry nothing: the driver does, from checkpoints.
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
from harness.executors.jobs import Epoch, Event, Failed, Finished, Job, OutputDirs
from harness.executors.ray import cluster, mailbox
from harness.executors.ray.mailbox import Mailbox, Message
from harness.executors.ray.worker import DriverEnvironment, Introduction, PackedCheckpoint, PackedResult, Worker
from harness.executors.remote import ONE_THREAD
from harness.training.checkpoints import CheckpointError, Checkpoints

P = ParamSpec("P")
T = TypeVar("T")

START_S = 60.0  # to wait for a first worker: loading torch takes 4 s, a node that is busy may take long
LISTEN_S = 0.5  # to wait for a letter before looking whether a worker has died


@dataclass
class _Worker:
    """An actor, what it will say of itself, and what it has said."""

    actor: Any
    coming: Any
    here: Introduction | None = None


@dataclass
class _Running:
    """A job: who trains it, the end of that, and the ids of trials whose end has not been told."""

    worker: _Worker
    end: Any
    left: set[str]


class Ray:
    """A pool of workers on a Ray cluster; devices says how many and, in its first entry, of which kind: auto, cpu or cuda.

    A worker that dies, by itself or with its node, loses the epoch that it was at; another takes its place where there is room.

    All talk with Ray is left to one thread. What a signal's handler raises inside of Ray comes out as a SystemError, once the call
    is over; handlers run in the main thread, which waits for the other and can be interrupted at once.
    """

    def __init__(self, devices: Sequence[str], dirs: OutputDirs) -> None:
        self.dirs, self.checkpoints, self.driver = dirs, Checkpoints(dirs.checkpoints), DriverEnvironment.here()
        self.device = devices[0].partition(":")[0]
        self.running: dict[int, _Running] = {}
        self.workers: list[_Worker] = []
        self.numbers = self.dealt = 0
        self.closing = False
        self.thread = ThreadPoolExecutor(1, "ray")
        try:
            self._do(self._open, len(devices))
        except BaseException:
            self.close(0)
            raise

    def _do(self, what: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        return self.thread.submit(what, *given, **named).result()

    def _open(self, workers: int) -> None:
        self.session = cluster.connect(workers)
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.ray = ray
        share = cluster.gpu_share(workers, self.device)
        ray.cloudpickle.register_pickle_by_value(mailbox)
        beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.post = ray.remote(num_cpus=0, scheduling_strategy=beside)(Mailbox).remote()
        self.kind = ray.remote(
            num_cpus=1,
            num_gpus=share,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": ONE_THREAD},
        )(Worker)
        self.workers = [self._start() for _ in range(workers)]
        deadline = time.monotonic() + START_S
        while not all(w.here for w in self.workers) and time.monotonic() < deadline and not self.closing:
            self._welcome(LISTEN_S)

    def _start(self) -> _Worker:
        actor = self.kind.remote(self.device, self.driver)
        return _Worker(actor, actor.introduce.remote())

    def _welcome(self, patience_s: float) -> None:
        """Hear from workers that have started meanwhile."""
        expected = [w.coming for w in self.workers if not w.here]
        if not expected:
            return
        self.ray.wait(expected, num_returns=len(expected), timeout=patience_s)
        for place, worker in enumerate(self.workers):
            if worker.here or not self.ray.wait([worker.coming], timeout=0)[0]:
                continue
            try:
                worker.here = self.ray.get(worker.coming)
            except self.ray.exceptions.RayTaskError as fault:
                if isinstance(fault.cause, HarnessError):
                    raise fault.cause from None
                raise MachineError(f"a Ray worker cannot start: {fault.cause}") from None
            except self.ray.exceptions.RayError as fault:
                if getattr(fault, "_actor_init_failed", False):  # the same would happen again
                    raise MachineError(f"a Ray worker cannot start: {str(fault).strip().splitlines()[-1]}") from None
                self.workers[place] = self._start()

    def _idle(self) -> list[_Worker]:
        busy = [id(job.worker) for job in self.running.values()]
        return [w for w in self.workers if w.here and id(w) not in busy]

    def free(self) -> int:
        """Workers without a job; where none is left, waits for one to come.

        Raises:
            MachineError: none came.
        """
        self._do(self._welcome, 0)
        deadline = time.monotonic() + START_S
        while not self.running and not self._idle():
            if time.monotonic() > deadline:
                raise MachineError(f"no worker found a place on the Ray cluster in {START_S:.0f} s: it is busy, or nodes have died")
            self._do(self._welcome, LISTEN_S)
        return len(self._idle())

    def submit(self, job: Job) -> None:
        self.numbers += 1
        states = {}
        for spec in job.specs if job.start else ():
            with suppress(CheckpointError):  # the worker, missing it, will tell
                content = io.BytesIO()
                torch.save(self.checkpoints.load(spec, job.start), content)
                states[spec.id] = content.getvalue()
        worker = self._idle()[0]
        given = (self.post, self.numbers, job, states, self.driver.features(job.specs[0].dataset))
        end = self._do(lambda: worker.actor.train.remote(*given))
        self.running[self.numbers] = _Running(worker, end, {s.id for s in job.specs})

    def events(self) -> Iterator[Event]:
        happened = False
        while self.running and not happened:
            messages, ended = self._do(self._listen, LISTEN_S)
            for number, message in messages:
                self.dealt += 1
                event = self._read(number, message)
                if event is not None:
                    happened = True
                    yield event
            for number, why in ended.items():
                if number in self.running:
                    happened = True
                    yield from (Failed(spec, why, final=False) for spec in self.running.pop(number).left)

    def _listen(self, patience_s: float) -> tuple[list[Message], dict[int, str]]:
        """Letters, and why jobs have ended without having told of all their trials."""
        ends = {job.end: number for number, job in self.running.items()}
        over, _ = self.ray.wait(list(ends), num_returns=len(ends), timeout=0) if ends else ([], [])
        try:  # after that look: what they told before they ended is among these
            messages = self.ray.get(self.post.fetch.remote(self.dealt, 0 if over else patience_s))
        except self.ray.exceptions.RayActorError:
            raise MachineError("the Ray node that the study was started on died\nonce it is back, the command goes on") from None
        return messages, {ends[end]: self._why(self.running[ends[end]].worker, end) for end in over if ends[end] in self.running}

    def _why(self, worker: _Worker, end: Any) -> str:
        """Why this job is over; a worker that is gone is replaced."""
        try:
            self.ray.get(end)
            return "its Ray worker did not say what became of it"
        except self.ray.exceptions.RayActorError:
            if not self.closing:
                self.workers[self.workers.index(worker)] = self._start()
            assert worker.here is not None
            node = next((n for n in self.ray.nodes() if n["NodeID"] == worker.here.node), {"Alive": False})
            if not node["Alive"]:
                return f"its Ray node {worker.here.host} died"
            return f"its Ray worker died (process {worker.here.pid} on {worker.here.host})"
        except self.ray.exceptions.RayError as fault:
            return f"{type(fault).__name__}: {str(fault).strip().splitlines()[-1]}"

    def _read(self, number: int, message: bytes) -> Event | None:
        """What a letter tells of a trial. One of a job that is over comes from a worker that was thought dead: not heeded."""
        if number not in self.running:
            return None
        event = pickle.loads(message)
        match event:
            case PackedCheckpoint(spec, epoch, state):
                self.checkpoints.save(spec, epoch, torch.load(io.BytesIO(state), weights_only=True))
                return None
            case PackedResult(finished, files):
                event = self._unpacked(finished, files)
        if not isinstance(event, Epoch):
            left = self.running[number].left
            left.discard(event.spec)
            if not left:
                del self.running[number]
        return event

    def _unpacked(self, event: Finished, files: Mapping[str, bytes]) -> Finished:
        folder = self.dirs.scratch / event.spec
        rmtree(folder, ignore_errors=True)
        for name, content in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return replace(event, files=folder)

    def prune(self, ids: Collection[str]) -> None:
        for number, job in self.running.items():
            mine = job.left & set(ids)
            if mine:
                self._do(self._prune, number, mine)

    def _prune(self, number: int, ids: Collection[str]) -> None:
        self.ray.get(self.post.prune.remote(number, ids))

    def close(self, patience_s: float = 8.0) -> None:
        if not self.closing:
            self.closing = True
            self._do(self._end, patience_s)
            self.thread.shutdown()

    def _end(self, patience_s: float) -> None:
        """Take in the newest epoch borders, then leave the cluster, or end it where it is ours."""
        if not hasattr(self, "ray"):
            return
        deadline = time.monotonic() + patience_s
        with suppress(MachineError, self.ray.exceptions.RayError):
            if self.running:
                self.ray.get(self.post.stop.remote())
            while self.running and time.monotonic() < deadline:
                messages, ended = self._listen(LISTEN_S)
                for number, message in messages:
                    self.dealt += 1
                    self._read(number, message)
                for number in ended:
                    self.running.pop(number, None)
        for worker in self.workers:
            self.ray.kill(worker.actor)
        self.ray.shutdown()
        if self.session:
            rmtree(self.session, ignore_errors=True)
