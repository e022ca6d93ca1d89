"""Ids name content, and content that was there before keeps its name: what is on record is found again."""

import hashlib
from typing import Any

import pytest

from harness.runner.study_store import StudyStore
from harness.spec import FIELDS, LATER, TrialSpec
from harness.study import load_study

# As they are since likelihoods and networks take arguments (CHANGELOG.md).
TRIALS: dict[str, dict[str, Any]] = {
    "c2fac27047f0": {},
    "c3aeaaa63fae": {"likelihood": "bernoulli", "likelihood_args": {"binarisation": "static"}, "seed": 3},
    "1d3d870a94c6": {"likelihood": "mse", "likelihood_args": {"sigma": 0.5}, "beta": 4},
    "c16f06a15aa0": {
        "network": "mlp",
        "hidden": (64, 32),
        "latent": 10,
        "optimizer": "adamw",
        "weight_decay": 1e-2,
        "learning_rate": 1e-3,
        "learning_rate_decay": 0.1,
    },
    "0a18b6a92a43": {"objective": "iwae", "num_samples": 5, "dataset": "digits", "precision": "bf16", "evaluation": "full"},
}
STUDIES = {"loss_ablation": "7c24cf24d6e0", "activation_ablation": "cbc174f2cdf3"}
SEARCHES = {"learning_rate_search": "8ea3c4b9", "architecture_search": "b829109e", "elbo_vs_throughput": "ab049077"}


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_on_record_keeps_its_id(name: str) -> None:
    assert TrialSpec(**TRIALS[name]).id == name


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_on_record_keeps_its_cells(name: str) -> None:
    study = load_study(name).judged("default", {})
    ids = "".join(cell.spec.id for cell in study.cells("default"))
    assert hashlib.sha256(ids.encode()).hexdigest()[:12] == STUDIES[name]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_on_record_keeps_its_trials(name: str) -> None:
    search = load_study(name).search
    assert search is not None

    class Quiet:
        """A tracker without runs."""

        def finished_runs(self, ledger: str) -> set[str]:
            return set()

    store = StudyStore(name, "default", Quiet(), "")  # type: ignore[arg-type]
    with store.search_queue(search, 2) as queue:
        assert queue.store.name == f"{name}.default.{SEARCHES[name]}"


def test_what_came_later_counts_once_it_is_set() -> None:
    later = [f for f in TrialSpec.__dataclass_fields__.values() if f.metadata.get("later")]
    assert {f.name for f in later} == {
        "dataset_args",
        "learning_rate_schedule",
        "learning_rate_warmup",
        "clip_norm",
        "ema_decay",
        "patience",
    }
    assert LATER == {"later": True}
    plain = TrialSpec()
    assert set(plain.identity) == set(FIELDS) - {f.name for f in later}
    for change in (
        {"learning_rate_schedule": "constant"},
        {"learning_rate_warmup": 1.0},
        {"clip_norm": 1.0},
        {"ema_decay": 0.999},
        {"patience": 5},
    ):
        assert plain.derive(**change).id != plain.id
        assert set(plain.derive(**change).identity) == set(plain.identity) | set(change)
