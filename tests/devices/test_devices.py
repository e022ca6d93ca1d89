"""Which device a worker gets, faults of a GPU, and inputs made ahead; GPUs are pretended."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

from harness import devices, resources
from harness.errors import UserError

GPU = torch.device("cuda", 0)


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("name", "workers", "per_gpu", "expected"),
    [
        ("auto", None, 1, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("cuda", 2, 1, ["cuda:0", "cuda:1"]),
        ("cuda:2", None, 1, ["cuda:2"]),
        ("cuda:2", None, 3, ["cuda:2"] * 3),
        ("cuda", 6, 2, ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0", "cuda:1"]),
        ("cpu", 1, 1, ["cpu"]),
    ],
)
def test_a_worker_has_one_device(name: str, workers: int | None, per_gpu: int, expected: list[str]) -> None:
    assert devices.worker_devices(name, workers, local=True, per_gpu=per_gpu) == expected


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("name", "workers", "local", "per_gpu", "words"),
    [
        ("cuda", 5, True, 1, "WORKERS=5: from 1 to 4 for a GPU\nfor several on each GPU: WORKERS_PER_GPU=2"),
        ("cuda", None, True, 0, "WORKERS_PER_GPU=0: a number from 1 on"),
        ("cpu", None, True, 2, "WORKERS_PER_GPU=2: a number from 1 on, for a GPU of this machine; got "),
        ("cuda", 8, False, 2, "on a cluster WORKERS alone says how many share the GPUs"),
    ],
)
def test_what_cannot_be_shared_is_refused(name: str, workers: int | None, local: bool, per_gpu: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        devices.worker_devices(name, workers, local, per_gpu)


def test_faults_of_a_gpu_are_told_apart() -> None:
    full = [
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),  # of the driver, as when a graph is made
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ]
    lost = [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access"),
    ]
    others = [
        RuntimeError("shape mismatch"),
        ValueError("CUDA error, as text"),
        MemoryError("out of memory"),
        devices.CaptureError("CUDA error: operation not permitted when stream is capturing"),
    ]
    assert [devices.is_out_of_memory(f) for f in (*full, *lost, *others)] == [True] * 4 + [False] * 7
    assert [devices.is_lost(f) for f in (*full, *lost, *others)] == [False] * 4 + [True] * 3 + [False] * 4


def test_memory_is_read_without_using_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        total_memory = 1000

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    assert devices.memory_holds(GPU, 10) == 60
    assert devices.memory_holds(GPU, 10, workers=4) == 15
    assert devices.memory_holds(GPU, 10_000) == 1


@pytest.mark.parametrize(("limit", "expected"), [("4096\n", 4096), ("max\n", None), (None, None)])
def test_a_container_has_the_memory_that_it_may_use(
    limit: str | None, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "memory.max"
    if limit is not None:
        file.write_text(limit)
    monkeypatch.setattr(resources, "LIMIT", file)
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert devices.memory_of_machine() == (expected or whole)


def test_on_a_cpu_inputs_come_as_they_are_made() -> None:
    log: list[str] = []
    for (item,) in devices.ahead(made(3, log), torch.device("cpu")):
        log.append(f"use {int(item)}")
    assert log == ["make 0", "use 0", "make 1", "use 1", "make 2", "use 2"]


def test_on_a_gpu_the_next_input_is_made_while_one_is_used_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    streams = Streams(log)
    side = streams.new("side")
    monkeypatch.setattr(devices.graphs, "_side_stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams.new("main"))
    monkeypatch.setattr(torch.cuda, "stream", streams.entered)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: log.append(f"keep for {stream.name}"))
    for (item,) in devices.ahead(made(3, log), GPU):
        log.append(f"use {int(item)}")
    steps = [line for line in log if line.startswith(("make", "use", "host", "keep"))]
    assert steps == [
        *("make 0", "keep for main", "use 0", "host waits for main 0"),
        *("make 1", "keep for main", "use 1", "host waits for main 1"),  # of the use of 0, while 1 is under way
        *("make 2", "keep for main", "use 2", "host waits for main 2"),
    ]
    assert [line for line in log if "main waits" in line] == [
        "main waits for side 0",
        "main waits for side 1",
        "main waits for side 2",
    ]


def made(count: int, log: list[str]) -> Iterator[tuple[torch.Tensor]]:
    for i in range(count):
        log.append(f"make {i}")
        yield (torch.tensor(i),)


class Streams:
    """Streams and events that write what is asked of them to a log."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def new(self, name: str) -> "Stream":
        return Stream(name, self.log)

    @contextmanager
    def entered(self, stream: "Stream") -> Iterator[None]:
        yield


class Stream:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.events = name, log, 0

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name} joins {other.name}")

    def wait_event(self, event: "Event") -> None:
        self.log.append(f"{self.name} waits for {event.name}")

    def record_event(self) -> "Event":
        self.events += 1
        return Event(f"{self.name} {self.events - 1}", self.log)


class Event:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def synchronize(self) -> None:
        self.log.append(f"host waits for {self.name}")


def test_a_launch_keeps_what_its_steps_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an H100 the weights of a captured step were freed with the step, and its launches wrote over other tensors."""

    class Graph:
        launches = 0

        def replay(self) -> None:
            self.launches += 1

    class Stream:
        def wait_stream(self, other: object) -> None:
            pass

    graph, weights = Graph(), torch.zeros(3)
    names: dict[str, object] = {"device": nullcontext, "stream": nullcontext, "graph": lambda graph, pool: nullcontext()}
    names |= {"Stream": lambda device: Stream(), "current_stream": Stream, "CUDAGraph": lambda: graph, "set_stream": lambda s: None}
    for name, value in names.items():
        monkeypatch.setattr(torch.cuda, name, value)
    launch = devices.capture(lambda weights=weights: weights.add_(1), 4, torch.device("cuda", 7), None)
    assert weights.tolist() == [5.0] * 3  # one step before the capture
    kept = weakref.ref(weights)
    del weights
    launch()
    assert graph.launches == 1
    assert kept() is not None
