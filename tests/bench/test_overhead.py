"""What a study costs beside training: bookkeeping per epoch and per trial, figures, files."""

import itertools
import os
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path

import pytest
from drivers import ORIGIN, driver_of, queue_of

from harness import study
from harness.executors import Epoch, Finished, InProcess
from harness.figures import AT_A_GLANCE
from harness.runner.driver import Driver
from harness.spec import Result
from harness.tracking import MlflowTracker

FACTS = ORIGIN | {"ledger": "a_study.default"}
BESIDE = ("tracking", "figures", "saving")
AT_MOST = 0.02  # of training time
ROUNDS = 5

pytestmark = pytest.mark.usefixtures("mlflow_store")


@pytest.fixture
def tracker() -> MlflowTracker:
    return MlflowTracker("a_study", "default", "")


def test_log(benchmark, tracker, trained):
    """An epoch of one trial, as the driver pays for it."""
    benchmark.group = "tracking"
    run = tracker.begin(trained.spec, "bce", 0, 1, FACTS)
    epochs = itertools.count(1)
    benchmark.pedantic(lambda: tracker.log(run, next(epochs), trained.rows[-1]), rounds=30, warmup_rounds=3)


def test_begin(benchmark, tracker, trained):
    benchmark.group = "tracking"
    benchmark.pedantic(tracker.begin, args=(trained.spec, "bce", 0, 1, FACTS), rounds=10, warmup_rounds=1)


def test_finish(benchmark, tracker, trained):
    """Scores, all files, and the commit."""
    benchmark.group = "tracking"

    def begun():
        return (tracker.begin(trained.spec, "bce", 0, 1, FACTS), trained.result, trained.files), {}

    benchmark.pedantic(tracker.finish, setup=begun, rounds=10, warmup_rounds=1)


def test_queue(benchmark):
    """The trial store: take a trial, note its run, tell its value."""
    benchmark.group = "a trial's bookkeeping"
    queue = queue_of(study.load_study("loss_ablation"))
    queue.prepare()

    def keep_books():
        (assignment,) = queue.take(1, lambda cell: cell.spec.cohort)
        queue.note_run(assignment, "run")
        queue.complete(assignment, {"validation/squared_error": 0.0})

    benchmark.pedantic(keep_books, rounds=20, warmup_rounds=1)


def test_driver(benchmark, trained, tmp_path):
    """All that the driver does for a trial, where training takes no time."""
    benchmark.group = "a trial's bookkeeping"
    plan = study.load_study("loss_ablation")
    one_seed = replace(plan, budgets={"default": replace(plan.budgets["default"], seeds=(0,))})
    cells = one_seed.cells("default")
    numbers = itertools.count()

    def replay(job, scratch):
        for spec in job.specs:
            for epoch, row in enumerate(trained.rows, 1):
                yield Epoch(spec.id, epoch, row)
            files = Path(shutil.copytree(trained.files, scratch / spec.id, copy_function=os.link))
            yield Finished(spec.id, Result(spec, trained.result.metrics), files)

    class Replayed(InProcess):
        def submit(self, job):
            self.training = replay(job, self.dirs.scratch)

    def new_study():
        name = f"study_{next(numbers)}"
        queue = queue_of(one_seed, name)
        queue.prepare()
        return (driver_of(queue, MlflowTracker(name, "default", ""), tmp_path / name, Replayed),), {}

    benchmark.extra_info.update(units=len(cells), unit="trial")
    benchmark.pedantic(Driver.run, setup=new_study, rounds=3, warmup_rounds=1)


def test_share_of_training(benchmark, tracker, trained):
    """Tracking, figures and files of a trial at the default budget, beside its training."""
    benchmark.group = "a trial's tracking"

    def track():
        run = tracker.begin(trained.spec, "bce", 0, 1, FACTS)
        for epoch, row in enumerate(trained.rows, 1):
            tracker.log(run, epoch, row)
        tracker.finish(run, trained.result, trained.files)

    started = time.process_time()
    benchmark.pedantic(track, rounds=ROUNDS, warmup_rounds=1)
    cpu = {name: spent.cpu for name, spent in trained.parts.items()}
    cpu["tracking"] = (time.process_time() - started) / (ROUNDS + 1)
    seconds = {name: spent.wall for name, spent in trained.parts.items()}
    seeds = len(study.load_study("loss_ablation").budgets["default"].seeds)
    for took, all_of in ((seconds, lambda s: s.wall), (cpu, lambda s: s.cpu)):  # the first of an arm's seeds is drawn in full
        glance = sum(all_of(spent) for name, spent in trained.figures.items() if name in AT_A_GLANCE)
        took["figures"] = (took["figures"] + (seeds - 1) * glance) / seeds
    seconds["tracking"] = statistics.median(benchmark.stats.stats.data)
    figures = {name: spent.wall for name, spent in trained.figures.items()}
    share, cpu_share = (sum(took[name] for name in BESIDE) / took["training"] for took in (seconds, cpu))
    benchmark.extra_info.update(share=share, cpu_share=cpu_share, seconds=seconds, cpu_seconds=cpu, figure_seconds=figures)
    print(f"\nbeside training: {share:.1%} of its time, {cpu_share:.1%} of its CPU time")
    print(", ".join(f"{name} {seconds[name]:.2f} s ({cpu[name]:.2f} s CPU)" for name in ("training", "evaluation", *BESIDE)))
    print(", ".join(f"{name} {took:.2f} s" for name, took in sorted(figures.items(), key=lambda f: -f[1])))
    assert share <= AT_MOST
