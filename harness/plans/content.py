"""What a plan states of a study: arms, seeds, looks, claims and rule, as JSON values."""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from harness import provenance
from harness.spec import TrialSpec
from harness.stats import RULE
from harness.study import Ablation

MADE_WITH = ("code", "data")  # recorded with a plan; a plan that differs in these alone is not another plan


def arm_id(spec: TrialSpec) -> str:
    """Return what is equal for all seeds of an arm, whatever the arm is called: the id of its spec at seed 0."""
    return spec.derive(seed=0).id


def training_id(spec: TrialSpec) -> str:
    """Return what is equal for all that tell of the same training: an arm's id without its evaluation and versions of own code.

    Scores of one are known from another, though their trials differ.
    """
    evaluation = spec.derive(seed=0, evaluation=TrialSpec().evaluation)
    content = re.sub(r"@[0-9a-f]{12}", "", json.dumps(evaluation.identity, sort_keys=True))
    return sha256(content.encode()).hexdigest()[:12]


def stated(study: Ablation, *, name: str, budget: str, question: str, data: Mapping[str, str]) -> dict[str, Any]:
    """Return the plan of a study as JSON values.

    Args:
        study: the ablation.
        name: of the study.
        budget: by name.
        question: that the study asks.
        data: the digest of each data set, by name; empty where it is not at hand.
    """
    arms: dict[str, dict[str, Any]] = {}
    for cell in study.cells(budget):
        arm = arms.setdefault(cell.arm, {"id": arm_id(cell.spec), "training": training_id(cell.spec), "trials": {}})
        arm["trials"][str(cell.seed)] = cell.spec.id
    chosen = study.budgets[budget]
    content = {
        "study": name,
        "budget": budget,
        "question": question,
        "arms": arms,
        "seeds": list(chosen.seeds),
        "looks": list(chosen.planned_looks),
        "epochs": chosen.epochs,
        "evaluation": chosen.evaluation,
        "objective": study.objective,
        "hypotheses": [
            {
                "better": h.better,
                "worse": h.worse,
                "metric": h.metric,
                "direction": study.scores[h.metric].better,
                "margin": h.margin,
                "words": h.in_words(study.scores),
                "digits": study.scores[h.metric].digits,
            }
            for h in study.hypotheses
        ],
        "rule": RULE,
        "data": dict(data),
        "code": {"harness": provenance.digest(), "version": provenance.code()},
    }
    as_json: dict[str, Any] = json.loads(json.dumps(content))
    return as_json


def comparable_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a plan by which two are the same: all but the code and the data that it was made with."""
    return {name: value for name, value in content.items() if name not in MADE_WITH}
