"""The chain of plans: nothing in it can be changed unnoticed; the standing of claims follows from it alone."""

import json
from dataclasses import replace

import pytest

from harness.plans import Entry, PlannedClaim, PlanRecord, add, claims_of, read, stated
from harness.report.ablation.judging import all_settled, judgements, looks_taken
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis
from harness.tracking import Record

BASE = TrialSpec(dataset="digits")
CLAIM = Hypothesis(better="bce", worse="mse", metric="test/squared_error")
STUDY = Ablation(
    base=BASE,
    arms={"bce": {}, "mse": {"likelihood": "mse"}, "laplace": {"likelihood": "laplace"}},
    budgets={"default": Budget(epochs=1, seeds=range(16), looks=(6, 10, 16))},
    hypotheses=(CLAIM,),
)


class Notes(dict):
    """A shelf in memory."""

    def notes(self) -> dict:
        return self

    def note_study(self, attributes: dict) -> None:
        self.update(attributes)


def plan(record: PlanRecord, study: Ablation, **known: int) -> PlanRecord:
    return record.and_plan(stated(study, name="s", budget="default", question="?", data={}), known)


def with_seeds(seeds: range | tuple[int, ...], looks: tuple[int, ...] = ()) -> Ablation:
    return replace(STUDY, budgets={"default": Budget(epochs=1, seeds=seeds, looks=looks)})


def one(record: PlanRecord) -> PlannedClaim:
    (claim,) = claims_of(record)
    return claim


def chain() -> Notes:
    notes = Notes()
    add(notes, plan(plan(PlanRecord(), STUDY), with_seeds(range(6)), bce=3).and_look({"looks": {}, "plan": 2}))
    return notes


def test_what_is_stored_is_read_back() -> None:
    record = read(chain())
    assert [e.kind for e in record.entries] == ["plan", "plan", "look"]
    assert not record.faults
    assert [e.previous for e in record.entries] == ["", *(e.sha256 for e in record.entries[:2])]
    assert json.loads(record.as_text())[0]["content"]["looks"] == [6, 10, 16]
    assert not record.checked(tag=record.head, file=record.as_text(), runs={"a trial": record.entries[0].sha256}).faults


@pytest.mark.parametrize("field", ["kind", "known", "time", "previous", "number", "content"])
def test_a_changed_field_is_found(field: str) -> None:
    notes = chain()
    entry = json.loads(notes["plan.2"])
    entry[field] = {"kind": "look", "known": {"bce": 0}, "number": 7, "content": entry["content"] | {"epochs": 2}}.get(field, "x")
    notes["plan.2"] = json.dumps(entry)
    assert "entry 2 of the stored plan was edited" in read(notes).faults
    entry["sha256"] = Entry(**entry).digest()
    notes["plan.2"] = json.dumps(entry)
    assert read(notes).faults  # the next entry, or its own place, gives it away


@pytest.mark.parametrize("number", [1, 2])
def test_a_missing_entry_is_found(number: int) -> None:
    notes = chain()
    del notes[f"plan.{number}"]
    assert read(notes).faults


def test_a_missing_end_is_found_by_those_who_name_it() -> None:
    whole, notes = read(chain()), chain()
    del notes["plan.3"]
    short = read(notes)
    assert not short.faults
    assert short.checked(tag=whole.head, file="", runs={}).faults
    assert short.checked(tag="", file=whole.as_text(), runs={}).faults
    assert short.checked(tag="", file="", runs={"a trial": whole.head}).faults
    assert short.checked(tag="", file="{", runs={}).faults


def test_an_unreadable_entry_is_found() -> None:
    notes = chain()
    notes["plan.1"] = "?"
    assert "entry 1 of the stored plan cannot be read" in read(notes).faults


def test_a_plan_that_changes_before_any_result_is_the_plan() -> None:
    record = plan(plan(PlanRecord(), STUDY), with_seeds(range(8)))
    claim = one(record)
    assert (claim.standing, claim.looks, claim.as_planned) == ("registered", (8,), True)


def test_seeds_and_looks_that_change_after_a_result_amend_the_claim() -> None:
    for changed in (with_seeds(range(17)), with_seeds(range(15)), with_seeds(range(16), (8, 16)), with_seeds(range(16))):
        claim = one(plan(plan(PlanRecord(), STUDY), changed, bce=1))
        assert (claim.standing, claim.known, claim.looks) == ("amended", 1, (6, 10, 16))
        assert not claim.as_planned
        assert claim.seeds[:16] == tuple(range(16))


def test_dropped_seeds_stay_in_their_place() -> None:
    claim = one(plan(plan(PlanRecord(), with_seeds(range(6))), with_seeds((0, 2, 3, 4, 5, 9)), mse=1))
    assert claim.seeds == (0, 1, 2, 3, 4, 5, 9)
    assert claim.due_seeds == (0, 2, 3, 4, 5, 9)
    assert set(claim.cells[0]) == set(claim.cells[1]) == set(claim.seeds)


