"""One start of a study: how its trials become programs, how they train, and what is on record then."""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from hashlib import sha256
from typing import TYPE_CHECKING

from harness import executors, paths
from harness.errors import MachineError, counted
from harness.executors import OutputDirs, Spares
from harness.plans import PLAN_TAG
from harness.queue import SearchTrial, TrialQueue, completed_runs
from harness.report import AblationResults, SearchResults, load_publisher
from harness.runner import before, disk
from harness.runner.ahead import Ahead
from harness.runner.board import Board
from harness.runner.costs import SEARCHED, TESTED, Costs
from harness.runner.estimate import AS_ARMS, NOTHING_MORE, Later
from harness.runner.outlook import after_search, pictured
from harness.runner.reconciling import reconcile
from harness.runner.room import Setting
from harness.runner.signals import Stopped, Stops
from harness.runner.study_store import StudyStore
from harness.runner.terminal import aloud
from harness.scores.rows import SQUARED_ERROR
from harness.spec import TrialSpec
from harness.study import Ablation, Cell, Search, Study
from harness.study.search import MOST_REFITS

if TYPE_CHECKING:
    from harness.training.planner import Plan


@dataclass(frozen=True, kw_only=True)
class Session:
    """The place where a study trains and is recorded.

    Attributes:
        store: its runs and trials.
        board: where progress is shown.
        gather: returns what trials train on, and where; called once, when something is to be trained.
        per_gpu: how many trainings may share a GPU.
        executor: by name.
        origin: tags of every run.
        stops: the request to stop this process, and where it takes effect.
        spares: the processes that were started to become workers.
        costs: what trials have taken so far.
    """

    store: StudyStore
    board: Board
    gather: Callable[[], Setting]
    per_gpu: int = 1
    executor: str
    origin: Mapping[str, str]
    stops: Stops = field(default_factory=Stops)
    spares: Spares = field(default_factory=Spares)
    costs: Costs = field(default_factory=Costs)

    @cached_property
    def setting(self) -> Setting:
        """What trials train on, and where."""
        return self.gather()

    def plan(self, specs: Sequence[TrialSpec], *, alone: bool = False) -> "Plan":
        """Return how these trials become programs; if `alone`, one each, because their time is judged."""
        from harness.training import planner  # with torch

        at = self.setting
        probing = self.stops.allowed() if at.device.type != "cpu" else nullcontext()  # it may take a minute
        try:
            with probing:
                return planner.plan(specs, at.data, at.device, len(at.workers), per_gpu=self.per_gpu, alone=alone)
        except Stopped:
            self.store.tracker.stop_study()
            raise

    def say_other_images(self, runs: Mapping[str, str]) -> None:
        """Say how many of these runs, by cell id, are of other images than today's, if any is."""
        words = self.store.other_images(runs, self.origin["dataset.digest"])
        if words:
            with aloud(self.board.console):
                self.board.say(words)

    def train(
        self,
        queue: TrialQueue,
        specs: Sequence[TrialSpec],
        make_plan: Callable[[], "Plan"],
        headline: str,
        *,
        draw_all_figures: Callable[[Sequence[Cell]], Collection[str]] = lambda cells: (),
        keep_plan: Callable[[], str] = lambda: "",
        ahead: Ahead | None = None,
        later: Later = NOTHING_MORE,
    ) -> bool:
        """Settle what dead drivers have left, then train what is missing. Return whether anything was trained.

        Args:
            queue: what is to be trained.
            specs: trials like those that may be missing, by which the room that they take is estimated.
            make_plan: returns how trials become programs; it is asked if any is missing.
            headline: the score that a finished trial is announced with.
            draw_all_figures: gives the ids of trials to draw all figures of.
            keep_plan: stores what is claimed of the trials before one is begun, and returns the digest.
            ahead: is begun while the last of them train.
            later: what follows them.

        Raises:
            MachineError: there is no room for them; none was begun.
        """
        for line in reconcile(queue, self.store.tracker):
            self.board.say(line)
        digest = keep_plan()
        if not queue.missing:
            return False
        from harness import devices
        from harness.runner.driver import Driver  # with torch, as what follows
        from harness.training.checkpoints import Checkpoints

        at, plan, trials = self.setting, make_plan(), queue.store
        try:
            tight = disk.check(disk.estimate(specs, at.data, queue.missing, plan.workers * plan.lanes))
        except MachineError:
            self.store.tracker.stop_study()
            raise
        owner = sha256(trials.driver_id.encode()).hexdigest()[:8] if trials.shared else "own"
        scratch = paths.mlruns() / "scratch" / f"{trials.name}.{owner}"
        dirs = OutputDirs(scratch, paths.mlruns() / "checkpoints" / at.device.type / trials.name)
        origin = {"device": devices.describe(at.device), **self.origin} | ({PLAN_TAG: digest} if digest else {})
        kinds = {cell.arm: cell.spec for cell in queue.coming()} or dict.fromkeys((SEARCHED, TESTED), specs[0])
        self.costs.before = before.of_trials(self.store.name, self.store.budget, origin["device"], specs[0].epochs, kinds)
        driver = Driver(
            queue=queue,
            tracker=self.store.tracker,
            start_executor=lambda: executors.make(self.executor, at.workers, dirs, self.spares),
            plan=plan,
            board=self.board,
            origin=origin,
            checkpoints=Checkpoints(dirs.checkpoints),
            headline=headline,
            draw_all_figures=draw_all_figures,
            ahead=ahead or Ahead(),
            stops=self.stops,
            witness=at.witness,
            costs=self.costs,
            images=len(at.data.train.levels),
            later=later,
        )
        self.board.say(f"{counted(queue.missing, 'trial')} to run on {origin['device']}: {plan.why}")
        if tight:
            with aloud(self.board.console):
                self.board.say(tight)
        shutil.rmtree(scratch, ignore_errors=True)
        self.store.tracker.reopen_study()
        queue.prepare()
        driver.run()
        shutil.rmtree(scratch, ignore_errors=True)
        return True


