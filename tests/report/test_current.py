"""A report counts as current while it is made of what is on record, and no longer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import UNDRAWN
from memory_tracker import MemoryTracker

from harness import report
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis
from harness.tracking import Record

CLAIM = Hypothesis(better="bce", worse="mse", metric="test/squared_error")
STUDY = Ablation(
    base=TrialSpec(dataset="digits"),
    arms={"bce": {}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=1, seeds=range(6))},
    hypotheses=(CLAIM,),
    objective=None,
)
CELLS = STUDY.cells("default")
RESULTS = report.AblationResults(
    name="a_study",
    budget="default",
    study=STUDY,
    cells=CELLS,
    records={c.spec.id: Record(f"run-{c.arm}-{c.seed}", {CLAIM.metric: 9.0 + c.seed + 5 * (c.arm == "mse")}, {}) for c in CELLS},
    failures={},
)
LAST = CELLS[-1].spec.id
Change = Callable[[report.AblationResults], report.AblationResults]


@pytest.fixture
def published(home: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryTracker:
    """The tracker of a study whose report was written, with figures that were not drawn."""
    for module, name, undrawn in UNDRAWN:
        monkeypatch.setattr(module, name, undrawn)
    monkeypatch.setattr(MemoryTracker, "file", lambda self, run, name: Path(name))
    tracker = MemoryTracker()
    report.publish(RESULTS, tracker, question="Which?")
    return tracker


CHANGES: dict[str, Change] = {
    "a flipped claim": lambda r: replace(
        r, study=replace(STUDY, hypotheses=(Hypothesis(better="mse", worse="bce", metric=CLAIM.metric),))
    ),
    "a margin": lambda r: replace(r, study=replace(STUDY, hypotheses=(replace(CLAIM, margin=1.0),))),
    "no claim": lambda r: replace(r, study=replace(STUDY, hypotheses=())),
    "a score": lambda r: replace(r, records={**r.records, LAST: Record("run-mse-5", {CLAIM.metric: 19.1}, {})}),
    "a run": lambda r: replace(r, records={**r.records, LAST: Record("another", {CLAIM.metric: 19.0}, {})}),
    "a result less": lambda r: replace(r, records={k: v for k, v in r.records.items() if k != LAST}),
    "a failure": lambda r: replace(r, failures={LAST: "lost"}),
    "a plan": lambda r: replace(r, plan=r.plan.and_plan({"arms": {}, "hypotheses": []}, {})),
}


def is_current(results: report.AblationResults, tracker: MemoryTracker, question: str = "Which?") -> bool:
    return report.is_current(results, tracker, None, question)


def test_a_report_is_current_as_long_as_nothing_has_changed(published: MemoryTracker) -> None:
    assert is_current(RESULTS, published)
    assert is_current(replace(RESULTS), published)
    assert not is_current(RESULTS, published, "Which, then?")
    assert not is_current(RESULTS, MemoryTracker())


@pytest.mark.parametrize("change", CHANGES)
def test_a_report_of_anything_else_is_stale(change: str, published: MemoryTracker) -> None:
    assert not is_current(CHANGES[change](RESULTS), published)


def test_a_page_that_is_gone_or_of_another_report_is_stale(published: MemoryTracker) -> None:
    page = report.folder("a_study", "default") / "report.html"
    page.write_text("an older report")
    assert not is_current(RESULTS, published)
    page.unlink()
    assert not is_current(RESULTS, published)


def test_figures_are_drawn_again_unless_the_report_is_current_and_they_are_as_they_were(
    published: MemoryTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    for module, name, undrawn in UNDRAWN:
        monkeypatch.setattr(module, name, lambda *arguments, name=name, undrawn=undrawn: (drawn.append(name), undrawn(*arguments)))
    every = {name for _, name, _ in UNDRAWN}
    folder = report.folder("a_study", "default")

    def publish(results: report.AblationResults = RESULTS) -> set[str]:
        drawn.clear()
        report.publish(results, published, question="Which?")
        assert (folder / "gallery.png").read_bytes() == b"picture"
        return set(drawn)

    assert publish() == set()
    (folder / "gallery.png").write_bytes(b"another")
    assert publish() == every
    assert publish() == set()
    (folder / "parts" / "00-latents.svg").unlink()
    assert publish() == every
    assert publish(CHANGES["a score"](RESULTS)) == every
