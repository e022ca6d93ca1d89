"""A finished study as verdicts, tables and figures: in the terminal, as CSV and PNG, and as one self-contained HTML page.

In come the results on record, out come words and pictures for people. `ablation/` compares arms, `search/` presents the trials of a
search. Nothing is trained or scored here.
"""

from harness.report.ablation.results import AblationResults
from harness.report.note import note
from harness.report.page import folder, is_current, load_publisher, publish
from harness.report.plan import plan_on_record, show_plan
from harness.report.search.results import SearchResults
from harness.report.terminal import show

__all__ = [
    "AblationResults",
    "SearchResults",
    "folder",
    "is_current",
    "load_publisher",
    "note",
    "plan_on_record",
    "publish",
    "show",
    "show_plan",
]
