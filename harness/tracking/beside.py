"""What is on record of a study beside the budget that was asked for, so that whoever asked finds it."""

from harness import paths
from harness.tracking.overview import runs_on_record


def beside(study: str, budget: str, spelt: str = "") -> str:
    """Return a line, with a line break before it, on the other budgets of a study that have finished trials; empty if none has.

    Args:
        study: The name of the study on record.
        budget: The budget that was asked for, of which nothing is on record.
        spelt: How a budget is asked for, with `{}` where its name goes; empty for an option of the command line.
    """
    finished = [r for r in runs_on_record() if r.tags.get("study") == study and r.status == "FINISHED"]
    others = list(dict.fromkeys(r.tags["budget"] for r in finished if r.tags.get("budget", budget) != budget))
    if not others:
        return ""
    newest = others[-1]  # the budget that was begun last
    return f"\non record: {', '.join(others)} ({spelt.format(newest) if spelt else paths.option('budget', newest)})"
