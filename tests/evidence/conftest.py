"""A study of four trials on record in both stores, with a report, made once; tests get a copy of it that they may damage."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers import PAIR, queue_of
from evidence_home import RAW, Home, report, train
from homes import home_at
from rich.console import Console

from harness import plans
from harness.evidence.verify import verify
from harness.tracking import MlflowTracker


@pytest.fixture(scope="session")
def template(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, trained and reported once."""
    home = tmp_path_factory.mktemp("evidence")
    (home / "mlruns").mkdir()
    (home / "data" / RAW).parent.mkdir(parents=True)
    (home / "data" / RAW).write_bytes(b"images")
    shutil.copy(mlflow_template, home / "mlruns" / "mlflow.db")
    with home_at(home) as patch:
        patch.setenv("HARNESS_DATA", str(home / "data"))
        queue, tracker = queue_of(PAIR), MlflowTracker("a_study", "default", "")
        plan = plans.PlanRecord().and_plan({"arms": {}, "hypotheses": []}, {}).and_look({"looks": {}})
        plans.add(queue.store, plan)
        tracker.keep_plan(plan.head, plan.as_text())
        train(queue, tracker, home / "scratch")
        report(tracker, queue.done())
    return home


@pytest.fixture
def on_record(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A copy of the study: both databases, files, data. What MLflow holds of paths is that of the copy."""
    copy = Home(tmp_path / "copy")
    shutil.copytree(template, copy.path)
    for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
        copy.sql("mlflow.db", f"UPDATE {table} SET {column} = replace({column}, '{template}', '{copy.path}')")
    monkeypatch.setenv("HARNESS_HOME", str(copy.path))
    monkeypatch.setenv("HARNESS_DATA", str(copy.path / "data"))
    return copy


@pytest.fixture
def said(on_record: Home) -> Callable[[str], tuple[int, str]]:
    """What `harness verify` answers: the exit code, and what it prints."""

    def ask(reference: str = "a_study") -> tuple[int, str]:
        screen = io.StringIO()
        code = verify(reference, "default", Console(file=screen, width=200))
        return code, screen.getvalue()

    return ask
