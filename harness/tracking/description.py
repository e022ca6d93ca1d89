"""The description of a trial's run in MLflow: its scores in few digits and its pictures, on the page that opens first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from harness.scores import COST, NATIVE, Scores, compared, in_groups

NOTE = "mlflow.note.content"  # the tag of a run or an experiment that MLflow shows as its description
SHOWN = ("reconstructions", "samples", "latents", "curves")  # figures, in this order


def figures_among(files: Path) -> list[str]:
    """Return the paths of a run's figures that its description shows, as artifacts, given the folder of its files."""
    paths = [f"figures/{name}.png" for name in SHOWN]
    return [path for path in paths if (files / path).is_file()]


def trial_note(run: str, scores: Scores, metrics: Mapping[str, float], figures: Sequence[str], finding: str = "") -> str:
    """Return the description of a trial's run, in Markdown.

    Args:
        run: its id.
        scores: the rows of the study's scores.
        metrics: its scores by key.
        figures: the paths of its figures among its files.
        finding: what is wrong with it, in words; empty if nothing is known to be.
    """
    shown = [s for s in in_groups(scores, *compared(scores), NATIVE, COST) if s.headline and s.key in metrics]
    rows = [f"| {s.heading} | {s.text(metrics[s.key])} | `{s.key}` |" for s in shown]
    table = "\n".join(["| score | value | metric |", "|---|---|---|", *rows]) if rows else ""
    compared_by = [s for s in shown if s.better and s.images == "test" and s.group != NATIVE]
    in_short = ", ".join(f"{s.heading} **{s.text(metrics[s.key])}**" for s in compared_by)
    pictures = " ".join(f"![{Path(f).stem}](get-artifact?path={quote(f, safe='')}&run_uuid={run})" for f in figures)
    return "\n\n".join(part for part in (f"**{finding}**" if finding else "", in_short, pictures, table) if part)
