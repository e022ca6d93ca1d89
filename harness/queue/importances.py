"""The importance of each parameter of a search."""

import warnings

import optuna
from optuna.trial import TrialState

FEWEST = 10  # complete trials; with fewer, any parameter may seem to matter
TOP, SHARE = 5, 0.1  # PED-ANOVA compares the best tenth of the trials with all, and needs at least 5 trials in it


def importances(study: optuna.Study) -> dict[str, float]:
    """Return the importance of each parameter as shares that add up to 1, largest first.

    The result is empty if fewer than `FEWEST` trials are complete, or if none of them is better than the others. Computed by
    PED-ANOVA (Watanabe et al., 2023, https://arxiv.org/abs/2304.10255), and for parameters that only some trials have by its
    conditional form (https://arxiv.org/abs/2601.20800). With several objectives the best trials are those near the Pareto front.
    Constraints are ignored.
    """
    complete = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    if complete < FEWEST:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # with scikit-learn, half a second

    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(SHARE, TOP / complete))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about parameters that hardly any trial has: their share comes out small
        raw = get_param_importances(study, evaluator=evaluator, normalize=False)
    total = sum(raw.values())
    return {name: x / total for name, x in sorted(raw.items(), key=lambda item: (-item[1], item[0]))} if total > 0 else {}
