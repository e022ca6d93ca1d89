"""The records of a study and budget: its runs in MLflow and its trials in Optuna."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256

from harness.queue import AblationQueue, SearchQueue, TrialStore, database
from harness.report import AblationResults
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
    """

    name: str
    budget: str
    tracker: MlflowTracker
    storage: str

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

    def results(self, study: Ablation, queue: AblationQueue) -> AblationResults:
        """Return what is on record of an ablation."""
        return AblationResults.collect(self.name, self.budget, study, queue.done(), queue.given_up(), self.tracker)


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
