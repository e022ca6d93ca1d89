"""A stranger's folder: one of each thing that can be brought, with nothing of the package touched."""

import io
import re
from pathlib import Path

import own_file
import pytest
from mlflow_runs import trial_runs
from rich.console import Console

from harness import paths, references
from harness.errors import UserError
from harness.runner.commands import run_study
from harness.study import load
from harness.testing import ContractError
from harness.tracking import MlflowTracker

ARMS = ("plain", "loss", "network", "activation", "objective")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with mine.py and nothing else."""
    own_file.write(tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def study(executor: str = "local") -> str:
    """Run ./mine.py and return what it prints."""
    screen = io.StringIO()
    assert run_study("./mine.py", "default", "cpu", 1, Console(file=screen, width=200), executor=executor) == 0
    return screen.getvalue()


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_store", "fixed_code")
def test_all_seven_things_from_one_file_and_only_what_changes_is_run_again(folder: Path) -> None:
    said = study()
    for kind, name in {
        "dataset": "stripes",
        "likelihood": "StudentT",
        "network": "small",
        "activation": "bent",
        "objective": "warm",
        "score": "CONTRAST",
    }.items():
        assert f"checking the {kind} mine.py:{name}" in said
    assert "contrast of samples" in said
    assert "loss beats plain on contrast of samples" in said
    runs = {run.data.tags["arm"]: run for run in trial_runs(MlflowTracker("mine", "default", ""))}
    assert set(runs) == set(ARMS)
    (digest,) = {run.data.params["dataset"].partition("@")[2] for run in runs.values()}
    assert re.fullmatch("[0-9a-f]{12}", digest)
    assert runs["loss"].data.params["likelihood"] == f"mine.py:StudentT@{digest}"
    assert runs["network"].data.params["network_args.width"] == "8"
    assert all("test/contrast" in run.data.metrics for run in runs.values())
    assert not any("test/frechet" in run.data.metrics for run in runs.values())  # it takes labels

    assert "nothing to do" in study()
    (folder / "mine.py").write_text(
        own_file.SOURCE + own_file.STUDY.replace('better="loss", worse="plain"', 'better="plain", worse="loss"')
    )
    assert "nothing to do" in study()  # another claim about the same code
    own_file.write(folder, own_file.SOURCE.replace("df: float = 3.0", "df: float = 4.0"))
    assert "checking the likelihood" in study()
    assert len(trial_runs(MlflowTracker("mine", "default", ""))) == 2 * len(ARMS)  # all of them use the file


@pytest.mark.usefixtures("mlflow_store")
def test_what_breaks_its_contract_is_refused_before_anything_is_written(folder: Path) -> None:
    own_file.write(folder, own_file.SOURCE.replace("return -(norm +", "return -(norm - 0.0198 +"))
    with pytest.raises(ContractError, match=r"likelihood mine.py:StudentT: the probability of a pixel must be 1 .* got 1\.02 "):
        study()
    assert not (paths.mlruns() / "optuna.db").exists()


def test_another_state_of_a_file_is_another_trial_for_those_that_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "losses.py").write_text(own_file.SOURCE)
    (tmp_path / "plan.py").write_text(
        "from harness import Ablation, Budget, TrialSpec\n"
        "STUDY = Ablation(base=TrialSpec(dataset='digits'), arms={'a': {}, 'b': {'likelihood': 'losses.py:StudentT'}},\n"
        "                 budgets={'default': Budget(epochs=1, seeds=[0])})\n"
    )
    before = [c.spec.id for c in load("./plan.py").study.cells("default")]
    (tmp_path / "losses.py").write_text(own_file.SOURCE.replace("df: float = 3.0", "df: float = 4.0"))
    after = [c.spec.id for c in load("./plan.py").study.cells("default")]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_reference_in_an_arm_is_relative_to_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep"
    own_file.write(folder)
    monkeypatch.chdir(tmp_path)
    loaded = load("deep/mine.py").study
    names = {references.label(c.spec.network) for c in loaded.cells("default")}
    assert names == {"mlp", "mine.py:small"}
    (folder / "mine.py").write_text((folder / "mine.py").read_text().replace("mine.py:small", "mine.py:smal"))
    with pytest.raises(UserError, match=r"mine\.py:\d+: arm 'network': 'mine.py:smal': .*did you mean 'small'"):
        load("deep/mine.py")


def test_a_search_keeps_what_its_space_refers_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / "losses.py").write_text(own_file.SOURCE)
    (folder / "hunt.py").write_text(
        "from harness import Search, TrialSpec\n"
        "from harness.study import OneOf, Real, SearchBudget\n"
        "STUDY = Search(base=TrialSpec(dataset='digits', likelihood='mse'), objectives=('validation/squared_error',),\n"
        "               space={'activation': OneOf(choices=('elu', 'losses.py:bent')), 'likelihood_args.sigma': Real(0.1, 2.0)},\n"
        "               budgets={'default': SearchBudget(trials=3, epochs=1)})\n"
    )
    monkeypatch.chdir(tmp_path)
    search = load("deep/hunt.py").study.search
    assert search is not None
    names = {spec.activation.partition("@")[0] for spec in search.trials("default")}
    assert names == {"elu", "losses.py:bent"}
    point = search.point("default", lambda p: p.choices[-1] if p.choices else p.high)
    assert (references.label(point.activation), point.likelihood_args) == ("losses.py:bent", {"sigma": 2.0})
    arms = search.judged("default", {"tuned": point}).arms
    assert arms["tuned"] == {"activation": point.activation, "likelihood_args": {"sigma": 2.0}}
    assert callable(references.resolve(point.activation))
