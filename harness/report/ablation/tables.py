"""The tables of an ablation's report: its results as text."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.report.ablation.results import AblationResults
from harness.stats import Paired, Verdict, bootstrap_interval, summary
from harness.study import SCORES

IMAGE_SCORES = ("test/common_bits", "test/common_bits_iw", "test/common_bits_exact", "test/squared_error", "test/psnr", "test/ssim")
SAMPLE_SCORES = ("test/frechet", "test/precision", "test/recall")
ENCODING_SCORES = (
    "test/knn15_accuracy",
    "test/probe_accuracy",
    "test/kl",
    "test/mutual_information",
    "test/marginal_kl",
    "test/active_units",
    "validation/dead_units",
)
COMPARABLE = IMAGE_SCORES + SAMPLE_SCORES + ENCODING_SCORES
GROUPS = {"Images: one scale for every arm": IMAGE_SCORES, "Samples": SAMPLE_SCORES, "Codes and hidden units": ENCODING_SCORES}
PLOTTED = ("test/common_bits", "test/squared_error", "test/ssim", "test/frechet", "test/knn15_accuracy", "validation/dead_units")
OWN = ("test/own_bits", "test/own_bits_iw")
TERMINAL_SCORES = (
    "test/common_bits",
    "test/squared_error",
    "test/knn15_accuracy",
    "test/kl",
    "test/ssim",
    "test/frechet",
    "validation/dead_units",
)
NARROW_COLUMNS, WIDE_TERMINAL = 4, 140  # columns of scores in a narrow terminal; characters from which on a terminal is wide
NATIVE = ("test/elbo", "test/recon", "test/iw_100", "test/exact_log_px", "test/inference_gap")
NATIVE_HEADINGS = ("arm", "ELBO ↑", "reconstruction", "IW-100 ↑", "exact log p(x) ↑", "inference gap ↓")
NOTES = {  # columns beside the native scores, with decimals; the first is the largest over seeds, the others are means
    "test/elbo_mc_error": ("Monte Carlo error of the ELBO (largest)", 3),
    "test/iw_effective_samples": ("effective samples of IW", 1),
    "test/noise_scale": ("own pixel noise", 4),
    "diagnostics/effective_beta": ("effective beta", 2),
}
COST_COLUMNS = {  # with decimals
    "perf/step_ms_p50": ("step (ms, median)", 2),
    "perf/images_per_s": ("images/s", 0),
    "perf/train_s": ("training (s)", 1),
}
NOT_JUDGED = "no verdict, no seed has the score in both arms"
MARKS = {"confirmed": ("yes", "green"), "refuted": ("no", "red"), "not shown": ("open", "yellow")}


def number(value: float, digits: int) -> str:
    """Return a number as text; a dash if it is not finite."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def spread(values: Sequence[float], digits: int) -> str:
    """Return mean and standard deviation over seeds as text."""
    over_seeds = summary(values)
    return number(over_seeds.mean, digits) + (f" ± {number(over_seeds.spread, digits)}" if over_seeds.n > 1 else "")


def interval(difference: Paired, digits: int) -> str:
    """Return a paired difference with its interval as text."""
    bounds = f" [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]" if np.isfinite(difference.low) else ""
    return f"{difference.mean:+.{digits}f}{bounds}"


def heading(metric: str) -> str:
    """Return a score's label with an arrow for the direction that is better."""
    score = SCORES[metric]
    return score.label + {"lower": " ↓", "higher": " ↑", "": ""}[score.better]


def score_rows(results: AblationResults, metrics: Sequence[str]) -> list[list[str]]:
    """Return a row per arm: its name, its number of seeds, and these scores; a dash for a score that it does not have."""
    return [
        [arm, str(len(results.by_seed(arm, "test/kl"))), *(cell(results, arm, m, SCORES[m].digits) for m in metrics)]
        for arm in results.arms
    ]


def cell(results: AblationResults, arm: str, metric: str, digits: int) -> str:
    """Return a score of an arm, mean and standard deviation over its seeds; a dash if a trial has none."""
    return spread(results.by_seed(arm, metric), digits) if results.has(arm, metric) else "-"


def varying(results: AblationResults, metrics: Sequence[str] = COMPARABLE) -> list[str]:
    """Return those scores that exist and differ between trials, because a column of zeros says nothing."""
    return [m for m in metrics if m in results.table and results.table[m].nunique() > 1]