def run(session: Session, study: Study) -> tuple[AblationResults, SearchResults | None, bool]:
    """Run the search of a study, if it has one, then train the arms that are judged.

    Return what is on record of the arms and of the search, and whether anything was trained.
    """
    budget, search_results, best, trained = session.store.budget, None, {}, False
    if study.search is not None:
        search_results, trained = _run_search(session, study.search)
        best = winners(search_results.best, study.search)
    results, trained_arms = _run_ablation(session, study.judged(budget, best), study.part)
    return results, search_results, trained or trained_arms


def _run_search(session: Session, search: Search) -> tuple[SearchResults, bool]:
    """Train the missing trials of a search. Return what is on record then, and whether anything was trained."""
    budget = session.store.budget
    specs = likely(search, budget)
    plan = session.plan(specs, alone=search.timed)
    with session.store.search_queue(search, search.batch_of(budget, plan.workers * plan.lanes)) as queue:
        session.say_other_images(completed_runs(queue.store))
        trained = session.train(queue, specs, lambda: plan, search.quality.key, later=after_search(search, budget))
        return SearchResults.of(search, budget, queue), trained


def _run_ablation(session: Session, study: Ablation, part: str) -> tuple[AblationResults, bool]:
    """Train the missing cells, look by look. Return what is on record then, and whether anything was trained.

    A study with several looks stops at the first at which all its claims are settled.
    """
    budget = session.store.budget
    trained = False
    for seeds in study.budgets[budget].planned_looks:
        results, trained_now = _run_look(session, study, part, seeds)
        trained = trained or trained_now
        if results.settled:
            break
    return results, trained


def _run_look(session: Session, study: Ablation, part: str, seeds: int) -> tuple[AblationResults, bool]:
    """Train the missing cells of the first seeds. Return what is on record then, and whether anything was trained."""
    cells = study.cells(session.store.budget, seeds)
    drawn = pictured(cells)

    def draw_all_figures(candidates: Sequence[Cell]) -> set[str]:
        return {c.spec.id for c in candidates} & drawn

    data = {study.base.dataset: session.origin["dataset.digest"]}
    with session.store.ablation_queue(study, cells, part) as queue:
        specs = [c.spec for c in cells]

        def make_plan() -> "Plan":
            plan = session.plan(specs)
            if plan.lanes > 1:
                queue.arrange(lambda cell: (plan.group(cell.spec), cell.spec.cohort.id))
            return plan

        def keep_plan() -> str:
            return session.store.keep_plan(study, queue.store, data).head

        session.say_other_images(queue.done())
        ahead = Ahead(partial(load_publisher, exporter=study.objective is not None))
        trained = session.train(
            queue,
            specs,
            make_plan,
            SQUARED_ERROR.key,
            draw_all_figures=draw_all_figures,
            keep_plan=keep_plan,
            ahead=ahead,
            later=Later(reported=len(study.arms) + AS_ARMS * bool(part)),
        )
        return session.store.results(study, queue, seeds), trained


def likely(search: Search, budget: str) -> list[TrialSpec]:
    """Return specs to plan the programs of a search for.

    They are as many as its trials if all points share a program, else one for each of two opposite corners of the space.
    """
    low = search.point(budget, lambda p: p.choices[0] if p.choices else p.low)
    lanes = {f.name for f in fields(TrialSpec) if f.metadata.get("lane")}
    if set(search.space) <= lanes:
        return [low.derive(seed=i) for i in range(search.budgets[budget].trials * len(search.seeds))]
    high = search.point(budget, lambda p: p.choices[-1] if p.choices else p.high)
    return [low, high]


def winners(best: Sequence[SearchTrial], search: Search) -> dict[str, TrialSpec]:
    """Return the specs to train again, by arm.

    They are the best trial; with several objectives the best by each and one in between.
    """
    if not best:
        return {}
    if len(search.objectives) == 1:
        return {"tuned": best[0].spec}
    indices = dict.fromkeys((0, len(best) - 1, len(best) // 2))
    return {f"#{best[i].number}": best[i].spec for i in list(indices)[:MOST_REFITS]}
