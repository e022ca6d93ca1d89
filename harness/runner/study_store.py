"""The records of a study and budget: its runs in MLflow and its trials in Optuna."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256

from harness import plans
from harness.evidence import rebuild
from harness.queue import (
    AblationQueue,
    SearchQueue,
    TrialStore,
    adopt,
    completed_runs,
    database,
    failures_on_record,
    known_results,
    lost_results,
    manifests,
    restore_plans,
)
from harness.report import AblationResults
from harness.report.ablation.judging import looks_taken
from harness.scores import Score
from harness.scores.rows import ELBO_TRAIN
from harness.study import Ablation, Cell, Search
from harness.tracking import MANIFEST_TAG, SUPERSEDED_BY, MlflowTracker, plan_tags


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
            queue = AblationQueue(store, cells, lambda metrics: metrics[score.key])
            self._hold_against_runs(queue)
            yield queue

    def _hold_against_runs(self, queue: AblationQueue) -> None:
        """Fill a trial store that was lost, or is an older copy, from the runs on record, and say so; say which runs are gone."""
        store = queue.store
        queue.finished = self._finished(store)
        unknown = queue.finished - queue.runs()
        plan = not store.trials() and restore_plans(store, *self.tracker.plan_on_record())
        if unknown:
            with store.alone():
                adopted = adopt(queue, self.tracker.results({run: run for run in unknown}).values(), MANIFEST_TAG)
            if adopted:
                are, also = "are" if adopted > 1 else "is", " and the plan" if plan else ""
                _say(f"{adopted} of the study's results {are} not in the trial store: read back{also} from MLflow")
        _say_gone(len(completed_runs(store).keys() & queue.cells.keys() - queue.done().keys()))

    @contextmanager
    def search_queue(self, search: Search, batch: int) -> Iterator[SearchQueue]:
        """Open the queue of a search. A search that was changed has other trials."""
        with self.trials(_digest(search, self.budget), [_direction(search.scores[o]) for o in search.objectives]) as store:
            store.note_study({"sampler": search.sampler_of(self.budget), "batch": batch})
            queue = SearchQueue(store, search, self.budget, batch)
            queue.finished = self._finished(store)
            _say_gone(len(queue.gone()))
            if unknown := queue.finished - queue.runs():
                records = self.tracker.results({run: run for run in unknown})
                queue.lost = lost_results(queue, records.values(), self.tracker.series, MANIFEST_TAG)
            if queue.lost.runs:
                count = f"{len(queue.lost.runs)} results are" if len(queue.lost.runs) > 1 else "1 result is"
                _say(f"{count} not in the trial store: the search asks for its points again, and reads from MLflow what it knows")
            yield queue

    def _finished(self, store: TrialStore) -> set[str]:
        """Return the finished runs of a trial store, with those that MLflow has lost entered again, if their files are here."""
        finished = self.tracker.finished_runs(store.name)
        if manifests(store).keys() <= finished:
            return finished
        with store.alone():
            finished = self.tracker.finished_runs(store.name)
            lost = {run: digest for run, digest in manifests(store).items() if run not in finished}
            entered = rebuild(self.tracker, lost)
        if entered:
            were = "were" if entered > 1 else "was"
            _say(f"{entered} of the study's runs {were} not in MLflow: read back from the trial store and their files")
        return self.tracker.finished_runs(store.name)

    def plan_of(self, store: TrialStore) -> plans.PlanRecord:
        """Return the plans and looks of a trial store, held against the copies of them in the parent run and its runs."""
        return self._plan_and_copies(store)[0]

    def _plan_and_copies(self, store: TrialStore) -> tuple[plans.PlanRecord, tuple[str, str]]:
        """Return the plans and looks of a trial store, and the digest and text of them that the parent run keeps."""
        copies = self.tracker.plan_on_record()
        runs = plan_tags(r.tags for r in self.tracker.results(completed_runs(store)).values())
        return plans.read(store.notes()).checked(tag=copies[0], file=copies[1], runs=runs), copies

    def keep_plan(self, study: Ablation, store: TrialStore, data: Mapping[str, str] | None = None) -> plans.PlanRecord:
        """State the present plan of a study, unless its newest is the same, and return all plans and looks.

        A record with a fault is left as it is. Call it before a trial is begun, once the trials of dead drivers are settled. What a
        kill has left undone is done by the next call.

        Args:
            study: the ablation.
            store: its trials.
            data: the digest of each data set by name; None for those of the newest plan.
        """
        with store.alone() as keep_lock:
            record, copies = self._plan_and_copies(store)
            if record.faults:
                return record
            newest = record.present or {}
            known_data = newest.get("data", {}) if data is None else data
            content = plans.stated(study, name=self.name, budget=self.budget, question=self.question, data=known_data)
            same = plans.comparable_content(content) == plans.comparable_content(newest)
            if not same or known_data != newest.get("data"):

                def has_rows(run: str) -> bool:
                    keep_lock()
                    return bool(self.tracker.look(run)[1])

                record = record.and_plan(content, *known_results(store.database, store.name, record, content, has_rows))
                plans.add(store, record)
            if copies != (record.head, record.as_text()):
                self.tracker.keep_plan(record.head, record.as_text())
        version = f"plan {len(record.plans)}"
        if self.tracker.study_tag(SUPERSEDED_BY) != version:
            present = {cell for facts in content["arms"].values() for cell in facts["trials"].values()}
            self.tracker.supersede(store.name, present, version)
        return record

    def other_images(self, runs: Mapping[str, str], digest: str) -> str:
        """Return in words how many of these runs, by cell id, are of other images than those of a digest; empty if none is.

        The bytes of files and the code of a function are part of a trial's id, but what a function returns or a decoder makes of a
        picture is not.
        """
        known = {cell: record.tags.get("dataset.digest", digest) for cell, record in self.tracker.results(runs).items()}
        others = sorted({other[:12] for other in known.values() if other != digest})
        count = sum(other != digest for other in known.values())
        if not others:
            return ""
        return (
            f"careful: {count} of {len(known)} trials on record had other images, of the digest {' or '.join(others)}; "
            f"today's have {digest[:12]}\n"
            "they are not trained again: for that, change the code that gives the images, if only a version number"
        )

    def results(self, study: Ablation, queue: AblationQueue, seeds: int | None = None) -> AblationResults:
        """Return what is on record of an ablation, and count the look if verdicts come of it.

        `seeds` is the number of seeds that its looks have come to, or None for all.
        """
        store = queue.store
        results = self._collected(study, queue, self.plan_of(store), seeds)
        if self._new_looks(results):
            with store.alone():
                results = self._collected(study, queue, self.plan_of(store), seeds)
                looks = self._new_looks(results)
                if looks:
                    record = results.plan.and_look({"looks": looks, "plan": len(results.plan.plans)})
                    plans.add(store, record)
                    self.tracker.keep_plan(record.head, record.as_text())
            results = self._collected(study, queue, self.plan_of(store), seeds)
        return results

    def _collected(self, study: Ablation, queue: AblationQueue, record: plans.PlanRecord, seeds: int | None) -> AblationResults:
        """Return what is on record of an ablation that has these plans and looks."""
        runs = completed_runs(queue.store) | queue.done()
        failures = failures_on_record(queue.store)
        return AblationResults.collect(self.name, self.budget, study, runs, failures, self.tracker, plan=record, seeds=seeds)

    @staticmethod
    def _new_looks(results: AblationResults) -> dict[str, int]:
        """Return the looks that the verdicts rest on and that were not counted yet; none without a sound plan."""
        record = results.plan
        if record.faults or not record.plans:
            return {}
        counted = {(name, n) for look in record.looks for name, n in look.content["looks"].items()}
        return {name: n for name, n in looks_taken(results.judgements).items() if (name, n) not in counted}


def _say(line: str) -> None:
    """Print what was found in the stores, for people."""
    print(line, file=sys.stderr)


def _say_gone(results: int) -> None:
    """Print how many results of trials are not in MLflow any more, if there are such."""
    if results:
        count = f"{results} results are" if results > 1 else "1 result is"
        _say(f"{count} no longer in MLflow: a start trains again what is not restored there")


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