def to_show(results: AblationResults, width: int) -> list[str]:
    """Return the scores that a terminal of this width holds: first those that hypotheses name and that compare any arms."""
    named = [h.metric for h in results.study.hypotheses if h.metric in COMPARABLE]
    columns = len(TERMINAL_SCORES) if width >= WIDE_TERMINAL else NARROW_COLUMNS
    return varying(results, list(dict.fromkeys([*named, *TERMINAL_SCORES])))[:columns]


def difference_rows(results: AblationResults, metrics: Sequence[str]) -> list[list[str]]:
    """Return a row for each arm but the first: its paired differences to the first."""
    first = results.arms[0]
    return [
        [
            f"{arm} - {first}",
            *(
                interval(results.difference(arm, first, m), SCORES[m].digits)
                if results.has(arm, m) and results.has(first, m)
                else "-"
                for m in metrics
            ),
        ]
        for arm in results.arms[1:]
    ]


def table_of(results: AblationResults, metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of a group of scores, without scores that no trial has."""
    present = [m for m in metrics if m in results.table]
    return ["arm", "n", *(heading(m) for m in present)], score_rows(results, present)


def difference_of(results: AblationResults, metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the paired differences of a group of scores."""
    return ["difference", *(heading(m) for m in metrics)], difference_rows(results, metrics)


def native_rows(results: AblationResults) -> list[tuple[str, list[list[str]]]]:
    """Return for each scale the rows of its arms: their bounds, and what shows how far to trust them."""
    return [
        (
            scale,
            [
                [
                    arm,
                    *(cell(results, arm, m, SCORES[m].digits) for m in NATIVE),
                    number(max(results.by_seed(arm, "test/elbo_mc_error")), 3),
                    *(cell(results, arm, m, digits) for m, (_, digits) in list(NOTES.items())[1:]),
                ]
                for arm in arms
            ],
        )
        for scale, arms in results.scales.items()
    ]


def own_rows(results: AblationResults) -> list[list[str]]:
    """Return a row per arm for tier B: its scores if its likelihood is a pmf of grey levels, else the reason why it has none."""
    specs = {c.arm: c.spec for c in results.cells}
    reasons = {"bce": "none: a pseudo-likelihood", "bernoulli": "none: a pmf on {0,1}"}
    return [
        [
            arm,
            *(
                reasons.get(specs[arm].likelihood, "-") if not results.has(arm, m) else cell(results, arm, m, SCORES[m].digits)
                for m in OWN
            ),
        ]
        for arm in results.arms
    ]


def cost_rows(results: AblationResults) -> list[list[str]]:
    """Return a row per arm: what a trial costs."""
    return [[arm, *(spread(results.by_seed(arm, m), digits) for m, (_, digits) in COST_COLUMNS.items())] for arm in results.arms]


def verdict_words(results: AblationResults) -> list[tuple[str, str, Verdict, str]]:
    """Return for each hypothesis: yes, no or open; its colour; the verdict; and the margin with its interval."""
    digits = [SCORES[h.metric].digits for h in results.judged]
    return [(*MARKS[v.outcome], v, margin(v.difference, d)) for v, d in zip(results.verdicts, digits, strict=True)]


def margin(difference: Paired, digits: int) -> str:
    """Return in words by how much the arm that should be better is; a negative bound is on the other side."""
    if difference.mean < 0:
        mirrored = replace(difference, mean=-difference.mean, low=-difference.high, high=-difference.low)
        return f"worse by {interval(mirrored, digits)}"
    return f"better by {interval(difference, digits)}"


def odds(verdict: Verdict) -> str:
    """Return the probability of improvement in words."""
    return f", better in {verdict.difference.improvement:.0%} of all pairs of seeds"


def bootstraps(results: AblationResults) -> list[str]:
    """Return for each hypothesis the bootstrap interval, which is shown beside Student's."""
    intervals = []
    for hypothesis, (better, worse) in zip(results.judged, results.claimed, strict=True):
        score = SCORES[hypothesis.metric]
        sign = 1 if score.better == "higher" else -1
        low, high = sorted(sign * x for x in bootstrap_interval(better, worse))
        intervals.append(f"[{low:+.{score.digits}f}, {high:+.{score.digits}f}]" if np.isfinite(low) else "-")
    return intervals
