"""A tiny study that keeps its evidence: how it is trained and reported, and the home folder that it is on record in."""

import html
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from drivers import ALONE, driver_of

from harness import evidence, paths
from harness.data import load_dataset
from harness.evidence import Witness, facts
from harness.queue import TrialQueue
from harness.tracking import MlflowTracker
from harness.training.planner import Plan

RAW = "TOY/raw/images-ubyte"
MADE_OF = "d" * 64
WINNER = "bce & nothing / seed 0, the best of 4 by 'ELBO'"
STUDY = b'"""A study of nothing."""\n'


def witness() -> Witness:
    """What a driver of the study would know, with the raw file that a test may damage if there is one in the data folder."""
    data = facts.data(load_dataset("digits"), "digits", "")
    raw = paths.data() / RAW
    files = data["files"] | ({RAW: evidence.sha256_of(raw)} if raw.exists() else {})
    told = {
        "name": "a_study",
        "budget": "default",
        "reference": "a_study",
        "path": "a_study.py",
        "sha256": evidence.sha256_of(STUDY),
    }
    return Witness(study=told, source=STUDY, data={**data, "files": files}, executor="local")


def train(queue: TrialQueue, tracker: MlflowTracker, scratch: Path, plan: Plan = ALONE) -> None:
    """Train what is missing, in this process."""
    driver = driver_of(queue, tracker, scratch, plan=plan, headline="elbo/validation")
    driver.witness = witness()
    driver.reconcile()
    queue.prepare()
    driver.run()


def report(tracker: MlflowTracker, runs: dict[str, str]) -> None:
    """Write a report of one page, of one verdict and a winner."""
    folder, note = paths.mlruns() / "reports" / "a_study", "**a question**\n\n- **open**: nothing was found [registered]\n"
    folder.mkdir(parents=True)
    winner = next(iter(runs))
    page = f'<meta name="made-of" content="{MADE_OF}"><p>nothing was found; {html.escape(WINNER)}</p>'
    (folder / "report.html").write_text(page)
    rows = [{"sentence": "nothing was found", "standing_in_words": "registered"}]
    (folder / "verdicts.json").write_text(json.dumps({"verdicts": rows}))
    records = list(tracker.results(runs).values())
    plan = tracker.plan_on_record()[0]
    digest = evidence.of_report(folder, "a_study", "default", records, plan=plan, note=note, winner=winner)
    tags = {evidence.TAG: digest, evidence.MADE_OF: MADE_OF, "verdict.1": "nothing was found [registered]"}
    tracker.finish_study(folder, tags | {"winner": WINNER, "winner.cell": winner}, note)


@dataclass(frozen=True)
class Home:
    """A home folder with the study on record.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def mlruns(self) -> Path:
        return self.path / "mlruns"

    def sql(self, database: str, statement: str) -> list[tuple]:
        """Run a statement in one of the two databases."""
        with closing(sqlite3.connect(self.mlruns / database)) as connection, connection:
            return connection.execute(statement).fetchall()

    def runs(self) -> list[str]:
        """The ids of the trials' runs, the first one first."""
        return [run for (run,) in self.sql("mlflow.db", "SELECT run_uuid FROM tags WHERE key = 'trial' ORDER BY value")]

    def files(self, run: str) -> Path:
        """The folder of a run's files."""
        return self.mlruns / "artifacts" / "a_study" / run / "artifacts"

    def parent(self) -> str:
        """The id of the parent run."""
        return self.sql("mlflow.db", "SELECT run_uuid FROM tags WHERE key = 'kind' AND value = 'study'")[0][0]
