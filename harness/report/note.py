"""The text above a study in MLflow: what is asked, what came out, and how to read the page."""

from collections import Counter
from collections.abc import Mapping

from harness.report.ablation.results import AblationResults
from harness.study import Study

READING = "A dot or a line is one seed, a colour is an arm; dots that overlap are arms that the seeds do not tell apart."


def note(
    question: str,
    budget: str,
    study: Study,
    results: AblationResults | None = None,
    pages: Mapping[str, str] | None = None,
) -> str:
    """Return the text above the experiment of a study in MLflow, in Markdown, with the verdicts if there are results.

    Its first line says all in one, since MLflow shows no more until the text is opened.

    Args:
        question: that the study asks.
        budget: its name.
        study: the study.
        results: what is on record of its arms.
        pages: the paths of its pages in MLflow's UI, by what they show.
    """
    judged = results.judgements if results and results.arms else []
    lines = [f"- **{j.mark}**: {j.line}" for j in judged]
    faults = [f"- **plan**: {fault}" for fault in results.plan.faults] if results else []
    links = " · ".join(f"[{words}]({path.removeprefix('/')})" for words, path in (pages or {}).items())
    reading = f"**How to read it**: {READING}" + f" Pages: {links}." * bool(links)
    verdicts = "\n".join([*lines, *faults])
    return (
        f"**{question}** {_in_short([j.mark for j in judged])}".strip()
        + f"\n\n{verdicts}" * bool(verdicts)
        + (f"\n\n{reading}\n\n{study.note(budget)}")
    )


def _in_short(marks: list[str]) -> str:
    """Return how many claims have which verdict, in words; empty without claims.

    >>> _in_short(["yes", "open", "yes"])
    'Of 3 claims: 2 yes, 1 open.'
    """
    counted = ", ".join(f"{n} {mark}" for mark, n in Counter(marks).items())
    return f"Of {len(marks)} claim{'s' * (len(marks) != 1)}: {counted}." if marks else ""
