"""What workers on other machines have in common."""

from collections.abc import Iterable, Iterator

from harness.executors.jobs import Epoch, Event, Job

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}


def epoch_ends(job: Job, events: Iterable[Event]) -> Iterator[tuple[Event, bool]]:
    """A job's events, and whether each is the last row of an epoch: then is the time to hear which trials to prune."""
    left, shown = {s.id for s in job.specs}, set()
    for event in events:
        if isinstance(event, Epoch):
            shown.add(event.spec)
        else:
            left.discard(event.spec)
        ends_epoch = isinstance(event, Epoch) and shown >= left
        if ends_epoch:
            shown.clear()
        yield event, ends_epoch
