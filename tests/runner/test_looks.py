"""A study with planned looks ends at the first that settles its claims; a page is remade when what it was made of has changed."""

import io
from pathlib import Path

import pytest
from made_up import reported
from rich.console import Console

from harness.report import page
from harness.runner import commands

pytestmark = pytest.mark.usefixtures("unpainted")

LOOKS = """'''Does a learning rate of nothing learn?'''
from harness import Ablation, Budget, Hypothesis, TrialSpec

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(16,), latent=2, batch_size=300),
    arms={"fast": {"learning_rate": 1e-2}, "slow": {"learning_rate": 1e-6}},
    budgets={"default": Budget(epochs=1, seeds=range(10), looks=(6, 10))},
    hypotheses=(Hypothesis(better="fast", worse="slow", metric="test/squared_error"),),
    objective=None,
)
"""


def study(file: Path) -> str:
    screen = io.StringIO()
    assert commands.run_study(str(file), "default", "cpu", 1, Console(file=screen, width=300), executor="local") == 0
    return screen.getvalue()


@pytest.mark.slow
def test_planned_looks_spare_seeds_and_a_page_follows_its_plan(mlflow_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "a_study.py"
    file.write_text(LOOKS)
    said = study(file)
    assert "2 arms x 10 seeds, judged at 6, 10" in said
    assert "[12/12]" in said
    assert "fast beats slow on squared error: confirmed with 6 seeds" in said
    assert "registered before any result" in said
    html = page.folder("a_study", "default") / "report.html"
    written = html.stat().st_mtime_ns

    again = study(file)
    assert "nothing to do" in again
    assert "writing the report" not in again
    assert html.stat().st_mtime_ns == written
    assert reported(file).row("fast beats slow")["seeds"] == 6

    added = '        Hypothesis(better="slow", worse="fast", metric="test/common_bits"),\n'
    file.write_text(LOOKS.replace("    hypotheses=(", f"    hypotheses=(\n{added}        "))
    changed = study(file)  # the new claim is not settled by the first look if it cannot be seen, else nothing is trained
    assert "writing the report" in changed
    assert "slow beats fast" in html.read_text()
    assert "Amended after 12 results" in html.read_text()
    html.write_text("an old page")
    assert "writing the report" in study(file)
    assert "slow beats fast" in html.read_text()
