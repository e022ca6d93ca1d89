"""The claims of a study with their standing: what was stated when, and over which seeds and looks a verdict is due."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.plans.record import Entry, PlanRecord

REGISTERED, AMENDED, WITHDRAWN, BROKEN, UNPLANNED = "registered", "amended", "withdrawn", "not verifiable", "not recorded"


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
        standing: one of the constants of this module.
        known: how many results of its arms were known when it was stated or changed as it is now, or when it was withdrawn.
        seeds: in the order in which they were planned; those of all plans that compare the same arms by the same score.
        looks: the numbers of these seeds at which a verdict was planned before any result was known.
        due: the numbers of seeds at which the plan that states it last wants a verdict; equal to `looks` unless that was changed.
        due_seeds: the seeds of that plan, in its order.
        cells: the ids of the trials by seed, of the better and of the worse arm.
        other_looks: the numbers of seeds, none of `looks`, at which a verdict was computed already.
        name: of what is compared, by which looks are counted.
    """

    better: str
    worse: str
    metric: str
    direction: str
    margin: float | None
    words: str
    digits: int
    standing: str
    known: int = 0
    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    due: tuple[int, ...]
    due_seeds: tuple[int, ...]
    cells: tuple[Mapping[int, str], Mapping[int, str]]
    other_looks: tuple[int, ...] = ()
    name: str

    @property
    def as_planned(self) -> bool:
        """True if verdicts come from the planned looks alone: none was computed elsewhere, and none is due elsewhere."""
        return not self.other_looks and self.due == self.looks and self.due_seeds == self.seeds[: len(self.due_seeds)]

    @property
    def standing_in_words(self) -> str:
        """The standing with what was known, as it is shown beside a verdict."""
        match self.standing:
            case "registered":
                return "registered before any result of its arms"
            case "amended" | "withdrawn":
                return f"{self.standing} after {self.known} result{'s' * (self.known != 1)} of its arms"
            case "not verifiable":
                return "not verifiable: the stored plan is not as it was written"
        return "not recorded: no plan was stored"


@dataclass(frozen=True)
class Stated:
    """A hypothesis as one plan states it, resolved to what its arms are.

    Attributes:
        entry: the plan.
        values: the hypothesis, as `content.stated` gives it.
        arms: the ids of the better and of the worse arm (`content.arm_id`).
        known: the results of both that were known then.
    """

    entry: Entry
    values: Mapping[str, Any]
    arms: tuple[str, str] = field(init=False)
    known: int = field(init=False)

    def __post_init__(self) -> None:
        better, worse = self.values["better"], self.values["worse"]
        plan = self.entry.content["arms"]
        object.__setattr__(self, "arms", (plan[better]["id"], plan[worse]["id"]))
        object.__setattr__(self, "known", self.entry.known.get(better, 0) + self.entry.known.get(worse, 0))

    @property
    def comparison(self) -> tuple[frozenset[str], str]:
        """The part of it that is tested, whichever arm is claimed to be better: the arms and the score."""
        return frozenset(self.arms), self.values["metric"]

    @property
    def claim(self) -> tuple[Any, ...]:
        """All of it that may not change after a result is known, whatever the arms are called."""
        plan = self.entry.content
        of_claim = (self.values["metric"], self.values["direction"], self.values["margin"])
        return (*self.arms, *of_claim, tuple(plan["seeds"]), tuple(plan["looks"]))

    @property
    def name(self) -> str:
        """The comparison as text, by which looks are counted."""
        return "|".join([*sorted(self.arms), self.values["metric"]])


def stated_in(entry: Entry) -> list[Stated]:
    """Return the hypotheses of a plan, in its order."""
    return [Stated(entry, h) for h in entry.content["hypotheses"]]


def claims_of(record: PlanRecord) -> list[PlannedClaim]:
    """Return the claims of the present plan in its order, then those that were withdrawn after a result was known.

    A claim is registered if a plan stated it, exactly as it is now, before any result of its arms was known; the names of arms may
    have changed since. Nothing is registered if the record has a fault.
    """
    history = [stated for plan in record.plans for stated in stated_in(plan)]
    if not history:
        return []
    present = stated_in(record.plans[-1])
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
    as_it_is = [other for other in same if other.claim == s.claim]
    known = min(other.known for other in as_it_is)
    standing = REGISTERED if known == 0 else AMENDED
    if withdrawn:
        standing, known = WITHDRAWN, withdrawn
    if record.faults:
        standing = BROKEN
    blind = [other for other in same if other.known == 0]
    origin = blind[-1] if blind else same[0]
    cells: tuple[dict[int, str], dict[int, str]] = ({}, {})
    seeds: dict[int, None] = {}
    for other in (origin, *same):
        plan = other.entry.content
        seeds |= dict.fromkeys(plan["seeds"])
        for arm in (other.values["better"], other.values["worse"]):
            side = cells[s.arms.index(plan["arms"][arm]["id"])]
            side.update({int(seed): cell for seed, cell in plan["arms"][arm]["trials"].items()})
    looks = tuple(origin.entry.content["looks"])
    counted = [look.content["looks"][s.name] for look in record.looks if s.name in look.content["looks"]]
    return PlannedClaim(
        **{name: s.values[name] for name in ("better", "worse", "metric", "direction", "margin", "words", "digits")},
        standing=standing,
        known=known,
        seeds=tuple(seeds),
        looks=looks,
        due=tuple(s.entry.content["looks"]),
        due_seeds=tuple(s.entry.content["seeds"]),
        cells=cells,
        other_looks=tuple(sorted({n for n in counted if n not in looks})),
        name=s.name,
    )


def _known_at_withdrawal(s: Stated, record: PlanRecord) -> int:
    """Return how many results of its arms were known when a hypothesis was no longer in the plan."""
    after = [plan for plan in record.plans if plan.number > s.entry.number]
    first = after[0] if after else record.plans[-1]
    return first.known.get(s.values["better"], 0) + first.known.get(s.values["worse"], 0)
