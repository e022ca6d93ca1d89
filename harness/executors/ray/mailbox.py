"""The actor between a driver and its Ray workers. Its process is sent this file's content, and so loads nothing of the harness."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

Message = tuple[int, bytes]  # the number of the job that it is about, and what it says


class Command(NamedTuple):
    """What a job is asked to do: end these trials at their next epoch border; stop, and send what it has."""

    prune: frozenset[str]
    stop: bool


class Mailbox:
    """An actor beside the driver. It keeps every letter until the driver has dealt with it, so an interrupted driver loses none."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.dealt = 0  # how many letters the driver has dealt with
        self.pruned: dict[int, frozenset[str]] = {}
        self.stopping = False
        self.news = asyncio.Condition()

    async def tell(self, job: int, messages: Sequence[bytes]) -> Command:
        """A job's letters, in return for its command."""
        async with self.news:
            self.messages += [(job, message) for message in messages]
            self.news.notify_all()
        return self.command(job)

    async def await_command(self, job: int) -> Command:
        """A job's command once the driver has dealt with all letters that are here now."""
        async with self.news:
            due = self.dealt + len(self.messages)
            await self.news.wait_for(lambda: self.dealt >= due or self.stopping)
        return self.command(job)

    def command(self, job: int) -> Command:
        return Command(self.pruned.get(job, frozenset()), self.stopping)

    async def fetch(self, dealt: int, patience_s: float) -> list[Message]:
        """The letters after the first `dealt` of all, which are forgotten; waits so long for one to come."""
        async with self.news:
            del self.messages[: dealt - self.dealt]
            self.dealt = dealt
            self.news.notify_all()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait_for(lambda: self.messages), patience_s)
            return list(self.messages)

    async def prune(self, job: int, ids: Collection[str]) -> None:
        """End these trials of a job."""
        self.pruned[job] = self.pruned.get(job, frozenset()) | set(ids)

    async def stop(self) -> None:
        """Stop all work."""
        async with self.news:
            self.stopping = True
            self.news.notify_all()
