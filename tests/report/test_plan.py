"""`harness plan`: what is claimed, since when, and what seeds can show; nothing is written."""

import io
from hashlib import sha256
from pathlib import Path

from made_up import PLAIN, reported, train
from rich.console import Console

from harness import report
from harness.study import load


def said(file: Path, earlier: Path | None = None) -> str:
    screen = io.StringIO()
    other = load(str(earlier)) if earlier else None
    report.show_plan(load(str(file)), "default", Console(file=screen, width=300), earlier=other)
    return screen.getvalue()


def stores(home: Path) -> dict[str, str]:
    return {f.name: sha256(f.read_bytes()).hexdigest() for f in (home / "mlruns").glob("*.db")}


def test_a_plan_is_shown_before_its_runs_and_after(mlflow_store: Path, home: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "a_study.py", tmp_path / "another.py"
    file.write_text(PLAIN.replace('"laplace": {"likelihood": "laplace"}', '"laplace": {"likelihood": "laplace", "latent": 3}'))
    other.write_text(PLAIN.replace("latent=2", "latent=4"))
    before = said(file)
    assert "none is stored yet" in before
    assert "would be registered before any result" in before
    assert "not known yet" in before
    assert set(stores(home)) == {"mlflow.db"}

    train(file)
    reported(file)
    digests = stores(home)
    after = said(file)
    assert stores(home) == digests
    assert "plan: version 1 of" in after
    assert "looks at results: 1, at 6 seeds" in after
    assert "bce beats mse on squared error: registered before any result" in after
    assert "6 seeds show" in after
    assert "the margin, 3.00" in after
    assert "file has changed" not in after

    ahead = said(other, earlier=file)
    assert "none is stored yet" in ahead
    assert "paired differences of a_study" in ahead

    file.write_text(file.read_text().replace('better="bce", worse="mse"', 'better="mse", worse="bce"'))
    flipped = said(file)
    assert "will state it as version 2" in flipped
    assert "mse beats bce on squared error: would be amended after 12 results" in flipped
    assert "seeds added now are a look that nobody planned: 12 seeds would show" in flipped
    assert stores(home) == digests
