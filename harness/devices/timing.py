"""Times of steps by the device's own clock."""

import time
from typing import Any

import torch


def wait(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class StepTimer:
    """Marks in time between the steps of an epoch, set without waiting for the device. `seconds` reads the gaps, once."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.marks: list[Any] = []  # torch.cuda.Event on a GPU, else seconds
        self.steps: list[int] = []
        self.mark(0)

    def mark(self, steps: int = 1) -> None:
        """Note the time now, on the device's own clock, when `steps` steps have been taken since the last mark."""
        self.steps.append(steps)
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Return the seconds of each step.

        The time between two successive marks is shared evenly by the steps taken between them.
        """
        if self.cuda:
            self.marks[-1].synchronize()
        pairs = zip(self.marks, self.marks[1:], self.steps[1:], strict=False)
        spans = [(a.elapsed_time(b) / 1e3 if self.cuda else b - a, n) for a, b, n in pairs]
        return [span / n for span, n in spans for _ in range(n)]
