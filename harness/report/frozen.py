"""A study as a folder that opens without any server: its report, and a page, the pictures and the records of every run."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import evidence
from harness.report.inline import inline
from harness.report.saved_figures import save_svg
from harness.scores import Scores, in_groups
from harness.spec import flattened

PAGE = "index.html"
RUNS = "runs"
LEFT_OUT = ("state_dict.pt",)  # weights are most of a run's bytes; `harness replay` trains them again


@dataclass(frozen=True, kw_only=True)
class FrozenRun:
    """A run that goes into the folder.

    Attributes:
        run: its id.
        arm: that it belongs to.
        seed: of the trial.
        files: the folder of its files.
    """

    run: str
    arm: str
    seed: int
    files: Path


def freeze(report: Path, runs: Iterator[FrozenRun], scores: Scores, folder: Path) -> int:
    """Write a report and the runs that it is made of into a new folder, and return the number of runs.

    Links to MLflow become links to pages in the folder.

    Args:
        report: the folder of the report.
        runs: one after another; the files of one need not outlive it.
        scores: the rows of the study's scores.
        folder: that is made.
    """
    from jinja2 import Environment, PackageLoader

    shutil.copytree(report, folder)
    template = Environment(loader=PackageLoader("harness.report", "."), autoescape=True).get_template("run.html")
    (folder / RUNS).mkdir()
    count = 0
    for run in runs:
        count += 1
        kept = folder / RUNS / run.run
        shutil.copytree(run.files, kept, ignore=shutil.ignore_patterns(*LEFT_OUT))
        page = template.render(run=run, **_shown(kept, scores))
        (folder / RUNS / f"{run.run}.html").write_text(page, encoding="utf-8")
    page = (folder / "report.html").read_text(encoding="utf-8")
    page = re.sub(r'(class="run" href=")[^"]*/([0-9a-f]+)"', rf'\g<1>{RUNS}/\g<2>.html"', page)
    (folder / "report.html").unlink()
    (folder / PAGE).write_text(page, encoding="utf-8")
    return count


def _shown(kept: Path, scores: Scores) -> dict[str, Any]:
    """Return what the page of a run shows, by variable of its template, from the run's files."""
    manifest = json.loads((kept / evidence.FILE).read_text(encoding="utf-8"))
    metrics = manifest["results"]["metrics"]
    groups = dict.fromkeys(row.group for row in scores.values())
    tables = {g: [(row.label, _text(metrics[row.key])) for row in in_groups(scores, g) if row.key in metrics] for g in groups}
    return {
        "tables": {group: rows for group, rows in tables.items() if rows},
        "spec": flattened(manifest["spec"]["resolved"]),
        "origin": _origin(manifest),
        "pictures": {path.relative_to(kept).as_posix(): path.stem.replace("_", " ") for path in sorted(kept.glob("figures/*.png"))},
        "curves": _curves(kept),
        "files": sorted(p.relative_to(kept).as_posix() for p in kept.rglob("*") if p.is_file() and p.suffix != ".png"),
    }


def _text(value: Any) -> str:
    """Return a score as the manifest has it: six digits, or what stands there for a number that is not finite."""
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def _origin(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how the run came about, by name."""
    environment, hardware = manifest["environment"], manifest["hardware"]
    return {
        "command": manifest["code"]["command"],
        "code": manifest["code"]["commit"],
        "processor": hardware["gpu"] if isinstance(hardware["gpu"], str) else hardware["cpu"],
        "torch": environment["torch"],
        "Python": environment["python"],
        "data digest": manifest["data"]["digest"],
        "seconds": manifest["time"]["seconds"],
        "plan": manifest["plan"]["sha256"],
    }


def _curves(kept: Path) -> str:
    """Return the run's training over epochs as an SVG element; empty for a run that keeps no history."""
    file = kept / "history.json"
    if not file.is_file():
        return ""
    from harness.figures.training import training_curves

    series: Mapping[str, Mapping[str, float]] = json.loads(file.read_text(encoding="utf-8"))
    epochs = sorted({int(epoch) for values in series.values() for epoch in values})
    history = [{key: values[str(epoch)] for key, values in series.items() if str(epoch) in values} for epoch in epochs]
    drawn = kept / "curves.svg"
    save_svg(training_curves(history), drawn)
    return inline(drawn, "ELBO, reconstruction and KL over epochs")
