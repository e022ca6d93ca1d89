"""Write the tables of docs/metrics.md anew from the rows of all scores.

    python tests/helpers/metrics_page.py

The column "what it is" is written by hand and kept: the page is the only place where it stands. All else in the tables is
what `harness/scores/rows.py` says.
"""

import re

from harness import paths
from harness.scores import NEEDS, SCORES, Score

PAGE = paths.PROJECT / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<key>[^`]+)` \|.*\| (?P<about>[^|]*) \|[^|]*\|$", re.M)
SECTION = re.compile(r"(?<=<!-- scores -->\n).*(?=<!-- /scores -->)", re.S)
BETTER = {"lower": "lower ↓", "higher": "higher ↑", "": "-"}


def unit(row: Score) -> tuple[str, str]:
    """Return the label of a score without its unit, and the unit, which is a dash if it has none.

    >>> unit(SCORES["test/elbo"]), unit(SCORES["test/ssim"]), unit(SCORES["perf/step_ms_p50"])
    (('ELBO', 'nats'), ('SSIM', '-'), ('step, median', 'ms'))
    """
    label, _, rest = row.label.partition(" (")
    inside, _, after = rest.partition(")")
    of, _, statistic = inside.partition(", ")
    return label + after + (f", {statistic}" if statistic else ""), of or "-"


def line(row: Score, about: str) -> str:
    """Return a row of the page."""
    label, of = unit(row)
    needs = "; ".join(NEEDS[need] for need in row.needs) or "-"
    cells = (f"`{row.key}`", label, of, BETTER[row.better], row.tier, about, needs)
    return f"| {' | '.join(cells)} |\n"


def tables(page: str) -> str:
    """Return all tables, a section each, with what the page says of each score; "" of one that it has not."""
    about = {row["key"]: row["about"] for row in ROW.finditer(page)}
    text = ""
    for group in dict.fromkeys(row.group for row in SCORES.values()):
        text += f"\n## {group}\n\n| key | score | unit | better | tier | what it is | takes |\n|---|---|---|---|---|---|---|\n"
        text += "".join(line(row, about.get(row.key, "")) for row in SCORES.values() if row.group == group)
    return f"{text}\n"


def written(page: str) -> str:
    """Return the page with its tables written anew."""
    return SECTION.sub(lambda _: tables(page), page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
