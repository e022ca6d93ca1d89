"""What a study has stated before it knew its results: plans that are only ever added to, the standing of claims, looks at results.

In come an ablation, and the notes of its trial store; out come the chain of plans and looks, and for each claim whether it was
registered, amended or withdrawn. Verdicts are given in report; nothing here knows a score's value.
"""

from harness.plans.claims import PlannedClaim, Standing, claims_of
from harness.plans.content import comparable_content, stated, training_id
from harness.plans.record import PLAN_FILE, PLAN_TAG, Entry, PlanRecord, Shelf, add, from_text, read

__all__ = [
    "PLAN_FILE",
    "PLAN_TAG",
    "Entry",
    "PlanRecord",
    "PlannedClaim",
    "Shelf",
    "Standing",
    "add",
    "claims_of",
    "comparable_content",
    "from_text",
    "read",
    "stated",
    "training_id",
]
