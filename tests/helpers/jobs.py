"""Jobs for tests of what trains them."""

from harness.executors import Event, Executor, Job, OutputDirs, Saving, train
from harness.spec import TrialSpec
from harness.training.checkpoints import Checkpoints

# 1197 images: an epoch is 38 steps, in two chunks.
SPEC = TrialSpec(dataset="digits", batch_size=32, epochs=3, learning_rate=1e-3, evaluation="validation")
# An epoch takes about half a second, so that a signal comes in the middle of one.
LONG = SPEC.derive(batch_size=4, epochs=1000)
ALWAYS = Saving(every_s=0.0, share=float("inf"))  # a checkpoint at the end of every epoch


def told(job: Job, dirs: OutputDirs, saving: Saving = Saving()) -> list[Event]:  # noqa: B008  (it is frozen)
    """All that happens to a job when it is trained here."""
    return list(train(job, "cpu", dirs.scratch, Checkpoints(dirs.checkpoints), saving=saving))


def end_of(pool: Executor) -> Event:
    """The last thing that happens to the job that an executor has."""
    while not pool.free():
        for event in pool.events():
            last = event
    return last
