"""The actor between a driver and its Ray workers.

Ray sends this module to the actor's process by value, so that process imports nothing of the harness.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

Message = tuple[int, bytes]  # the number of the job that sent it, and the pickled content


class Command(NamedTuple):
    """The driver's command to a job.

    Attributes:
        prune: the ids of trials to end at the end of their epoch.
        stop: True to end the job, after it has sent its checkpoints.
    """

    prune: frozenset[str]
    stop: bool


class Mailbox:
    """The actor on the driver's node, which keeps messages until the driver has handled them, so an interrupted driver loses none.

    Attributes:
        messages: the messages that the driver has not handled yet.
        handled: the number of messages that the driver has handled.
        pruned: the ids of the trials to prune by number of the job.
        stopping: True if all jobs are to stop.
        news: the condition that is notified of every change.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.handled = 0
        self.pruned: dict[int, frozenset[str]] = {}
        self.stopping = False
        self.news = asyncio.Condition()

    async def send(self, job: int, messages: Sequence[bytes]) -> Command:
        """Take a job's messages and return its command."""
        async with self.news:
            self.messages += [(job, message) for message in messages]
            self.news.notify_all()
        return self.command(job)

    async def await_command(self, job: int) -> Command:
        """Return a job's command once the driver has handled all messages that are in the mailbox now, or everything is to stop."""
        async with self.news:
            due = self.handled + len(self.messages)
            await self.news.wait_for(lambda: self.handled >= due or self.stopping)
        return self.command(job)

    def command(self, job: int) -> Command:
        """Return a job's command as it is now."""
        return Command(self.pruned.get(job, frozenset()), self.stopping)

    async def fetch(self, handled: int, patience_s: float) -> list[Message]:
        """Delete the first `handled` messages of all that ever came, and return the others.

        If there is none, wait for one for at most `patience_s`.
        """
        async with self.news:
            del self.messages[: handled - self.handled]
            self.handled = handled
            self.news.notify_all()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait_for(lambda: self.messages), patience_s)
            return list(self.messages)

    async def prune(self, job: int, ids: Collection[str]) -> None:
        """Add trials to those that a job is to end."""
        self.pruned[job] = self.pruned.get(job, frozenset()) | set(ids)

    async def stop(self) -> None:
        """Tell all jobs to stop."""
        async with self.news:
            self.stopping = True
            self.news.notify_all()
