"""A chain of plans and looks: what is edited in it is found without any copy of it, and each look counts from then on."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from harness import plans
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="digits"),
    arms={"bce": {}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=1, seeds=range(6))},
    hypotheses=(Hypothesis(better="bce", worse="mse", metric="test/squared_error"),),
)


class Notes:
    """A shelf of notes in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def notes(self) -> Mapping[str, Any]:
        return dict(self.kept)

    def note_study(self, attributes: Mapping[str, Any]) -> None:
        self.kept |= attributes


def content(study: Ablation) -> dict[str, Any]:
    return plans.stated(study, name="a_study", budget="default", question="", data={})


def with_seeds(n: int) -> Ablation:
    return replace(STUDY, budgets={"default": Budget(epochs=1, seeds=range(n))})


def look(claim: plans.PlannedClaim, seeds: int) -> dict[str, Any]:
    return {"looks": {claim.name: seeds}, "plan": 1}


@pytest.fixture
def shelf() -> Notes:
    """A plan, a look, a plan and a look."""
    shelf, known = Notes(), {"bce": 6, "mse": 6}
    record = plans.PlanRecord().and_plan(content(STUDY), {"bce": 0, "mse": 0})
    (claim,) = plans.claims_of(record)
    record = record.and_look(look(claim, 6)).and_plan(content(with_seeds(8)), known).and_look(look(claim, 8))
    plans.add(shelf, record)
    return shelf


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("part", ["content", "known", "time", "kind", "previous", "number"])
def test_an_entry_that_was_edited_is_found_though_no_copy_of_it_is_left(shelf: Notes, number: int, part: str) -> None:
    entry = json.loads(shelf.kept[f"plan.{number}"])
    entry[part] = {"number": 9}.get(part, {"edited": True} if isinstance(entry[part], dict) else "edited")
    shelf.kept[f"plan.{number}"] = json.dumps(entry)
    assert f"entry {number} of the stored plan was edited" in plans.read(shelf.notes()).faults


def test_adding_leaves_what_is_there_as_it_is(shelf: Notes) -> None:
    before = dict(shelf.kept)
    plans.add(shelf, plans.read(shelf.notes()).and_plan(content(with_seeds(9)), {"bce": 8, "mse": 8}))
    assert {name: shelf.kept[name] for name in before} == before
    assert len(shelf.kept) == len(before) + 1


def test_a_look_that_nobody_planned_counts_even_if_the_plan_is_as_it_was_again(shelf: Notes) -> None:
    (claim,) = plans.claims_of(plans.read(shelf.notes()).and_plan(content(STUDY), {"bce": 8, "mse": 8}))
    assert (claim.looks, claim.due, claim.other_looks) == ((6,), (6,), (8,))
    assert not claim.as_planned
    untouched = plans.PlanRecord().and_plan(content(STUDY), {"bce": 0, "mse": 0}).and_look(look(claim, 6))
    assert plans.claims_of(untouched)[0].as_planned
