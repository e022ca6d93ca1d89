"""The tables of a report: numbers of a study's findings as text to read."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.report.ablation.results import AblationResults
from harness.stats import Paired, Verdict, bootstrap_interval, summary
from harness.study import SCORES

YARDSTICKS = ("test/common_bits", "test/common_bits_iw", "test/common_bits_exact", "test/squared_error", "test/psnr", "test/ssim")
SAMPLES = ("test/frechet", "test/precision", "test/recall")
CODES = (
    "test/knn15_accuracy",
    "test/probe_accuracy",
    "test/kl",
    "test/mutual_information",
    "test/marginal_kl",
    "test/active_units",
    "validation/dead_units",
)
FAIR = YARDSTICKS + SAMPLES + CODES
GROUPS = {"Images: one scale for every arm": YARDSTICKS, "Samples": SAMPLES, "Codes and hidden units": CODES}
PLOTTED = ("test/common_bits", "test/squared_error", "test/ssim", "test/frechet", "test/knn15_accuracy", "validation/dead_units")
OWN = ("test/own_bits", "test/own_bits_iw")
MEDIUM = (
    "test/common_bits",
    "test/squared_error",
    "test/knn15_accuracy",
    "test/kl",
    "test/ssim",
    "test/frechet",
    "validation/dead_units",
)
BRIEF, WIDE = 4, 140  # columns of scores that a narrow terminal holds, and from where on it is wide
NATIVE = ("test/elbo", "test/recon", "test/iw_100", "test/exact_log_px", "test/inference_gap")
NATIVE_HEADINGS = ("arm", "ELBO ↑", "reconstruction", "IW-100 ↑", "exact log p(x) ↑", "inference gap ↓")
NOTES = {  # what stands beside the native scores, with decimals and how seeds are put together
    "test/elbo_mc_error": ("Monte Carlo error of the ELBO (largest)", 3),
    "test/iw_effective_samples": ("effective samples of IW", 1),
    "test/noise_scale": ("own pixel noise", 4),
    "diagnostics/effective_beta": ("effective beta", 2),
}
COST = {
    "perf/step_ms_p50": ("step (ms, median)", 2),
    "perf/images_per_s": ("images/s", 0),
    "perf/train_s": ("training (s)", 1),
}
NOT_JUDGED = "no verdict, no seed has the score in both arms"
MARKS = {"confirmed": ("yes", "green"), "refuted": ("no", "red"), "not shown": ("open", "yellow")}


def number(value: float, digits: int) -> str:
    """A number to read; a dash where there is none."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation over seeds."""
    s = summary(values)
    return number(s.mean, digits) + (f" ± {number(s.spread, digits)}" if s.n > 1 else "")


def interval(d: Paired, digits: int) -> str:
    """A paired difference with its interval."""
    bounds = f" [{d.low:+.{digits}f}, {d.high:+.{digits}f}]" if np.isfinite(d.low) else ""
    return f"{d.mean:+.{digits}f}{bounds}"


def heading(metric: str) -> str:
    """A score's label with the way that is better."""
    s = SCORES[metric]
    return s.label + {"lower": " ↓", "higher": " ↑", "": ""}[s.better]


def score_rows(f: AblationResults, metrics: Sequence[str]) -> list[list[str]]:
    """Per arm: its name, number of seeds, and these scores; a dash where it has none."""
    return [[arm, str(len(f.by_seed(arm, "test/kl"))), *(cell(f, arm, m, SCORES[m].digits) for m in metrics)] for arm in f.arms]


def cell(f: AblationResults, arm: str, metric: str, digits: int) -> str:
    """A score of an arm, mean and standard deviation over its seeds; a dash where a trial has none."""
    return spread(f.by_seed(arm, metric), digits) if f.has(arm, metric) else "-"


def varying(f: AblationResults, metrics: Sequence[str] = FAIR) -> list[str]:
    """The scores that are there and differ between trials: a column of zeros says nothing."""
    return [m for m in metrics if m in f.table and f.table[m].nunique() > 1]


