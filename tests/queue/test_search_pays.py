"""What a search is for: better than luck for the same number of trials, and as good for half the epochs."""

import time

import optuna
import pytest
import torch

from harness import data
from harness.queue import SearchQueue, TrialStore, optuna_internals
from harness.spec import TrialSpec
from harness.study import Pruner, Real, Search, SearchBudget
from harness.training.cohort import Cohort

BASE = TrialSpec(dataset="digits", network="mlp", hidden=(32,), latent=4, batch_size=128, optimizer="adamw")
SPACE = {
    "learning_rate": Real(1e-5, 1.0, log=True),
    "learning_rate_decay": Real(1e-3, 1.0, log=True),
    "beta": Real(0.1, 10.0, log=True),
    "kl_warmup": Real(0.0, 9.0),
}
TRIALS, EPOCHS = 40, 9


@pytest.fixture(autouse=True)
def stores_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep each store of trials in memory: which points are asked for does not depend on where they are kept, the time does."""
    memory = optuna.storages.InMemoryStorage
    monkeypatch.setattr(optuna.storages, "RDBStorage", lambda *_, **__: memory())
    monkeypatch.setattr(optuna.storages, "get_storage", lambda storage: storage or memory())  # Optuna's asks for the class
    monkeypatch.setattr(optuna_internals, "SoleStorage", lambda database: database)


def found(sampler: str, name: str, pruner: Pruner | None = None) -> tuple[float, int]:
    """The best validation ELBO of a search, and the epochs that it took. Trials of a batch train side by side."""
    budget = SearchBudget(trials=TRIALS, epochs=EPOCHS)
    search = Search(
        base=BASE, space=SPACE, objectives=("elbo/validation",), sampler=sampler, pruner=pruner, budgets={"default": budget}
    )
    digits = data.load_dataset("digits", say=lambda _: None)
    queue = SearchQueue(TrialStore(name, ["maximize"], ""), search, "default", 8)
    queue.prepare()
    spent = 0
    while queue.busy():
        assignments = queue.take(8, lambda cell: cell.spec.cohort)
        if not assignments:
            time.sleep(0.05)
            continue
        cohort = Cohort([t.cell.spec for t in assignments], digits, torch.device("cpu"))
        in_training = {a.cell.spec.id: a for a in assignments}
        rows: dict[str, dict[str, float]] = {}
        for epoch in range(1, EPOCHS + 1):
            spent += len(cohort.specs)
            rows = cohort.run_epoch()
            for spec in set(cohort.failures) & set(in_training):
                queue.fail(in_training.pop(spec), cohort.failures[spec], final=True)
            hopeless = [
                s for s, row in rows.items() if queue.pruning is not None and queue.pruning.report(in_training[s], epoch, row)
            ]
            cohort.prune(hopeless)
            for spec in hopeless:
                queue.pruned(in_training.pop(spec))
            if not in_training:
                break
        for spec, assignment in in_training.items():
            queue.complete(assignment, rows[spec])
    assert queue.missing == 0
    (best, *_) = (a.values["elbo/validation"] for a in queue.best() if a.values)
    return best, spent


@pytest.mark.slow
def test_40_trials_of_a_gaussian_process_beat_40_random_ones() -> None:
    pairs = [(found("gp", f"gp{i}")[0], found("random", f"random{i}")[0]) for i in range(2)]
    assert all(gp > luck for gp, luck in pairs), pairs


@pytest.mark.slow
def test_a_pruned_search_is_as_good_for_half_the_epochs() -> None:
    whole, all_epochs = found("random", "the_same_points")  # equal names ask for equal points
    pruned, epochs = found("random", "the_same_points", Pruner(name="asha", first=1, factor=3))
    assert epochs <= all_epochs / 2
    assert pruned >= whole - 0.01 * abs(whole)
