"""The chain of plans and looks of a study: each entry names the digest of the one before it, and none is ever rewritten.

It lies in the trial store, one note per entry. The digest of the last one is a tag of the study's parent run, that of the plan
under which a trial was begun a tag of its run, and all entries are the parent's file plan.json: who edits one of them leaves the
others behind.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Protocol

PLAN, LOOK = "plan", "look"
SIDES = ("better", "worse")
PLAN_FILE = "plan.json"
PLAN_TAG = "plan"  # of a parent run the digest of the last entry, of a trial's run that of the entry under which it was begun
NOTE = "plan."  # the notes of a trial store that hold entries: plan.1, plan.2, ...


class Shelf(Protocol):
    """A store of notes by name, as a trial store is one."""

    def notes(self) -> Mapping[str, Any]:
        """Return all notes."""

    def note_study(self, attributes: Mapping[str, Any]) -> None:
        """Store notes."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A plan as it was stated, or a look at results.

    Attributes:
        number: from 1, in the order of the chain.
        kind: "plan" or "look".
        content: the plan as `content.stated` gives it; of a look the claims and the numbers of seeds.
        known: of a plan, how many results of each arm were known when it was stated, by the arm's name.
        elsewhere: the same of results that other studies have of the same training.
        time: when it was added, UTC.
        previous: the digest of the entry before it; empty for the first.
        sha256: its digest as it is stored.
    """

    number: int
    kind: str
    content: Mapping[str, Any]
    known: Mapping[str, int]
    elsewhere: Mapping[str, int]
    time: str
    previous: str
    sha256: str

    def digest(self) -> str:
        """Return the sha256 of all else that the entry holds, as canonical JSON."""
        values = {name: value for name, value in vars(self).items() if name != "sha256"}
        return sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class PlanRecord:
    """The entries of a study's chain in their order, and what is wrong with them.

    Attributes:
        entries: plans and looks.
        faults: in words; empty if nothing is.
        begun: the number of the entry under which each finished trial was begun, by the trial's id, as far as runs say it.
    """

    entries: tuple[Entry, ...] = ()
    faults: tuple[str, ...] = ()
    begun: Mapping[str, int] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """The digest of the last entry; empty if there is none."""
        return self.entries[-1].sha256 if self.entries else ""

    @property
    def plans(self) -> list[Entry]:
        """The plans, the newest last. Their place in this list, from 1, is what people know as the version."""
        return [e for e in self.entries if e.kind == PLAN]

    @property
    def looks(self) -> list[Entry]:
        """The looks at results, the newest last."""
        return [e for e in self.entries if e.kind == LOOK]

    @property
    def present(self) -> Mapping[str, Any] | None:
        """The content of the newest plan; None if there is none."""
        return self.plans[-1].content if self.plans else None

    def trainings_with(self, content: Mapping[str, Any]) -> dict[str, set[str]]:
        """Return what each arm trained, by its name, as `content.training_id` says it, in all plans and in this one."""
        trainings: dict[str, set[str]] = {}
        for plan in (*(p.content for p in self.plans), content):
            for arm, facts in plan["arms"].items():
                trainings.setdefault(arm, set()).add(facts["training"])
        return trainings

    def and_plan(
        self, content: Mapping[str, Any], known: Mapping[str, int], elsewhere: Mapping[str, int] | None = None
    ) -> "PlanRecord":
        """Return the record with a plan behind it."""
        return self._and(PLAN, content, known, elsewhere or {})

    def and_look(self, content: Mapping[str, Any]) -> "PlanRecord":
        """Return the record with a look behind it."""
        return self._and(LOOK, content, {}, {})

    def _and(self, kind: str, content: Mapping[str, Any], known: Mapping[str, int], elsewhere: Mapping[str, int]) -> "PlanRecord":
        time = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        entry = Entry(
            number=len(self.entries) + 1,
            kind=kind,
            content=content,
            known=known,
            elsewhere=elsewhere,
            time=time,
            previous=self.head,
            sha256="",
        )
        return replace(self, entries=(*self.entries, replace(entry, sha256=entry.digest())))

    def as_text(self) -> str:
        """Return all entries as JSON, for people and for plan.json."""
        return json.dumps([vars(e) for e in self.entries], indent=1)

    def checked(self, *, tag: str, file: str, runs: Mapping[str, str]) -> "PlanRecord":
        """Return the record with what does not agree with the copies of it among its faults.

        Args:
            tag: the digest that the parent run names; empty if it names none.
            file: the text of the parent run's plan.json; empty if there is none.
            runs: the digests that the runs of finished trials name, by the trial's id.
        """
        digests = {e.sha256: e.number for e in self.entries}
        faults = list(self.faults)
        if tag and tag not in digests:
            faults.append(f"the parent run was made under plan {tag[:12]}, which is not in the trial store")
        unknown = sorted(set(runs.values()) - set(digests))
        faults += [f"runs were begun under plan {run[:12]}, which is not in the trial store" for run in unknown]
        if file:
            try:
                kept = [Entry(**values) for values in json.loads(file)]
            except (ValueError, TypeError, RecursionError):
                kept = None
            if kept is None or [e for e in kept if e.digest() != e.sha256]:
                faults.append(f"{PLAN_FILE} of the parent run was edited")
            elif tuple(kept) != self.entries[: len(kept)]:
                faults.append(f"{PLAN_FILE} of the parent run and the trial store differ")
        begun = {cell: digests[digest] for cell, digest in runs.items() if digest in digests}
        return PlanRecord(self.entries, tuple(dict.fromkeys(faults)), begun)


def read(notes: Mapping[str, Any]) -> PlanRecord:
    """Return the chain in the notes of a trial store, with what is wrong with it."""
    numbers = sorted(int(found[1]) for name in notes if (found := re.fullmatch(rf"{re.escape(NOTE)}([1-9][0-9]{{0,8}})", name)))
    entries: list[Entry] = []
    faults = []
    for place, number in enumerate(numbers, 1):
        try:
            entry = Entry(**json.loads(notes[f"{NOTE}{number}"]))
        except (ValueError, TypeError, RecursionError):
            faults.append(f"entry {number} of the stored plan cannot be read")
            continue
        if not _is_entry(entry):
            faults.append(f"entry {number} of the stored plan holds something else")
            continue
        if entry.digest() != entry.sha256:
            faults.append(f"entry {number} of the stored plan was edited")
        elif (entry.number, entry.previous) != (place, entries[-1].sha256 if entries else ""):
            faults.append(f"entry {number} of the stored plan does not follow the one before it")
        if not _is_sound(entry):
            faults.append(f"entry {number} of the stored plan holds something else")
            continue
        entries.append(entry)
    return PlanRecord(tuple(entries), tuple(faults))


def from_text(text: str) -> PlanRecord:
    """Return the chain of which `PlanRecord.as_text` gave this text, with what is wrong with it."""
    try:
        return read({f"{NOTE}{values['number']}": json.dumps(values) for values in json.loads(text)})
    except (ValueError, TypeError, KeyError):
        return PlanRecord(faults=(f"{PLAN_FILE} was edited",))


def _is_entry(entry: Entry) -> bool:
    """Return whether the fields of an entry are of the types that they should be of."""
    texts = (entry.kind, entry.time, entry.previous, entry.sha256)
    counts = all(isinstance(of, Mapping) and all(type(n) is int for n in of.values()) for of in (entry.known, entry.elsewhere))
    return (
        counts and all(isinstance(text, str) for text in texts) and type(entry.number) is int and isinstance(entry.content, Mapping)
    )


def _is_sound(entry: Entry) -> bool:
    """Return whether an entry holds what its kind should, so that claims can be made of it."""
    try:
        if entry.kind == LOOK:
            return all(type(n) is int for n in entry.content["looks"].values())
        arms, claims = entry.content["arms"], entry.content["hypotheses"]
        numbers = not claims or all(_are(int, entry.content[name]) for name in ("seeds", "looks"))
        return numbers and all(map(_is_arm, arms.values())) and all(_is_claim(claim, arms) for claim in claims)
    except (KeyError, TypeError, AttributeError, ValueError):
        return False


def _is_arm(arm: Mapping[str, Any]) -> bool:
    """Return whether this is what a plan says of an arm, with its trials by seed."""
    return _are(str, [arm["id"], arm["training"], *arm["trials"].values()]) and _are(int, [int(seed) for seed in arm["trials"]])


def _is_claim(claim: Mapping[str, Any], arms: Mapping[str, Any]) -> bool:
    """Return whether this is a hypothesis about two of these arms."""
    words = _are(str, [claim[name] for name in (*SIDES, "metric", "direction", "words")])
    numbers = type(claim["digits"]) is int and (claim["margin"] is None or isinstance(claim["margin"], int | float))
    return words and numbers and all(claim[side] in arms for side in SIDES)


def _are(kind: type, values: Any) -> bool:
    """Return whether this is a list of values of one type."""
    return isinstance(values, list) and all(type(value) is kind for value in values)


def add(shelf: Shelf, record: PlanRecord) -> None:
    """Store the entries of a record that the shelf has not."""
    stored = shelf.notes()
    shelf.note_study({f"{NOTE}{e.number}": json.dumps(vars(e)) for e in record.entries if f"{NOTE}{e.number}" not in stored})
