"""CUDA graphs of training steps, and inputs that are made ahead of the steps that read them."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", bound=tuple[Tensor, ...])


def use(device: torch.device) -> None:
    """Make a GPU the current one of this process, on which captures, events and compiled kernels run; a CPU needs nothing.

    Its convolutions are strictly fp32 from then on, as scores are: torch lets them take TF32 by default.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = False


def can_capture(device: torch.device) -> bool:
    """Return whether the device can capture steps once and launch them again as a whole, which a GPU can."""
    return device.type == "cuda"


class CaptureError(RuntimeError):
    """Raised when steps cannot be captured, or when a launch of captured steps does not do what the steps do."""


def memory_pool() -> Any:
    """Return the handle of a new pool of memory for the graphs of one program.

    It lives as long as a graph that was captured into it, so programs cannot share one: once all graphs of the first are gone, a
    capture into its pool fails.
    """
    return torch.cuda.graph_pool_handle()


def capture(step: Callable[[], object], times: int, device: torch.device, pool: Any) -> Callable[[], None]:
    """Return a function that launches `times` steps in a row as one CUDA graph, and keeps `step` and what it refers to alive.

    One step is taken before the capture. The caller has to undo it, and to check that a launch does what it should: a graph that
    was captured beside the stream that the steps run on is empty, and its launches do nothing. Graphs of one `pool` must not run at
    the same time, and steps must keep no tensor that they make.

    Raises:
        CaptureError: the steps do what cannot be captured, such as waiting for the device.
    """
    gc.collect()  # graphs that nobody uses any more must not end during a capture, nor after it with what it shares with them
    with torch.cuda.device(device):
        before, warm_up = torch.cuda.current_stream(), _side_stream(device)
        try:
            warm_up.wait_stream(before)
            with torch.cuda.stream(warm_up):
                step()  # a first call may allocate memory or wait for the device, neither of which a capture allows
            before.wait_stream(warm_up)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                for _ in range(times):
                    step()
        except RuntimeError as fault:
            if "captur" in str(fault):
                raise CaptureError(f"steps cannot be captured: {str(fault).partition(chr(10))[0]}") from fault
            raise
        finally:
            torch.cuda.set_stream(before)  # a capture that fails would leave its own stream as the current one
    return partial(_launch, graph, step)


def _launch(graph: torch.cuda.CUDAGraph, step: Callable[[], object]) -> None:
    """Launch a graph. It does not own the tensors that the captured `step` reads and writes, which therefore comes along."""
    graph.replay()


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of this process beside the current one. Memory that was used on one stream is of use on that one only."""
    stream: torch.cuda.Stream = torch.cuda.Stream(device)
    return stream


def ahead(items: Iterator[T], device: torch.device) -> Iterator[T]:
    """Yield tuples of tensors, each made while the GPU still works on what was launched for the one before.

    They are made on a stream of their own, at most one ahead: the host waits for the use of the one before the last. On a CPU they
    are yielded as they are.
    """
    if device.type != "cuda":
        yield from items
        return
    side, main = _side_stream(device), torch.cuda.current_stream(device)
    side.wait_stream(main)

    def make() -> tuple[T | None, torch.cuda.Event]:
        """Launch the making of the next item; return it, and the event of its end."""
        with torch.cuda.stream(side):
            return next(items, None), side.record_event()

    (item, made), used = make(), main.record_event()
    while item is not None:
        main.wait_event(made)
        for tensor in item:
            tensor.record_stream(main)  # its memory is not used again before the main stream has come past this use
        yield item
        used.synchronize()  # the host runs ahead of the device by one item, not by all of them
        used = main.record_event()
        item, made = make()


@contextmanager
def no_waiting() -> Iterator[None]:
    """Raise RuntimeError in this block for every operation that waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
