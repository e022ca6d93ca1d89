"""Studies that changed since their trials ran, and machines where something else is missing than data or room."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from harness import paths, provenance
from harness.data import torchvision_door
from harness.errors import MachineError
from harness.runner.study_store import StudyStore
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Constraint, OneOf, Pruner, Real, Search, SearchBudget

BASE = TrialSpec(dataset="digits", network="mlp", hidden=(16,))
SEARCH = Search(
    base=BASE,
    space={"learning_rate": Real(1e-4, 1e-2, log=True), "activation": OneOf(("relu", "elu"))},
    objectives=("elbo/validation",),
    budgets={"default": SearchBudget(trials=3, epochs=2)},
)


class NoRuns:
    """A tracker that has recorded nothing."""

    def finished_runs(self, ledger: str) -> set[str]:
        return set()


def record_of(search: Search) -> str:
    """The name of the record that a search's trials are kept under."""
    with StudyStore("mine", "default", NoRuns(), "").search_queue(search, 1) as queue:  # type: ignore[arg-type]
        return queue.store.name


CHANGED: dict[str, Search] = {
    "row37-range": replace(SEARCH, space=SEARCH.space | {"learning_rate": Real(1e-3, 1e-2, log=True)}),
    "row37-choices": replace(SEARCH, space=SEARCH.space | {"activation": OneOf(("relu", "elu", "tanh"))}),
    "row37-sampler": replace(SEARCH, sampler="random"),
    "row37-constraint": replace(SEARCH, constraints=(Constraint(score="model/parameters", at_most=1e6),)),
    "row37-pruner": replace(SEARCH, pruner=Pruner(name="median")),
    "row38-base": replace(SEARCH, base=BASE.derive(latent=5)),
    "row38-data": replace(SEARCH, base=BASE.derive(dataset="shapes")),
    "row38-epochs": replace(SEARCH, budgets={"default": SearchBudget(trials=3, epochs=3)}),
    "row39-objective": replace(SEARCH, objectives=("validation/squared_error",)),  # lower is better, the ELBO's is higher
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_changed_search_has_a_record_of_its_own(change: str, home: object) -> None:
    assert record_of(SEARCH) == record_of(replace(SEARCH))
    assert record_of(CHANGED[change]) != record_of(SEARCH)


def test_row37_a_search_of_more_trials_goes_on(home: object) -> None:
    more = replace(SEARCH, budgets={"default": SearchBudget(trials=30, epochs=2)})
    assert record_of(more) == record_of(SEARCH)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda study: replace(study, base=BASE.derive(dataset="shapes")), id="row38-data"),
        pytest.param(lambda study: replace(study, base=BASE.derive(latent=5)), id="row38-base"),
        pytest.param(lambda study: replace(study, budgets={"default": Budget(epochs=3, seeds=range(2))}), id="row38-epochs"),
    ],
)
def test_no_result_of_another_trial_is_one_of_a_changed_ablation(change: Callable[[Ablation], Ablation]) -> None:
    study = Ablation(base=BASE, arms={"a": {}, "b": {"likelihood": "mse"}}, budgets={"default": Budget(epochs=2, seeds=range(2))})
    before, after = ({cell.spec.id for cell in s.cells("default")} for s in (study, change(study)))
    assert len(before) == len(after) == 4
    assert not before & after


@pytest.mark.usefixtures("fixed_code")
def test_row42_without_git_the_package_s_files_are_the_code_on_record() -> None:
    assert provenance.commit() == "unknown"
    assert provenance.code().endswith(provenance.digest())


def test_row54_torch_and_torchvision_that_do_not_fit_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")  # else it defines operators, which a process can do once
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)  # as an import that fails
    with pytest.raises(MachineError) as refused:
        torchvision_door.torchvision.__wrapped__()
    message = str(refused.value)
    assert f"torch {provenance.version('torch')} and torchvision {provenance.version('torchvision')} do not fit together" in message
    assert message.splitlines()[-1].startswith("install ")


def test_r12_benchmarks_beside_each_other_are_refused() -> None:
    command = [sys.executable, "-m", "pytest", "--benchmark-only", "-n", "2", "tests/test_ids.py"]
    done = subprocess.run(command, cwd=paths.PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "nothing is measured with -n: pytest --benchmark-only" in done.stderr
