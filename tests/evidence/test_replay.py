"""`harness replay`: a trial on record comes out bit by bit the same, whatever it is made of, and says so if it does not."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import own_file
import pytest
import torch
from drivers import ALONE, PAIR, TWO_STEPS, queue_of
from evidence_home import Home, train
from rich.console import Console
from tables import LIKELIHOODS

from harness import devices
from harness.errors import UserError
from harness.evidence.faults import manifest_of
from harness.evidence.manifest import UNTOLD
from harness.evidence.replay import Replayed, replay, replayed
from harness.evidence.verify import verify
from harness.queue import SearchQueue, TrialStore, database
from harness.references import importing
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Real, Search, SearchBudget
from harness.tracking import MlflowTracker

VALIDATION = Budget(epochs=2, seeds=(0,), evaluation="validation")
BASE = TrialSpec(**TWO_STEPS, network="mlp", hidden=(16,))


def answer(reference: str, count: int = 1) -> tuple[int, str]:
    """What `harness replay` says."""
    screen = io.StringIO()
    code = replay(reference, "default", count, Console(file=screen, width=200))
    return code, screen.getvalue()


def ablation(arms: dict[str, dict], tmp_path: Path, name: str, **how: object) -> list[str]:
    """Record one trial of each arm, and return the ids of their runs."""
    study = Ablation(base=BASE, arms=arms, budgets={"default": VALIDATION})
    queue = queue_of(study, name)
    train(queue, MlflowTracker(name, "default", ""), tmp_path / name, replace(ALONE, **how))
    return list(queue.done().values())


ARMS = {
    **{name: {"likelihood": name} for name in LIKELIHOODS},
    **{name: {"activation": name} for name in ("relu", "tanh", "gelu")},
    "static": {"likelihood": "bernoulli", "likelihood_args": {"binarisation": "static"}},
    "iwae": {"objective": "iwae", "num_samples": 3},
    "sgd": {"optimizer": "sgd", "learning_rate_schedule": "cosine", "learning_rate_decay": 0.1},
    "wide": {"latent": 5, "kl_warmup": 1.0},
}


@pytest.mark.slow
def test_twenty_trials_come_out_the_same(mlflow_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Likelihoods, activations, objectives; by a program that was traced; code of one's own; a trial of a search."""
    own = own_file.write(tmp_path / "own")
    own_arms = {
        "loss": {"likelihood": f"{own}:StudentT", "likelihood_args": {"df": 3.0}},
        "activation": {"activation": f"{own}:bent"},
    }
    runs = ablation({**ARMS, **own_arms}, tmp_path, "many")
    runs += ablation({"bce": {}}, tmp_path, "traced", otherwise="graph")
    points = search(tmp_path)
    assert [verify(run, "default", Console(file=io.StringIO())) for run in points] == [0, 0]
    runs += points
    own.write_text("raise ValueError('not the code that was trained')")
    monkeypatch.setattr(importing, "_SOURCES", {})  # as a process that knows no code but that of the record
    monkeypatch.setattr(importing, "_OBJECTS", {})
    assert len(runs) >= 20
    for run in runs:
        code, words = answer(run)
        assert code == 0, words
        assert "equal: weights and " in words


def search(tmp_path: Path) -> list[str]:
    """Record a search of two points, and return the ids of their runs."""
    plan = Search(
        base=BASE,
        space={"learning_rate": Real(1e-4, 1e-2, log=True)},
        objectives=("elbo/validation",),
        budgets={"default": SearchBudget(trials=2, epochs=2)},
    )
    queue = SearchQueue(TrialStore("a_search.default.points", ["maximize"], database()), plan, "default", 1)
    train(queue, MlflowTracker("a_search", "default", ""), tmp_path / "search")
    return sorted(run for t in queue.store.trials() for key, run in t.user_attrs.items() if key.startswith("run."))


@pytest.mark.slow
@pytest.mark.skipif(devices.compiler(torch.device("cpu")) is None, reason="no compiler")
def test_a_compiled_trial_comes_out_the_same_and_almost_as_an_uncompiled_one(mlflow_store: Path, tmp_path: Path) -> None:
    spec = PAIR.base
    study = Ablation(base=spec, arms={"bce": {}}, budgets={"default": VALIDATION})
    (cell,) = study.cells("default")
    queue = queue_of(study, "a_study")
    tracker = MlflowTracker("a_study", "default", "")
    train(queue, tracker, tmp_path / "s", replace(ALONE, executions={cell.spec.cohort.id: "compiled"}))
    (run,) = queue.done().values()
    manifest = json.loads(tracker.file(run, "manifest.json").read_text())
    assert manifest["execution"]["stints"][0]["compiled"]
    code, words = answer(run)
    assert code == 0, words
    assert "equal: weights and " in words

    manifest["execution"]["stints"][0] |= {"execution": "eager"}
    plain = replayed(manifest, tracker.file(run, "manifest.json").parent, [cell.spec])
    assert plain.kind == ["compiled (True on record, False here)"]
    assert plain.differences == []
    assert plain.furthest < 1e-4


def test_a_study_is_replayed_evenly_and_left_alone(on_record: Home) -> None:
    before = {p: p.read_bytes() for p in on_record.path.rglob("*") if p.is_file()}
    code, words = answer("a_study", 2)
    assert code == 0, words
    assert [line.partition(" (")[0] for line in words.splitlines()[:-1]] == ["bce / seed 0", "mse / seed 0"]
    assert words.splitlines()[-1] == "of 2 trials: 2 equal bit by bit"
    assert {p: p.read_bytes() for p in on_record.path.rglob("*") if p.is_file()} == before