def test_results_of_arms_that_a_claim_does_not_name_are_none_of_its() -> None:
    assert one(plan(PlanRecord(), STUDY, laplace=16)).standing == "registered"
    assert one(plan(PlanRecord(), STUDY, mse=1)).standing == "amended"


def test_a_claim_that_is_withdrawn_before_its_results_is_gone() -> None:
    without = replace(STUDY, hypotheses=(), budgets={"default": Budget(epochs=1, seeds=range(16))})
    assert claims_of(plan(plan(PlanRecord(), STUDY), without, laplace=3)) == []
    (claim,) = claims_of(plan(plan(PlanRecord(), STUDY), without, bce=3))
    assert (claim.standing, claim.known) == ("withdrawn", 3)
    back = one(plan(plan(plan(PlanRecord(), STUDY), without, bce=3), STUDY, bce=9))
    assert back.standing == "registered"  # that is what was stated before


# -------------------------------------------------------------------------------- looks


def records_of(claim: PlannedClaim, seeds: int, better: float = 1.0, without: tuple[int, ...] = ()) -> dict[str, Record]:
    """Results of the first seeds, in which squared errors differ by `better` and a little that no two seeds share."""
    found = {}
    for i, seed in enumerate(claim.seeds[:seeds]):
        for side, cells in enumerate(claim.cells):
            if seed not in without:
                value = 10.0 + side * better + side * 0.3 * (-1) ** i * (1 + i / 10)
                found[cells[seed]] = Record(f"run-{seed}-{side}", {"test/squared_error": value}, {})
    return found


def judged(record: PlanRecord, seeds: int, better: float = 1.0):
    claims = claims_of(record)
    return judgements(claims, records_of(claims[0], seeds, better), {})


@pytest.mark.parametrize(("seeds", "rests_on"), [(5, 0), (6, 6), (9, 6), (10, 10), (15, 10), (16, 16)])
def test_a_verdict_rests_on_the_last_planned_look(seeds: int, rests_on: int) -> None:
    (found,) = judged(plan(PlanRecord(), STUDY), seeds)
    assert found.seeds == rests_on
    assert (found.outcome == "no verdict") == (rests_on == 0)
    assert looks_taken([found]) == ({found.claim.name: rests_on} if rests_on else {})


def test_a_study_stops_at_a_look_that_settles_its_claims() -> None:
    record = plan(PlanRecord(), STUDY)
    assert all_settled(judged(record, 6))
    assert not all_settled(judged(record, 6, better=0.05))
    assert not all_settled(judged(record, 5))


def test_interim_results_show_no_verdict() -> None:
    (found,) = judged(plan(PlanRecord(), STUDY), 4)
    assert found.mark == "open"
    assert "no verdict yet, 4 of 16 seeds are done and the look is at 6, 10, 16" in found.sentence
    assert found.details == found.by == ""


def test_a_look_elsewhere_makes_all_later_ones_unplanned() -> None:
    record = plan(PlanRecord(), with_seeds(range(6)))
    name = one(record).name
    assert "any number" not in judged(record, 6)[0].verdict.rule
    record = plan(record.and_look({"looks": {name: 6}, "plan": 1}), with_seeds(range(7)), bce=6, mse=6)
    (found,) = judged(record, 7)
    assert "any number of looks, 7 seeds" in found.verdict.rule
    assert looks_taken([found]) == {name: 7}
    back = plan(record.and_look({"looks": {name: 7}, "plan": 2}), with_seeds(range(6)), bce=7, mse=7)
    (claim,) = claims_of(back)
    (found,) = judgements([claim], records_of(claim, 7), {})
    assert claim.looked == (6, 7)
    assert (claim.standing, found.seeds) == ("registered", 7)  # the seed that was seen still counts
    assert "any number of looks" in found.verdict.rule


def test_a_failed_seed_is_missing_from_a_planned_look() -> None:
    record = plan(PlanRecord(), with_seeds(range(8)))
    (claim,) = claims_of(record)
    records = records_of(claim, 8, without=(3,))
    assert judgements([claim], records, {})[0].outcome == "no verdict"
    (found,) = judgements([claim], records, {claim.cells[0][3]: "diverged", claim.cells[1][3]: "diverged"})
    assert (found.seeds, found.outcome) == (7, "confirmed")
    assert "any number" not in found.verdict.rule
    assert looks_taken([found]) == {claim.name: 8}


def test_a_claim_without_results_is_in_the_family() -> None:
    two = replace(with_seeds(range(6)), hypotheses=(CLAIM, replace(CLAIM, better="laplace")))
    alone = judged(plan(PlanRecord(), with_seeds(range(6))), 6)[0].verdict.p_adjusted
    found = judged(plan(PlanRecord(), two), 6)
    assert found[0].verdict.p_adjusted == pytest.approx(2 * alone)
    assert found[1].verdict is None
