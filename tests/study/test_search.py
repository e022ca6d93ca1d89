"""Searches as studies: what a file may say, and what is refused before anything runs."""

from dataclasses import replace

import pytest

from harness import study
from harness.errors import UserError
from harness.spec import TrialSpec
from harness.study import Constraint, OneOf, Pruner, Real, Search, SearchBudget, Whole, Widths
from harness.study.space import Parameter

BASE = TrialSpec(dataset="digits", network="mlp", hidden=(16,))
SEARCH = Search(
    base=BASE,
    space={"learning_rate": Real(1e-4, 1e-1, log=True), "activation": OneOf(("elu", "relu"))},
    objectives=("elbo/validation",),
    budgets={"default": SearchBudget(trials=10, epochs=3)},
)
SEVERAL = ("elbo/validation", "perf/throughput")

FAULTS = {
    "a test score": ({"objectives": ("test/elbo",)}, "the test set must not select"),
    "a typo": ({"objectives": ("elbo/validaton",)}, "did you mean 'elbo/validation'"),
    "a cost alone": ({"objectives": ("perf/throughput",)}, "objectives: one of elbo/validation"),
    "two kinds": ({"objectives": ("elbo/validation", "validation/squared_error")}, "objectives: one of"),
    "scales": ({"space": {"likelihood": OneOf(("bce", "mse"))}}, "cannot rank across scales.*\nany likelihood can be ranked by"),
    "no field": ({"space": {"latnt": Whole(2, 4)}}, "unknown field of a trial 'latnt'; did you mean 'latent'"),
    "a fixed field": ({"space": {"seed": Whole(0, 4)}}, "space 'seed': it says what is compared"),
    "the budget's field": ({"space": {"epochs": Whole(1, 4)}}, "space 'epochs'"),
    "nothing": ({"space": {}}, "a search needs a space"),
    "bounds": ({"space": {"beta": Real(2, 1)}}, "space 'beta': must go from a finite number to a larger one, got 2 to 1"),
    "log of 0": ({"space": {"beta": Real(0, 1, log=True)}}, "cannot be logarithmic from 0"),
    "half a layer": ({"space": {"latent": Whole(1, 2.5)}}, "takes whole numbers"),  # type: ignore[arg-type]
    "no layer": ({"space": {"hidden": Widths((0, 2), (8, 16))}}, "at least one layer"),
    "one choice": ({"space": {"activation": OneOf(("elu",))}}, "two or more different choices"),
    "a bad choice": ({"space": {"activation": OneOf(("elu", "rleu"))}}, "did you mean 'relu'"),
    "a value out of range": ({"space": {"beta": Real(-1, 1)}}, "beta must be a finite number"),
    "when nothing": ({"space": {"beta": Real(0.1, 1, when={"optimiser": "adamw"})}}, "`when` names 'optimiser'"),
    "when later": (
        {"space": {"weight_decay": Real(0, 1, when={"optimizer": "adamw"}), "optimizer": OneOf(("adam", "adamw"))}},
        "must stand before it",
    ),
    "sampler": ({"sampler": "gpp"}, "unknown sampler 'gpp'; did you mean 'gp'"),
    "gp of a conditional space": ({"sampler": "gp", "space": {"hidden": Widths((1, 3), (8, 16))}}, "'tpe' would do"),
    "pruner": ({"pruner": Pruner(name="asa")}, "unknown pruner 'asa'; did you mean 'asha'"),
    "pruning by what is known at the end": (
        {"pruner": Pruner(name="asha"), "objectives": ("validation/common_bits",)},
        "only 'elbo/validation' is known",
    ),
    "pruning by several": ({"pruner": Pruner(name="median"), "objectives": SEVERAL}, "this search has several"),
    "wilcoxon of a seed": ({"pruner": Pruner(name="wilcoxon")}, "give 6 or more, got 1"),
    "wilcoxon that could judge only after the last seed": (
        {"pruner": Pruner(name="wilcoxon", p=0.01), "seeds": range(20, 27)},
        "give 8 or more, got 7",
    ),
    "constraint": ({"constraints": (Constraint(score="perf/step", at_most=1),)}, "did you mean 'perf/step_ms'"),
    "half a constraint": ({"constraints": (Constraint(score="perf/step_ms"),)}, "give at_most or at_least"),
    "batch": ({"batch": 0}, "batch must be at least 1"),
    "no seed": ({"budgets": {"default": SearchBudget(trials=1, epochs=1, refit_seeds=())}}, "a seed to train the best again"),
    "seeds of a later budget": (
        {"budgets": {**SEARCH.budgets, "full": SearchBudget(trials=1, epochs=1, refit_seeds=6)}},  # type: ignore[arg-type]
        "budget 'full': .*seeds",
    ),
    "the same seeds": ({"budgets": {"default": SearchBudget(trials=1, epochs=1, refit_seeds=range(6))}}, "not chosen on"),
    "nothing left to select on": ({"base": BASE.derive(fit_on="train+validation")}, "nothing is left to select on"),
    "a warm-up beyond the training": (
        {"space": {"kl_warmup": Real(0, 4)}},
        "budget 'default': kl_warmup=4 takes longer than the 3",
    ),
    "a base that never warms up": ({"base": BASE.derive(learning_rate_warmup=4)}, "learning_rate_warmup=4 takes longer than the 3"),
    "no budget": ({"budgets": {"smoke": SearchBudget(trials=1, epochs=1)}}, "default"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_with_its_reason(name: str) -> None:
    changes, message = FAULTS[name]
    with pytest.raises(UserError, match=message):
        replace(SEARCH, **changes)


@pytest.mark.parametrize("numbers", [{"first": 0}, {"factor": 1}, {"p": 0.0}, {"p": 1.0}])
def test_a_pruner_of_impossible_numbers_is_refused(numbers: dict) -> None:
    with pytest.raises(UserError, match=r"pruner 'asha': first from 1, factor from 2 and p between 0 and 1, got Pruner\("):
        Pruner(name="asha", **numbers)


def test_a_shorter_budget_may_leave_a_warm_up_unfinished() -> None:
    budgets = {"default": SearchBudget(trials=10, epochs=4), "smoke": SearchBudget(trials=4, epochs=1)}
    study = replace(SEARCH, base=BASE.derive(kl_warmup=2), budgets=budgets)
    assert {c.spec.epochs for c in study.judged("smoke", {}).cells("smoke")} == {1}


def lowest(p: Parameter) -> object:
    return p.choices[0] if p.choices else p.low


def highest(p: Parameter) -> object:
    return p.choices[-1] if p.choices else p.high


def test_a_point_is_the_base_but_for_its_axes_and_never_sees_the_test_set() -> None:
    spec = SEARCH.point("default", highest)
    assert spec == BASE.derive(learning_rate=1e-1, activation="relu", epochs=3, evaluation="validation")


def test_widths_and_conditions_decide_which_parameters_there_are() -> None:
    space = {
        "hidden": Widths((1, 3), (8, 16)),
        "optimizer": OneOf(("adam", "adamw")),
        "weight_decay": Real(0.1, 0.5, when={"optimizer": "adamw"}),
    }
    search = replace(SEARCH, space=space)
    asked: list[str] = []

    def noted(p: Parameter) -> object:
        asked.append(p.name)
        return lowest(p)

    assert search.point("default", noted).hidden == (8,)
    assert asked == ["hidden/layers", "hidden/1", "optimizer"]
    asked.clear()
    assert search.point("default", lambda p: asked.append(p.name) or highest(p)).hidden == (16, 16, 16)
    assert asked == ["hidden/layers", "hidden/1", "hidden/2", "hidden/3", "optimizer", "weight_decay"]
    assert search.sampler_of("default") == "tpe"


def test_tuples_are_chosen_by_their_text() -> None:
    search = replace(SEARCH, space={"hidden": OneOf(((8,), (16, 8)))})
    assert search.point("default", lambda p: "(16, 8)").hidden == (16, 8)


def test_the_sampler_fits_the_number_of_trials() -> None:
    many = replace(SEARCH, budgets={"default": SearchBudget(trials=201, epochs=1)})
    assert (SEARCH.sampler_of("default"), many.sampler_of("default")) == ("gp", "tpe")
    assert replace(SEARCH, sampler="random").sampler_of("default") == "random"
    assert (SEARCH.batch_of("default", 64), SEARCH.batch_of("default", 2), many.batch_of("default", 64)) == (8, 2, 8)
    assert replace(SEARCH, sampler="random").batch_of("default", 64) == 64
    assert replace(SEARCH, batch=32).batch_of("default", 64) == 32


def test_a_point_asked_for_again_takes_a_seed_of_its_own_that_the_best_is_not_tested_on() -> None:
    spec = SEARCH.point("default", lowest)
    seeds = [[c.seed for c in SEARCH.cells(0, spec, again)] for again in range(3)]
    assert seeds == [[0], [7], [14]]
    over_seeds = replace(SEARCH, seeds=range(2), budgets={"default": SearchBudget(trials=1, epochs=1, refit_seeds=range(9, 15))})
    assert [c.seed for again in range(2) for c in over_seeds.cells(0, spec, again)] == [0, 1, 15, 16]


def test_the_best_is_tested_against_the_base_on_new_seeds() -> None:
    best = SEARCH.point("default", highest)
    refit = SEARCH.judged("default", {"tuned": best})
    assert refit.arms == {"base": {}, "tuned": {"learning_rate": 0.1, "activation": "relu"}}
    cells = refit.cells("default")
    assert {c.seed for c in cells} == set(range(1, 7))
    assert {(c.spec.epochs, c.spec.evaluation) for c in cells} == {(3, "quick")}
    (claim,) = refit.hypotheses
    assert (claim.better, claim.worse, claim.metric) == ("tuned", "base", "test/elbo")
    assert list(SEARCH.judged("default", {"tuned": BASE.derive(epochs=3)}).arms) == ["base"]


@pytest.mark.parametrize("name", [n for n in study.names() if isinstance(study.load_study(n), Search)])
def test_every_search_of_this_project_has_points(name: str) -> None:
    found = study.load_study(name)
    assert isinstance(found, Search)
    for budget in found.budgets:
        assert found.point(budget, lowest) != found.point(budget, highest)
        assert budget == "smoke" or len(set(found.budgets[budget].refit_seeds)) >= 5  # with which a claim can be confirmed
