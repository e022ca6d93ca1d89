"""The claims of a study with their standing: what was stated when, and over which seeds and looks a verdict is due."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.plans.record import SIDES, Entry, PlanRecord


class Standing(StrEnum):
    """What a plan says of a claim."""

    REGISTERED = "registered"
    AMENDED = "amended"
    WITHDRAWN = "withdrawn"
    BROKEN = "not verifiable"
    NONE = "not recorded"


@dataclass(frozen=True, kw_only=True)
class PlannedClaim:
    """A claim of a study's present plan, or one that an earlier plan made and that was withdrawn.

    Attributes:
        better, worse: the arms, by the names that the claim's plan gives them.
        metric: the score's key.
        direction: "higher" or "lower", whichever is better.
        margin: the difference below which the arms count as equal; None if the claim has none.
        words: the claim as a sentence.
        digits: decimals of the score.
        standing: registered, amended, withdrawn, not verifiable or not recorded.
        known: how many results of its arms were known when it was stated or changed as it is now, or when it was withdrawn.
        elsewhere: how many of these are of other studies.
        seeds: in the order in which they were planned; those of all plans that compare the same arms by the same score.
        looks: the numbers of these seeds at which a verdict was planned before any result was known.
        due: the numbers of seeds at which the plan that states it last wants a verdict; equal to `looks` unless that was changed.
        due_seeds: the seeds of that plan, in its order.
        cells: the ids of the trials by seed, of the better and of the worse arm.
        looked: the numbers of seeds at which a verdict was computed already.
        name: of what is compared, by which looks are counted.
    """

    better: str
    worse: str
    metric: str
    direction: str
    margin: float | None
    words: str
    digits: int
    standing: Standing
    known: int = 0
    elsewhere: int = 0
    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    due: tuple[int, ...]
    due_seeds: tuple[int, ...]
    cells: tuple[Mapping[int, str], Mapping[int, str]]
    looked: tuple[int, ...] = ()
    name: str

    @property
    def as_planned(self) -> bool:
        """True if verdicts come from the planned looks alone: none was computed elsewhere, and none is due elsewhere."""
        return (
            set(self.looked) <= set(self.looks) and self.due == self.looks and self.due_seeds == self.seeds[: len(self.due_seeds)]
        )

    @property
    def standing_in_words(self) -> str:
        """The standing with what was known, as it is shown beside a verdict."""
        match self.standing:
            case Standing.REGISTERED:
                return "registered before any result of its arms"
            case Standing.AMENDED | Standing.WITHDRAWN:
                others = f", {self.elsewhere} of them in other studies" if self.elsewhere else ""
                return f"{self.standing} after {self.known} result{'s' * (self.known != 1)} of its arms{others}"
            case Standing.BROKEN:
                return "not verifiable: the stored plan is not as it was written"
        return "not recorded: no plan was stored"


@dataclass(frozen=True)
class Stated:
    """A hypothesis as one plan states it, resolved to what its arms are.

    Attributes:
        entry: the plan.
        values: the hypothesis, as `content.stated` gives it.
        begun: the number of the entry under which each finished trial was begun, by its id.
    """

    entry: Entry
    values: Mapping[str, Any]
    begun: Mapping[str, int]

    @property
    def arms(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What the plan says of the better and of the worse arm."""
        plan = self.entry.content["arms"]
        return plan[self.values["better"]], plan[self.values["worse"]]

    @property
    def trainings(self) -> tuple[str, str]:
        """What the better and the worse arm train (`content.training_id`)."""
        better, worse = self.arms
        return better["training"], worse["training"]

    @property
    def own(self) -> int:
        """The results of its arms that this study had when it was stated.

        It is what the plan says or, if that is more, the finished trials that were begun under an earlier entry: a plan that was
        slipped in afterwards says what it likes.
        """
        said = sum(self.entry.known.get(self.values[side], 0) for side in SIDES)
        earlier = [
            c for arm in self.arms for c in arm["trials"].values() if self.begun.get(c, self.entry.number) < self.entry.number
        ]
        return max(said, len(earlier))

    @property
    def elsewhere(self) -> int:
        """The results that other studies had of both arms; those of one arm alone tell nothing of a difference."""
        counts = [self.entry.elsewhere.get(self.values[side], 0) for side in SIDES]
        return sum(counts) if all(counts) else 0

    @property
    def known(self) -> int:
        """All results of its arms that were known when it was stated."""
        return self.own + self.elsewhere

    @property
    def comparison(self) -> tuple[frozenset[str], str]:
        """The part of it that is tested, whichever arm is claimed to be better: what the arms train, and the score."""
        return frozenset(self.trainings), self.values["metric"]

    @property
    def claim(self) -> tuple[Any, ...]:
        """All of it that may not change after a result is known, whatever the arms are called."""
        plan = self.entry.content
        of_claim = (self.values["metric"], self.values["direction"], self.values["margin"])
        return (*(arm["id"] for arm in self.arms), *of_claim, tuple(plan["seeds"]), tuple(plan["looks"]))

    @property
    def name(self) -> str:
        """The comparison as text, by which looks are counted."""
        return "|".join([*sorted(self.trainings), self.values["metric"]])