def to_show(f: AblationResults, width: int) -> list[str]:
    """The scores that a terminal of this width holds: first those that a hypothesis names and that compare any arms."""
    named = [h.metric for h in f.study.hypotheses if h.metric in FAIR]
    return varying(f, list(dict.fromkeys([*named, *MEDIUM])))[: len(MEDIUM) if width >= WIDE else BRIEF]


def difference_rows(f: AblationResults, metrics: Sequence[str]) -> list[list[str]]:
    """Per arm but the first: paired differences to the first."""
    first = f.arms[0]
    return [
        [
            f"{arm} - {first}",
            *(
                interval(f.difference(arm, first, m), SCORES[m].digits) if f.has(arm, m) and f.has(first, m) else "-"
                for m in metrics
            ),
        ]
        for arm in f.arms[1:]
    ]


def table_of(f: AblationResults, metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a group of scores, those that no trial has left out."""
    there = [m for m in metrics if m in f.table]
    return ["arm", "n", *(heading(m) for m in there)], score_rows(f, there)


def difference_of(f: AblationResults, metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The same of paired differences."""
    return ["difference", *(heading(m) for m in metrics)], difference_rows(f, metrics)


def native_rows(f: AblationResults) -> list[tuple[str, list[list[str]]]]:
    """Per scale: its arms with their bounds, and what tells how far to trust them."""
    return [
        (
            scale,
            [
                [
                    arm,
                    *(cell(f, arm, m, SCORES[m].digits) for m in NATIVE),
                    number(max(f.by_seed(arm, "test/elbo_mc_error")), 3),
                    *(cell(f, arm, m, digits) for m, (_, digits) in list(NOTES.items())[1:]),
                ]
                for arm in arms
            ],
        )
        for scale, arms in f.scales.items()
    ]


def own_rows(f: AblationResults) -> list[list[str]]:
    """Tier B, per arm whose likelihood is a pmf of grey levels; the others with the reason."""
    specs = {c.arm: c.spec for c in f.cells}
    why = {"bce": "none: a pseudo-likelihood", "bernoulli": "none: a pmf on {0,1}"}
    return [
        [arm, *(why.get(specs[arm].likelihood, "-") if not f.has(arm, m) else cell(f, arm, m, SCORES[m].digits) for m in OWN)]
        for arm in f.arms
    ]


def cost_rows(f: AblationResults) -> list[list[str]]:
    """Per arm: what a trial costs."""
    return [[arm, *(spread(f.by_seed(arm, m), digits) for m, (_, digits) in COST.items())] for arm in f.arms]


def verdict_words(f: AblationResults) -> list[tuple[str, str, Verdict, str]]:
    """Per hypothesis: yes/no/open, its colour, the verdict, and by how much better or worse, with the interval."""
    digits = [SCORES[h.metric].digits for h in f.judged]
    return [(*MARKS[v.outcome], v, margin(v.difference, d)) for v, d in zip(f.verdicts, digits, strict=True)]


def margin(d: Paired, digits: int) -> str:
    """By how much the arm that should be better is, in words; a negative bound is on the other side."""
    if d.mean < 0:
        return f"worse by {interval(replace(d, mean=-d.mean, low=-d.high, high=-d.low), digits)}"
    return f"better by {interval(d, digits)}"


def odds(v: Verdict) -> str:
    """The probability of improvement, in words."""
    return f", better in {v.difference.improvement:.0%} of all pairs of seeds"


def bootstraps(f: AblationResults) -> list[str]:
    """Per hypothesis: the bootstrap interval beside Student's."""
    said = []
    for h, (better, worse) in zip(f.judged, f.claimed, strict=True):
        sign = 1 if SCORES[h.metric].better == "higher" else -1
        low, high = sorted(sign * x for x in bootstrap_interval(better, worse))
        said.append(f"[{low:+.{SCORES[h.metric].digits}f}, {high:+.{SCORES[h.metric].digits}f}]" if np.isfinite(low) else "-")
    return said
