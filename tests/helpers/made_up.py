"""Studies whose results are made up: everything is real but the training, so that a claim's whole life takes a second."""

import contextlib
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from rich.console import Console

from harness import report
from harness.report import page
from harness.report.ablation import figures, pictures
from harness.runner import outcome
from harness.runner.study_store import StudyStore
from harness.spec import Result
from harness.study import Ablation, Cell, load
from harness.tracking import MlflowTracker

ORIGIN = {"dataset.digest": "d" * 64, "device": "a CPU"}
PLAIN = """'''Does the loss matter?'''
from harness import Ablation, Budget, Hypothesis, TrialSpec

STUDY = Ablation(
    base=TrialSpec(dataset="digits", latent=2),
    arms={"bce": {}, "mse": {"likelihood": "mse"}, "laplace": {"likelihood": "laplace"}},
    budgets={"default": Budget(epochs=1, seeds=range(6))},
    hypotheses=(
        Hypothesis(better="bce", worse="mse", metric="test/squared_error", margin=3.0),
        Hypothesis(better="laplace", worse="mse", metric="test/kl_to_beat"),
    ),
    objective=None,
)
""".replace("test/kl_to_beat", "test/common_bits")
LEVEL = {"bce": 10.0, "mse": 20.0, "laplace": 20.0}  # mean score by likelihood


def scores(cell: Cell) -> dict[str, float]:
    """Scores of a cell in which bce is better than both others, which do not differ."""
    rng = np.random.default_rng([cell.spec.seed, sorted(LEVEL).index(cell.spec.likelihood)])
    level = LEVEL[cell.spec.likelihood]
    return {"test/squared_error": level + rng.normal(), "test/common_bits": level / 10 + rng.normal()}


def store_of(study: Path | str) -> tuple[StudyStore, Ablation]:
    """The records of a study's default budget."""
    loaded = load(str(study))
    assert isinstance(loaded.study, Ablation)
    tracker = MlflowTracker(loaded.name, "default", report.note(loaded.question, "default", loaded.study))
    return StudyStore(loaded.name, "default", tracker, "", loaded.question), loaded.study


def train(study: Path | str, scores: Callable[[Cell], Mapping[str, float]] = scores, most: int = 10_000) -> int:
    """Record made-up results of what is missing of a study, at most so many trials, as its driver does. Return how many."""
    store, ablation = store_of(study)
    tracker, done = store.tracker, 0
    files = Path(str(study)).parent / "files"
    files.mkdir(exist_ok=True)
    with store.ablation_queue(ablation, ablation.cells("default"), "") as queue:
        queue.value = lambda metrics: metrics["test/squared_error"]
        queue.reconcile(tracker.look, tracker.finished_runs(queue.store.name))
        plan = store.keep_plan(ablation, queue.store, {"digits": "d" * 64})
        queue.prepare()
        while done < most and (taken := queue.take(1, lambda cell: 0)):
            (assignment,) = taken
            cell = assignment.cell
            tags = {**ORIGIN, "ledger": queue.store.name, "plan": plan.head}
            run = tracker.begin(cell.spec, cell.arm, assignment.number, assignment.attempt, tags)
            queue.note_run(assignment, run)
            np.savez(files / "pictures.npz", empty=np.zeros(1))
            tracker.finish(run, Result(cell.spec, scores(cell)), files)
            queue.complete(assignment, scores(cell))
            done += 1
    return done


@dataclass(frozen=True)
class Shown:
    """Everything that shows the verdicts of a study.

    Attributes:
        rows: of verdicts.json.
        faults: of the plan, there.
        terminal: what was printed.
        html: of the page.
        tags: of the parent run.
        note: the text above the experiment.
    """

    rows: Sequence[Mapping[str, object]]
    faults: Sequence[str]
    terminal: str
    html: str
    tags: Mapping[str, str]
    note: str

    def agree(self) -> None:
        """Fail unless all of them say the same of every claim."""
        places = [" ".join(text.split()) for text in (self.terminal, html.unescape(self.html), self.note)]
        verdicts = [value for name, value in self.tags.items() if name.startswith("verdict.")]
        assert len(verdicts) == len(self.rows)
        for row in self.rows:
            words, standing = str(row["sentence"]), str(row["standing_in_words"])
            assert f"{words} [{standing}]" in verdicts
            for place in places:
                assert words in place
                assert standing.lower() in place.lower()
        registered = sum(row["standing"] == "registered" for row in self.rows)
        for text in (places[0], places[2], " ".join(verdicts)):
            assert text.count("[registered before") == registered
        assert places[1].count("Registered before") == registered
        for fault in self.faults:
            assert all(fault in place for place in places)

    def standing(self, claim: str) -> str:
        """The standing of the claim that begins like this."""
        (row,) = (row for row in self.rows if str(row["claim"]).startswith(claim))
        return str(row["standing"])

    def row(self, claim: str) -> Mapping[str, object]:
        """The row of the claim that begins like this."""
        (row,) = (row for row in self.rows if str(row["claim"]).startswith(claim))
        return row


def _no_picture(*arguments: object) -> None:
    """Write files where a figure, or a part of one, would be drawn."""
    path = Path(str(arguments[-1]))
    path.write_bytes(b"picture")
    path.with_suffix(".svg").write_text("<svg></svg>")


def _no_pictures(files: Mapping[str, Path], parts: Path, path: Path) -> None:
    """Write files where the pictures of all arms would be drawn."""
    for i in range(len(files)):
        for part in ("images.png", "samples.png", "latents.svg"):
            (parts / f"{i:02d}-{part}").write_text("<svg></svg>")
    _no_picture(path)


UNDRAWN = [(figures, name, _no_picture) for name in ("scores", "score_panel", "rate_distortion")] + [
    (pictures, "draw", _no_pictures)
]


def reported(study: Path | str) -> Shown:
    """Everything that `harness report` shows of a study, after a check that all of it agrees."""
    screen = io.StringIO()
    with contextlib.ExitStack() as stack:
        for module, name, undrawn in UNDRAWN:
            stack.enter_context(patch.object(module, name, undrawn))
        assert outcome.report_study(str(study), "default", Console(file=screen, width=500)) == 0
    store, _ = store_of(study)
    folder = page.folder(store.name, "default")
    verdicts = json.loads((folder / "verdicts.json").read_text())
    client = store.tracker.client
    experiment = client.get_experiment(store.tracker.experiment_id)
    shown = Shown(
        rows=verdicts["verdicts"],
        faults=verdicts["faults"],
        terminal=screen.getvalue(),
        html=(folder / "report.html").read_text(),
        tags=client.get_run(store.tracker.parent).data.tags,
        note=experiment.tags["mlflow.note.content"],
    )
    shown.agree()
    return shown
