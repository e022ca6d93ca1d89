"""The chain of plans and looks of a study: each entry names the digest of the one before it, and none is ever rewritten.

It lies in the trial store, one note per entry. The digest of the last one is a tag of the study's parent run, that of the plan
under which a trial was begun a tag of its run, and all entries are the parent's file plan.json: who edits one of them leaves the
others behind.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Protocol

PLAN, LOOK = "plan", "look"
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
        time: when it was added, UTC.
        previous: the digest of the entry before it; empty for the first.
        sha256: its digest as it is stored.
    """

    number: int
    kind: str
    content: Mapping[str, Any]
    known: Mapping[str, int]
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
    """

    entries: tuple[Entry, ...] = ()
    faults: tuple[str, ...] = ()

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

    def trials_with(self, content: Mapping[str, Any]) -> dict[str, set[str]]:
        """Return the ids of the trials of each arm, by its name, in all plans and in this content of another."""
        trials: dict[str, set[str]] = {}
        for plan in (*(p.content for p in self.plans), content):
            for arm, facts in plan["arms"].items():
                trials.setdefault(arm, set()).update(facts["trials"].values())
        return trials

    def and_plan(self, content: Mapping[str, Any], known: Mapping[str, int]) -> "PlanRecord":
        """Return the record with a plan behind it."""
        return self._and(PLAN, content, known)

    def and_look(self, content: Mapping[str, Any]) -> "PlanRecord":
        """Return the record with a look behind it."""
        return self._and(LOOK, content, {})

    def _and(self, kind: str, content: Mapping[str, Any], known: Mapping[str, int]) -> "PlanRecord":
        time = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        entry = Entry(
            number=len(self.entries) + 1, kind=kind, content=content, known=known, time=time, previous=self.head, sha256=""
        )
        return PlanRecord((*self.entries, replace(entry, sha256=entry.digest())), self.faults)

    def as_text(self) -> str:
        """Return all entries as JSON, for people and for plan.json."""
        return json.dumps([vars(e) for e in self.entries], indent=1)

    def checked(self, *, tag: str, file: str, runs: Iterable[str]) -> "PlanRecord":
        """Return the record with what does not agree with the copies of it among its faults.

        Args:
            tag: the digest that the parent run names; empty if it names none.
            file: the text of the parent run's plan.json; empty if there is none.
            runs: the digests that runs of trials name.
        """
        digests = {e.sha256 for e in self.entries}
        faults = list(self.faults)
        if tag and tag not in digests:
            faults.append(f"the parent run was made under plan {tag[:12]}, which is not in the trial store")
        unknown = sorted(set(runs) - digests)
        faults += [f"runs were begun under plan {run[:12]}, which is not in the trial store" for run in unknown]
        if file:
            try:
                kept = [Entry(**values) for values in json.loads(file)]
            except (ValueError, TypeError):
                kept = None
            if kept is None or [e for e in kept if e.digest() != e.sha256]:
                faults.append(f"{PLAN_FILE} of the parent run was edited")
            elif tuple(kept) != self.entries[: len(kept)]:
                faults.append(f"{PLAN_FILE} of the parent run and the trial store differ")
        return PlanRecord(self.entries, tuple(dict.fromkeys(faults)))


def read(notes: Mapping[str, Any]) -> PlanRecord:
    """Return the chain in the notes of a trial store, with what is wrong with it."""
    numbers = sorted(int(name.removeprefix(NOTE)) for name in notes if name.removeprefix(NOTE).isdigit() and name.startswith(NOTE))
    entries: list[Entry] = []
    faults = []
    for place, number in enumerate(numbers, 1):
        try:
            entry = Entry(**json.loads(notes[f"{NOTE}{number}"]))
        except (ValueError, TypeError):
            faults.append(f"entry {number} of the stored plan cannot be read")
            continue
        if entry.digest() != entry.sha256:
            faults.append(f"entry {number} of the stored plan was edited")
        elif (entry.number, entry.previous) != (place, entries[-1].sha256 if entries else ""):
            faults.append(f"entry {number} of the stored plan does not follow the one before it")
        entries.append(entry)
    return PlanRecord(tuple(entries), tuple(faults))


def add(shelf: Shelf, record: PlanRecord) -> None:
    """Store the entries of a record that the shelf has not."""
    stored = shelf.notes()
    shelf.note_study({f"{NOTE}{e.number}": json.dumps(vars(e)) for e in record.entries if f"{NOTE}{e.number}" not in stored})
