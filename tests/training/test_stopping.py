"""A trial with patience ends as the rule says, with the weights of its best epoch: held against one that trains to the end."""

from typing import Any

import pytest
import torch
from steps import CPU, SMALL, assert_close, weights
from torch import Tensor

from harness.data import Data, load_dataset
from harness.models.vae import VAE
from harness.training.cohort import Cohort
from harness.training.extras import AVERAGE

# Its validation ELBO falls after epoch 5, and twice in a row after epoch 8.
BASE = SMALL.derive(epochs=12, learning_rate=1e-2, latent=8, ema_decay=0.9)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


def of(vae: VAE) -> list[Tensor]:
    return [p.detach().clone() for p in vae.parameters()]


@pytest.fixture(scope="module")
def to_the_end(digits: Data) -> list[tuple[dict[str, float], list[Tensor], list[Tensor]]]:
    """The row, the weights and their average after every epoch of the trial without patience."""
    cohort, epochs = Cohort([BASE], digits, CPU), []
    for _ in range(BASE.epochs):
        row = cohort.run_epoch()[BASE.id]
        epochs.append((row, of(cohort.trained(BASE)), of(cohort.trained(BASE, AVERAGE))))
    return epochs


def by_the_rule(elbos: list[float], patience: int) -> tuple[int, int]:
    """The best epoch and the last one."""
    best = 1
    for epoch, elbo in enumerate(elbos, start=1):
        if elbo > elbos[best - 1]:
            best = epoch
        if epoch - best >= patience:
            return best, epoch
    return best, len(elbos)


@pytest.mark.parametrize("patience", [1, 100])
def test_a_trial_ends_with_its_best_epoch(patience: int, digits: Data, to_the_end: list[Any]) -> None:
    """Bitwise that of the same trial without patience; up to the end both train alike."""
    best, last = by_the_rule([row["elbo/validation"] for row, *_ in to_the_end], patience)
    assert best < last, "a best epoch that is the last tests nothing"
    assert last < BASE.epochs or patience > BASE.epochs
    spec = BASE.derive(patience=patience)
    cohort, rows = Cohort([spec], digits, CPU), []
    while cohort.specs and cohort.epoch < spec.epochs:
        rows.append(cohort.run_epoch()[spec.id])
    assert (len(rows), cohort.patience.best[spec.id].epoch) == (last, best)
    assert bool(cohort.patience.stopped) == (last < spec.epochs)
    assert cohort.failures == {}
    _, kept, average = to_the_end[best - 1]
    assert all(torch.equal(a, b) for a, b in zip(of(cohort.trained(spec)), kept, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(of(cohort.trained(spec, AVERAGE)), average, strict=True))
    for epoch, (ours, (theirs, *_)) in enumerate(zip(rows, to_the_end, strict=False), start=1):
        so_far, _ = by_the_rule([row["elbo/validation"] for row, *_ in to_the_end[:epoch]], epoch)
        assert ours["train/best_epoch"] == so_far
        for key, value in theirs.items():
            wanted = to_the_end[so_far - 1][0][key] if key.endswith("/validation") else value
            assert key.startswith("perf/") or ours[key] == wanted


def test_others_go_on_without_it(digits: Data, to_the_end: list[Any]) -> None:
    """The lane of a trial that has stopped is masked and compacted; the patience of one is nobody else's."""
    crew = [BASE.derive(patience=1), BASE.derive(seed=1), BASE.derive(seed=2, patience=50)]
    cohort, rows = Cohort(crew, digits, CPU), []
    for _ in range(8):
        rows.append(cohort.run_epoch())
    stopped = [spec.id for spec in cohort.patience.stopped]
    assert stopped == [crew[0].id]
    assert cohort.specs == cohort.lanes == crew[1:]
    best, last = by_the_rule([row["elbo/validation"] for row, *_ in to_the_end], 1)
    assert [crew[0].id in row for row in rows] == [epoch <= last for epoch in range(1, 9)]
    assert_close(weights(cohort, crew[0]), [t[0] for t in to_the_end[best - 1][1]], tolerance=2e-2)
    alone = Cohort([crew[1]], digits, CPU)
    rows_alone = [alone.run_epoch() for _ in range(2)]
    assert rows[1][crew[1].id]["elbo/validation"] == pytest.approx(rows_alone[1][crew[1].id]["elbo/validation"], rel=1e-3)
    cohort.prune([crew[0].id])
    assert cohort.patience.stopped == []


@pytest.mark.parametrize("after", [2, 9])
def test_it_goes_on_from_a_checkpoint(after: int, digits: Data) -> None:
    """With the best weights and the count: before its best epoch, and within its patience."""
    spec = BASE.derive(patience=2)
    whole = Cohort([spec], digits, CPU)
    state, rows = whole.training_state(), {}
    while whole.specs:
        row = whole.run_epoch()[spec.id]
        rows[whole.epoch] = row
        if whole.epoch == after:
            state = whole.training_state()
    again = Cohort([spec], digits, CPU)
    again.restore([state.snapshot(spec)])
    while again.specs:
        for key, value in again.run_epoch()[spec.id].items():
            assert key.startswith("perf/") or value == rows[again.epoch][key]
    assert again.epoch == whole.epoch
    assert again.patience.stopped == whole.patience.stopped == [spec]
    assert all(torch.equal(a, b) for a, b in zip(of(again.trained(spec)), of(whole.trained(spec)), strict=True))


def test_one_that_has_stopped_is_restored_as_such(digits: Data) -> None:
    """Beside one that goes on, at whatever epoch that is."""
    crew = [BASE.derive(patience=1), BASE.derive(seed=1)]
    cohort = Cohort(crew, digits, CPU)
    while len(cohort.specs) > 1:
        cohort.run_epoch()
    cohort.run_epoch()
    kept = [cohort.training_state().snapshot(s) for s in crew]
    assert set(kept[0]) == {"epoch", "best"}
    assert set(kept[1]) == {"epoch", "parameters", "mean", "square", AVERAGE}
    again = Cohort(crew, digits, CPU)
    again.restore(kept)
    assert (again.specs, again.patience.stopped, again.epoch) == ([crew[1]], [crew[0]], cohort.epoch)
    assert all(torch.equal(a, b) for a, b in zip(weights(again, crew[0]), weights(cohort, crew[0]), strict=True))
    assert set(again.run_epoch()) == {crew[1].id}
