"""Findings about finished runs, in words: what is wrong with their numbers and what to do about it.

In come a study's plan and its runs on record; out come findings, those that make numbers mean something else first. Nothing is
written. To add one that a score alone tells, add a row to `rules.py`; one that takes several runs is a function in `findings.py`.
"""

from harness.doctor.examination import examinations, examine, show
from harness.doctor.findings import diagnose
from harness.doctor.rules import Finding

__all__ = ["Finding", "diagnose", "examinations", "examine", "show"]
