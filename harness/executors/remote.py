"""Parts that are common to the workers on other machines."""

from collections.abc import Iterable, Iterator

from harness.executors.jobs import Epoch, Event, Job, ends_trial

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}


def epoch_ends(job: Job, events: Iterable[Event]) -> Iterator[tuple[Event, bool]]:
    """Yield a job's events, each with True if it is the last row of an epoch, after which trials may be pruned."""
    left, reported = {s.id for s in job.specs}, set()
    for event in events:
        if isinstance(event, Epoch):
            reported.add(event.spec)
        elif ends_trial(event):
            left.discard(event.spec)
        ends_epoch = isinstance(event, Epoch) and reported >= left
        if ends_epoch:
            reported.clear()
        yield event, ends_epoch
