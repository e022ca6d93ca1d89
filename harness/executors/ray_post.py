"""The actor between a driver and its Ray workers. Its process is sent this file's content, and so loads nothing of the harness."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

Letter = tuple[int, bytes]  # the number of the job that it is about, and what it says


class Orders(NamedTuple):
    """What a job is asked to do: end these trials at their next epoch border; stop, and send what it has."""

    drop: frozenset[str]
    stop: bool


class Post:
    """An actor beside the driver. It keeps every letter until the driver has dealt with it, so an interrupted driver loses none."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.dealt = 0  # how many letters the driver has dealt with
        self.dropped: dict[int, frozenset[str]] = {}
        self.stopping = False
        self.news = asyncio.Condition()

    async def tell(self, job: int, letters: Sequence[bytes]) -> Orders:
        """A job's letters, in return for its orders."""
        async with self.news:
            self.letters += [(job, letter) for letter in letters]
            self.news.notify_all()
        return self.orders(job)

    async def heed(self, job: int) -> Orders:
        """A job's orders once the driver has dealt with all letters that are here now."""
        async with self.news:
            due = self.dealt + len(self.letters)
            await self.news.wait_for(lambda: self.dealt >= due or self.stopping)
        return self.orders(job)

    def orders(self, job: int) -> Orders:
        return Orders(self.dropped.get(job, frozenset()), self.stopping)

    async def fetch(self, dealt: int, patience_s: float) -> list[Letter]:
        """The letters after the first `dealt` of all, which are forgotten; waits so long for one to come."""
        async with self.news:
            del self.letters[: dealt - self.dealt]
            self.dealt = dealt
            self.news.notify_all()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait_for(lambda: self.letters), patience_s)
            return list(self.letters)

    async def drop(self, job: int, ids: Collection[str]) -> None:
        """End these trials of a job."""
        self.dropped[job] = self.dropped.get(job, frozenset()) | set(ids)

    async def stop(self) -> None:
        """Stop all work."""
        async with self.news:
            self.stopping = True
            self.news.notify_all()
