"""How much each parameter of a search matters."""

import warnings

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

FEWEST = 10  # complete trials, below which any parameter may seem to matter
TOP, SHARE = 5, 0.1  # PED-ANOVA asks what sets the best tenth apart from all, and wants at least 5 trials in it


def importances(study: optuna.Study) -> dict[str, float]:
    """Shares that add up to 1, largest first; empty where too few trials are complete, or none of them better than the others.

    PED-ANOVA (Watanabe et al., 2023, https://arxiv.org/abs/2304.10255), and for parameters that only some trials have its
    conditional form (https://arxiv.org/abs/2601.20800). Of several objectives the best trials are those near the front.
    Constraints are not looked at.
    """
    complete = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    if complete < FEWEST:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(SHARE, TOP / complete))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that hardly any trial has: their share comes out small
        raw = get_param_importances(study, evaluator=evaluator, normalize=False)
    total = sum(raw.values())
    return {name: x / total for name, x in sorted(raw.items(), key=lambda item: (-item[1], item[0]))} if total > 0 else {}
