"""What leaves this machine: a frozen study opens without a server, and two reports can be held side by side."""

import io
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from made_up import PLAIN, reported, train
from rich.console import Console

from harness import paths
from harness.errors import UserError
from harness.report.comparison import Comparison, Side
from harness.runner import commands, comparing, freezing
from harness.stats import paired
from harness.study import Cell

pytestmark = pytest.mark.usefixtures("unpainted")

TRAINED = """'''Does the loss matter?'''
from harness import Ablation, Budget, Hypothesis, TrialSpec

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(16,), latent=2, batch_size=300),
    arms={"bce": {}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=2, seeds=range(2))},
    hypotheses=(Hypothesis(better="bce", worse="mse", metric="test/squared_error"),),
)
"""


def console() -> Console:
    return Console(file=io.StringIO(), width=300)


def compared(a: str | Path, b: str | Path, **options: object) -> str:
    screen = console()
    assert comparing.compare(str(a), str(b), screen, **options) == 0
    return screen.file.getvalue()


@pytest.mark.slow
def test_a_frozen_study_is_whole_and_compares_with_its_own_record(mlflow_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "a_study.py"
    file.write_text(TRAINED)
    assert commands.run_study(str(file), "default", "cpu", 1, console(), executor="local") == 0
    folder = tmp_path / "shared" / "frozen"
    assert freezing.freeze_study(str(file), "default", console(), out=str(folder)) == 0
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    pages = [moved / "index.html", *(moved / "runs").glob("*.html")]
    assert len(pages) == 5
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)
        for link in re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', html):
            assert (page.parent / unquote(link)).is_file(), (page, link)
        for anchor in re.findall(r'href="#([^"]*)"', html):
            assert f'id="{anchor}"' in html
    runs = set(re.findall(r'class="run" href="runs/([0-9a-f]+).html"', pages[0].read_text(encoding="utf-8")))
    assert runs == {page.stem for page in pages[1:]} == set(pd.read_csv(moved / "trials.csv")["run"])
    assert not list(moved.rglob("state_dict.pt"))
    assert freezing.freeze_study(str(file), "default", console(), out=str(folder)) == 0  # what it has made it may make anew
    said = compared(file, moved)
    assert "2 arms on both sides, 4 pairs of trials with equal seeds: all with equal scores." in said
    assert "a_study (default budget)" in said


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, home: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not a frozen study"):
        freezing._check(tmp_path)
    with pytest.raises(UserError, match="holds neither a report"):
        compared(tmp_path, "loss_ablation")


def test_two_studies_are_paired_by_arm_and_seed(mlflow_store: Path, tmp_path: Path) -> None:
    def later(cell: Cell) -> dict[str, float]:
        noise = np.random.default_rng(cell.spec.seed + 100).normal(scale=0.1)
        return {"test/squared_error": 12.0 + cell.spec.seed + noise, "test/common_bits": 1.0}

    def earlier(cell: Cell) -> dict[str, float]:
        return {"test/squared_error": 10.0 + cell.spec.seed, "test/common_bits": 1.0}

    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text(PLAIN)
    renamed = PLAIN.replace('"laplace": {', '"other": {').replace('better="laplace"', 'better="other"')
    second.write_text(renamed.replace("latent=2", "latent=5"))
    for file, scores in ((first, earlier), (second, later)):
        train(file, scores)
        reported(file)
    said = compared(first, second, out=str(tmp_path / "page"))
    assert "2 arms on both sides, 12 pairs of trials with equal seeds: none with equal scores" in said
    assert re.search(r"latent +2 +5", said)
    assert re.search(r"arms without a counterpart +laplace +other", said)
    reports = paths.mlruns() / "reports"
    comparison = Comparison(Side.of("a", reports / "first"), Side.of("b", reports / "second"))
    (row,) = (row for row in comparison.rows if row.arm == "bce" and row.score.key == "test/squared_error")
    assert row.paired == paired([row.b[s] for s in range(6)], [row.a[s] for s in range(6)])
    assert 1.8 < row.paired.mean < 2.2
    assert row.paired.high - row.paired.low < 0.5  # seeds differ by 5 in all, which pairing takes out
    assert row.verdict == "B worse"
    html = (tmp_path / "page" / "comparison.html").read_text(encoding="utf-8")
    assert comparison.headline in html
    kept = json.loads((tmp_path / "page" / "comparison.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(comparison.as_json())) | {"a": kept["a"], "b": kept["b"]}
    printed = json.loads(compared(first, second, json=True))
    (found,) = (r for r in printed["scores"] if (r["arm"], r["metric"]) == ("bce", "test/squared_error"))
    assert found["difference"] == pytest.approx(row.paired.mean)
    (claim,) = (c for c in printed["claims"] if c["claim"].startswith("laplace beats mse"))
    assert claim["b"] == "not stated"


def test_another_home_is_asked_for_the_same_study(mlflow_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "first.py"
    file.write_text(PLAIN)
    train(file)
    reported(file)
    other = tmp_path / "another home"
    shutil.copytree(paths.mlruns() / "reports" / "first", other / "mlruns" / "reports" / "first")
    assert "18 pairs of trials with equal seeds: all with equal scores." in compared(file, other)
    with pytest.raises(UserError, match="has no report 'unknown'; it has first"):
        compared(other, "unknown")
    (other / "mlruns" / "reports" / "first" / "verdicts.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        compared(file, other)