def test_what_does_not_come_out_the_same_is_named(on_record: Home, tmp_path: Path) -> None:
    run = on_record.runs()[0]
    folder = on_record.files(run)
    manifest = manifest_of(folder)
    assert manifest is not None
    spec = TrialSpec.from_dict(manifest["spec"]["resolved"])
    other = shutil.copytree(on_record.files(on_record.runs()[1]), tmp_path / "other")
    manifest["lineage"]["weights_sha256"] = "0" * 64
    manifest["results"]["metrics"]["elbo/train"] += 1e-9
    manifest["data"]["splits"]["test"] = "0" * 64
    result = replayed(manifest, other, [spec])
    assert result.words.startswith("NOT EQUAL: ")
    assert "data: the test split is another" in result.differences
    assert any(d.startswith("weights: up to ") for d in result.differences)
    assert any(d.startswith("elbo/train: ") for d in result.differences)
    assert len(result.differences) == 3


def test_another_kind_of_machine_is_said_and_held_to_a_tolerance(on_record: Home) -> None:
    run = on_record.runs()[0]
    manifest = manifest_of(on_record.files(run))
    assert manifest is not None
    spec = TrialSpec.from_dict(manifest["spec"]["resolved"])
    manifest["execution"]["stints"][0]["capability"] = "abacus"
    manifest["environment"]["variables"]["HARNESS_KERNELS"] = "pebbles"
    manifest["lineage"]["weights_sha256"] = "0" * 64
    manifest["results"]["metrics"]["elbo/train"] *= 1.001
    close = replayed(manifest, on_record.files(run), [spec])
    assert close.differences == []
    assert [k.partition(" (")[0] for k in close.kind] == ["capability", "kernels"]
    assert 9e-4 < close.furthest < 1.1e-3
    manifest["results"]["metrics"]["elbo/train"] *= 1.1
    assert len(replayed(manifest, on_record.files(run), [spec]).differences) == 1


@pytest.mark.parametrize(
    ("outcomes", "code", "last"),
    [
        ([True, None, False, False], 1, "of 4 trials: 1 equal bit by bit, 1 within 2% on another kind of machine, 2 not equal"),
        ([None, None, None, None], 0, "of 4 trials: 0 equal bit by bit, 4 within 2% on another kind of machine"),
    ],
)
def test_what_is_close_does_not_count_as_equal(
    outcomes: list[bool | None], code: int, last: str, on_record: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {
        True: Replayed(scores=3, kind=["capability"], differences=[], furthest=0, same_weights=True),
        None: Replayed(scores=3, kind=["capability"], differences=[], furthest=0, same_weights=False),
        False: Replayed(scores=3, kind=["capability"], differences=["kl/train: 1 on record, 2 here"], furthest=1),
    }
    left = iter(outcomes)
    monkeypatch.setattr("harness.evidence.replay.replayed", lambda *_: results[next(left)])
    actual, words = answer("a_study", 4)
    assert (actual, words.splitlines()[-1]) == (code, last)


@pytest.mark.parametrize(
    ("group", "value", "named"),
    [
        ("execution", None, "does not tell execution"),
        ("execution", UNTOLD, "does not tell execution"),
        ("execution", {"stints": [], "evaluation": {}}, "execution.evaluation.device"),
        ("execution", {"stints": [], "evaluation": UNTOLD}, f"execution.stints ([]), execution.evaluation ({UNTOLD})"),
        ("execution", {"stints": UNTOLD, "evaluation": UNTOLD}, f"execution.stints ({UNTOLD})"),
        ("execution", {"stints": [{}], "evaluation": UNTOLD}, "execution.stints.0.device"),
        ("spec", {"id": "beef"}, "does not tell spec.resolved"),
    ],
)
def test_a_manifest_that_does_not_tell_how_it_was_trained_is_an_error_in_words(
    group: str, value: dict | str | None, named: str, on_record: Home
) -> None:
    run = on_record.runs()[0]
    path = on_record.files(run) / "manifest.json"
    manifest = json.loads(path.read_text()) | {group: value}
    path.write_text(json.dumps({name: values for name, values in manifest.items() if values is not None}))
    with pytest.raises(UserError, match="cannot be trained again") as fault:
        answer(run)
    assert named in str(fault.value)


def test_trials_that_shared_a_program_share_it_again(mlflow_store: Path, tmp_path: Path) -> None:
    study = Ablation(base=BASE, arms={"bce": {}}, budgets={"default": replace(VALIDATION, seeds=(0, 1, 2))})
    queue, tracker = queue_of(study, "together", lanes=3), MlflowTracker("together", "default", "")
    train(queue, tracker, tmp_path / "together", replace(ALONE, lanes=3))
    runs = list(queue.done().values())
    manifest = json.loads(tracker.file(runs[1], "manifest.json").read_text())
    assert len(manifest["execution"]["stints"][0]["lanes"]) == 3
    assert answer("together", 3)[0] == 0
    alone = replayed(manifest, tracker.file(runs[1], "manifest.json").parent, [TrialSpec.from_dict(manifest["spec"]["resolved"])])
    assert [k.partition(" (")[0] for k in alone.kind] == ["lanes"]
    assert alone.differences == []
