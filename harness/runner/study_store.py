"""The records of a study and budget: its runs in MLflow and its trials in Optuna."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256

from harness import plans
from harness.queue import AblationQueue, SearchQueue, TrialStore, completed_runs, database, known_results
from harness.report import AblationResults
from harness.report.ablation.judging import looks_taken
from harness.scores import Score
from harness.scores.rows import ELBO_TRAIN
from harness.study import Ablation, Cell, Search
from harness.tracking import MlflowTracker


@dataclass(frozen=True)
class StudyStore:
    """The records of one study and budget.

    Attributes:
        name: of the study.
        budget: of the study, by name.
        tracker: records its runs.
        storage: the URI of a server that holds its trials; empty for the file in mlruns/.
        question: that the study asks.
    """

    name: str
    budget: str
    tracker: MlflowTracker
    storage: str
    question: str = ""

    @contextmanager
    def trials(self, part: str, directions: Sequence[str]) -> Iterator[TrialStore]:
        """Open the trials of this study, or of a part of it; `directions` are Optuna's, one per objective."""
        name = ".".join(filter(None, (self.name, self.budget, part)))
        store = TrialStore(name, directions, database(self.storage), shared=bool(self.storage))
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def ablation_queue(self, study: Ablation, cells: Sequence[Cell], part: str) -> Iterator[AblationQueue]:
        """Open the queue of an ablation. It stores the objective of a trial, or the training ELBO if there is none."""
        score = study.scores[study.objective] if study.objective else ELBO_TRAIN
        with self.trials(part, [_direction(score)]) as store:
            yield AblationQueue(store, cells, lambda metrics: metrics[score.key])

    @contextmanager
    def search_queue(self, search: Search, batch: int) -> Iterator[SearchQueue]:
        """Open the queue of a search. A search that was changed has other trials."""
        with self.trials(_digest(search, self.budget), [_direction(search.scores[o]) for o in search.objectives]) as store:
            store.note_study({"sampler": search.sampler_of(self.budget), "batch": batch})
            queue = SearchQueue(store, search, self.budget, batch)
            queue.finished = self.tracker.finished_runs(store.name)
            yield queue

    def plan_of(self, store: TrialStore) -> plans.PlanRecord:
        """Return the plans and looks of a trial store, held against the copies of them in the parent run and its runs."""
        tag, text = self.tracker.plan_on_record()
        records = self.tracker.results(completed_runs(store)).values()
        runs = [r.tags[plans.PLAN_TAG] for r in records if plans.PLAN_TAG in r.tags]
        return plans.read(store.notes()).checked(tag=tag, file=text, runs=runs)

    def keep_plan(self, study: Ablation, store: TrialStore, data: Mapping[str, str] | None = None) -> plans.PlanRecord:
        """State the present plan of a study, unless its newest is the same, and return all plans and looks.

        A record with a fault is left as it is. Call it before a trial is begun, once the trials of dead drivers are settled.

        Args:
            study: the ablation.
            store: its trials.
            data: the digest of each data set by name; None for those of the newest plan.
        """
        with store.alone():
            record = self.plan_of(store)
            newest = record.present or {}
            known_data = newest.get("data", {}) if data is None else data
            content = plans.stated(study, name=self.name, budget=self.budget, question=self.question, data=known_data)
            if record.faults:
                return record
            if plans.comparable_content(content) == plans.comparable_content(newest) and known_data == newest.get("data"):
                return record
            trials = record.trials_with(content)
            known = known_results(store.database, store.name, trials, lambda run: bool(self.tracker.look(run)[1]))
            record = record.and_plan(content, known)
            plans.add(store, record)
            present = {cell for facts in content["arms"].values() for cell in facts["trials"].values()}
            self.tracker.supersede(store.name, present, f"plan {len(record.plans)}")
            self.tracker.keep_plan(record.head, record.as_text())
        return record

    def results(self, study: Ablation, queue: AblationQueue, seeds: int | None = None) -> AblationResults:
        """Return what is on record of an ablation, and count the look if verdicts come of it.

        `seeds` is the number of seeds that its looks have come to, or None for all.
        """
        store = queue.store
        record = self.plan_of(store)

        def collected() -> AblationResults:
            runs = completed_runs(store) | queue.done()
            return AblationResults.collect(
                self.name, self.budget, study, runs, queue.given_up(), self.tracker, plan=record, seeds=seeds
            )

        results = collected()
        taken = looks_taken(results.judgements)
        seen = {(name, n) for look in record.looks for name, n in look.content["looks"].items()}
        if record.plans and not record.faults and not seen.issuperset(taken.items()):
            with store.alone():
                record = self.plan_of(store).and_look({"looks": taken, "plan": len(record.plans)})
                plans.add(store, record)
                self.tracker.keep_plan(record.head, record.as_text())
            results = collected()
        return results


def _direction(score: Score) -> str:
    """Return Optuna's word for the direction in which a score is better."""
    return "minimize" if score.better == "lower" else "maximize"


def _digest(search: Search, budget: str) -> str:
    """Return the name of a search's trials beside its study and budget: a digest of all that its history depends on."""
    settings = search.budgets[budget]
    content = {
        "base": search.base.identity,
        "space": {name: [type(axis).__name__, asdict(axis)] for name, axis in search.space.items()},
        "rest": [list(search.objectives), list(search.seeds), search.sampler_of(budget), settings.epochs],
        "pruner": asdict(search.pruner) if search.pruner else None,
        "constraints": [asdict(c) for c in search.constraints],
    }
    return sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]
