"""An ablation and a search, each from its plan to the findings that a report is made of."""

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256

import torch
from rich.console import Console

from harness import desk as desks
from harness import executors, paths, planner
from harness.checkpoints import Checkpoints
from harness.data import Data
from harness.desk import Asked, Desk, Ledger, SearchDesk
from harness.executors import Places
from harness.report import Findings, SearchFound
from harness.run.driver import Driver
from harness.run.stopping import Stops
from harness.spec import LANE, TrialSpec
from harness.study import SCORES, Ablation, Cell, Search
from harness.study.search import MOST_REFITS
from harness.tracking import MlflowTracker


@dataclass(frozen=True)
class Records:
    """Where a study and budget are on record: its runs, and its ledgers."""

    name: str
    budget: str
    tracker: MlflowTracker
    storage: str  # the URI of a server that holds the ledger, or nothing for the file in mlruns/

    @contextmanager
    def ledger(self, part: str, directions: Sequence[str]) -> Iterator[Ledger]:
        """The ledger of this study, or of a part of it."""
        name = ".".join(filter(None, (self.name, self.budget, part)))
        ledger = Ledger(name, directions, desks.database(self.storage), shared=bool(self.storage))
        try:
            yield ledger
        finally:
            ledger.close()

    @contextmanager
    def desk(self, study: Ablation, part: str = "") -> Iterator[Desk]:
        """The desk of an ablation: it remembers the objective, or the training ELBO where there is none."""
        score = study.objective or "elbo/train"
        with self.ledger(part, [_direction(score)]) as ledger:
            yield Desk(ledger, study.cells(self.budget), lambda metrics: metrics[score])

    @contextmanager
    def search_desk(self, search: Search, batch: int) -> Iterator[SearchDesk]:
        """The desk of a search; the ledger of a changed search is another one."""
        with self.ledger(_digest(search, self.budget), [_direction(o) for o in search.objectives]) as ledger:
            ledger.note_study({"sampler": search.sampler_of(self.budget), "batch": batch})
            desk = SearchDesk(ledger, search, self.budget, batch)
            desk.finished = self.tracker.finished_runs(ledger.name)
            yield desk

    def findings(self, study: Ablation, desk: Desk) -> Findings:
        """What is on record of an ablation."""
        return Findings.collect(self.name, self.budget, study, study.cells(self.budget), desk.done(), desk.given_up(), self.tracker)


@dataclass(frozen=True)
class Site:
    """Where and how a study trains, and where it is on record."""

    records: Records
    console: Console
    data: Data
    device: torch.device
    devices: Sequence[str]  # one per place to train at
    executor: str
    origin: Mapping[str, str]
    stops: Stops = field(default_factory=Stops)

    def plan(self, specs: Sequence[TrialSpec], *, alone: bool = False) -> planner.Plan:
        """How these trials become programs; `alone`: one each, for their time is judged."""
        found = planner.plan(specs, self.data, self.device, len(self.devices))
        return planner.Plan(found.workers, 1, found.compiled, found.mixed, found.why) if alone else found

    def train(
        self,
        desk: Desk | SearchDesk,
        plan: planner.Plan,
        prepare: Callable[[], None],
        shown: str,
        pictured: Callable[[Sequence[Cell]], Collection[str]] = lambda cells: (),
    ) -> bool:
        """Settle what dead drivers left, then train what is missing. Returns whether anything was."""
        ledger = desk.ledger
        scratch = (
            paths.mlruns() / "scratch" / f"{ledger.name}.{sha256(ledger.me.encode()).hexdigest()[:8] if ledger.shared else 'own'}"
        )
        places = Places(scratch, paths.mlruns() / "checkpoints" / self.device.type)

        def start() -> executors.Executor:
            return executors.make(self.executor, self.devices, places)

        kept = Checkpoints(places.checkpoints)
        tracker, console, origin = self.records.tracker, self.console, self.origin
        driver = Driver(desk, tracker, start, plan, console, origin, kept, shown, pictured, self.stops)
        for line in driver.reconcile():
            self.console.print(line, highlight=False)
        if not desk.missing:
            return False
        self.console.print(f"{desk.missing} trials to run on {self.origin['device']}: {plan.why}", highlight=False)
        shutil.rmtree(scratch, ignore_errors=True)
        self.records.tracker.reopen_study()
        prepare()
        driver.run()
        shutil.rmtree(scratch, ignore_errors=True)
        return True


