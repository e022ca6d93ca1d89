"""Work that is needed later, done by a thread while the driver waits for its workers."""

import threading
from collections.abc import Callable
from contextlib import suppress


class Ahead:
    """A function that is called once, in a thread, whenever there is time for it.

    Args:
        work: the function, which loads what will be loaded anyway; what it raises is left to that time.
    """

    def __init__(self, work: Callable[[], None] = lambda: None) -> None:
        self.work = work
        self.thread = threading.Thread(target=self._work)

    @property
    def started(self) -> bool:
        """Whether the function was called."""
        return self.thread.ident is not None

    def start(self) -> None:
        """Call the function in the thread, once."""
        self.thread.start()

    def join(self) -> None:
        """Wait for the function to return, if it was called."""
        if self.started:
            self.thread.join()

    def _work(self) -> None:
        """Call the function."""
        with suppress(Exception):  # whatever it is: it is raised again where the work is needed
            self.work()