def claims_of(record: PlanRecord) -> list[PlannedClaim]:
    """Return the claims of the present plan in its order, then those that were withdrawn after a result was known.

    A claim is registered if a plan stated it, exactly as it is now, before any result of its arms was known; the names of arms may
    have changed since. The record must have no fault.
    """
    by_plan = [[Stated(plan, h, record.begun) for h in plan.content["hypotheses"]] for plan in record.plans]
    history = [stated for plan in by_plan for stated in plan]
    if not history:
        return []
    present = by_plan[-1]
    claims = [_claim(s, history, record) for s in present]
    compared = {s.comparison for s in present}
    for s in reversed(history):
        if s.comparison not in compared:
            compared.add(s.comparison)
            known = _known_at_withdrawal(s, record)
            if known:
                claims.append(_claim(s, history, record, withdrawn=known))
    return claims


def _claim(s: Stated, history: list[Stated], record: PlanRecord, withdrawn: int = 0) -> PlannedClaim:
    """Return a hypothesis with its standing; `withdrawn` is the number of results that were known when it was."""
    same = [other for other in history if other.comparison == s.comparison]
    first = min((other for other in same if other.claim == s.claim), key=lambda other: other.known)
    known, elsewhere = (withdrawn, 0) if withdrawn else (first.known, first.elsewhere)
    blind = [other for other in same if other.known == 0]
    origin = blind[-1] if blind else same[0]
    cells: tuple[dict[int, str], dict[int, str]] = ({}, {})
    seeds: dict[int, None] = {}
    for other in (origin, *same, s):
        seeds |= dict.fromkeys(other.entry.content["seeds"])
        for arm in other.arms:
            cells[s.trainings.index(arm["training"])].update({int(seed): cell for seed, cell in arm["trials"].items()})
    counted = [look.content["looks"][s.name] for look in record.looks if s.name in look.content["looks"]]
    return PlannedClaim(
        **{name: s.values[name] for name in ("better", "worse", "metric", "direction", "margin", "words", "digits")},
        standing=Standing.WITHDRAWN if withdrawn else Standing.AMENDED if known else Standing.REGISTERED,
        known=known,
        elsewhere=elsewhere,
        seeds=tuple(seeds),
        looks=tuple(origin.entry.content["looks"]),
        due=tuple(s.entry.content["looks"]),
        due_seeds=tuple(s.entry.content["seeds"]),
        cells=cells,
        looked=tuple(sorted(set(counted))),
        name=s.name,
    )


def _known_at_withdrawal(s: Stated, record: PlanRecord) -> int:
    """Return how many results of its arms this study had when a hypothesis was no longer in the plan."""
    after = [plan for plan in record.plans if plan.number > s.entry.number]
    return sum(after[0].known.get(s.values[side], 0) for side in SIDES) if after else 0