def _direction(score: str) -> str:
    """Optuna's word for which way is better."""
    return "minimize" if score in SCORES and SCORES[score].better == "lower" else "maximize"


def run_ablation(site: Site, study: Ablation, part: str = "") -> tuple[Findings, bool]:
    """Train the missing cells. Returns what is on record then, and whether anything was trained."""
    cells = study.cells(site.records.budget)
    plan = site.plan([c.spec for c in cells])
    first = {cell.arm: cell.spec.id for cell in sorted(cells, key=lambda c: -c.seed)}  # the first seed of every arm

    def alike(cell: Cell) -> tuple[str, str]:
        return plan.group(cell.spec).id, cell.spec.cohort.id

    with site.records.desk(study, part) as desk:
        order = sorted(cells, key=alike) if plan.lanes > 1 else cells
        trained = site.train(
            desk,
            plan,
            lambda: desk.prepare(order),
            "test/squared_error",
            lambda some: [c.spec.id for c in some if c.spec.id in first.values()],
        )
        return site.records.findings(study, desk), trained


def _digest(search: Search, budget: str) -> str:
    """What names a search's ledger beside its study and budget: a digest of all that its history depends on."""
    chosen = search.budgets[budget]
    depends = {
        "base": search.base.as_dict(),
        "space": {name: [type(axis).__name__, asdict(axis)] for name, axis in search.space.items()},
        "rest": [list(search.objectives), list(search.seeds), search.sampler_of(budget), chosen.epochs],
        "pruner": asdict(search.pruner) if search.pruner else None,
        "constraints": [asdict(c) for c in search.constraints],
    }
    return sha256(json.dumps(depends, sort_keys=True, default=str).encode()).hexdigest()[:8]


def run_search(site: Site, search: Search) -> tuple[Findings, SearchFound, bool]:
    """Search, then train the best on new seeds and test it against the base. Returns what is on record then."""
    budget = site.records.budget
    plan = site.plan(likely(search, budget), alone=search.timed)
    with site.records.search_desk(search, search.batch_of(budget, plan.workers * plan.lanes)) as desk:
        trained = site.train(desk, plan, desk.prepare, search.quality)
        found = SearchFound.of(search, budget, desk)
        refit = refit_of(search, budget, desk)
    findings, tested = run_ablation(site, refit, "refit")
    return findings, found, trained or tested


def refit_of(search: Search, budget: str, desk: SearchDesk) -> Ablation:
    """The search's test, as far as it is known: the base and the best so far on new seeds."""
    return search.refit(budget, winners(desk.best(), search))


def likely(search: Search, budget: str) -> list[TrialSpec]:
    """Specs to plan for: as many as trials where all points share a program, else one per corner of the space."""
    low = search.point(budget, lambda p: p.choices[0] if p.choices else p.low)
    lanes = {f.name for f in fields(TrialSpec) if f.metadata == LANE}
    if set(search.space) <= lanes:
        return [low.derive(seed=i) for i in range(search.budgets[budget].trials * len(search.seeds))]
    high = search.point(budget, lambda p: p.choices[-1] if p.choices else p.high)
    return [low, high]


def winners(best: Sequence[Asked], search: Search) -> dict[str, TrialSpec]:
    """What is trained again: the best trial; of several objectives the best by each, and one in between."""
    if not best:
        return {}
    if len(search.objectives) == 1:
        return {"tuned": best[0].spec}
    spots = dict.fromkeys((0, len(best) - 1, len(best) // 2))
    return {f"#{best[i].number}": best[i].spec for i in list(spots)[:MOST_REFITS]}
