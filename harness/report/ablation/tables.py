"""The tables of an ablation's report: its results as text."""

from collections.abc import Sequence

import numpy as np

from harness.report.ablation.results import AblationResults
from harness.scores import COST, NATIVE, TRUST, Score, compared, in_groups
from harness.scores.rows import ELBO_MC_ERROR, EXACT_RESOLVED
from harness.scores.soundness import LARGEST
from harness.stats import Paired, summary
from harness.study.scores import lacking

NARROW_COLUMNS, WIDE_COLUMNS, WIDE_TERMINAL = 4, 7, 140  # columns of scores in a narrow and in a wide terminal; its characters
LARGE = 1e9
NOT_RESOLVED = "was not resolved within the quadrature's budget"


def number(value: float, digits: int) -> str:
    """Return a number as text; a dash if it is none, and a power of ten if it is so large that its decimals say nothing."""
    return "-" if not abs(value) <= LARGEST else f"{value:.{digits}f}" if abs(value) < LARGE else f"{value:.2e}"


def spread(values: Sequence[float], digits: int) -> str:
    """Return mean and standard deviation over seeds as text."""
    over_seeds = summary(values)
    return number(over_seeds.mean, digits) + (f" ± {number(over_seeds.spread, digits)}" if over_seeds.n > 1 else "")


def interval(difference: Paired, digits: int) -> str:
    """Return a paired difference with its interval as text."""
    bounds = f" [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]" if np.isfinite(difference.low) else ""
    return f"{difference.mean:+.{digits}f}{bounds}"


def score_rows(results: AblationResults, scores: Sequence[Score]) -> list[list[str]]:
    """Return a row per arm: its name, its number of seeds, and these scores; a dash for a score that it does not have."""
    return [[marked(results, arm), str(len(results.seeds(arm))), *(cell(results, arm, s) for s in scores)] for arm in results.arms]


def marked(results: AblationResults, arm: str) -> str:
    """Return an arm's name, marked if the training of some of its seeds diverged."""
    bad = len(results.diverged(arm))
    return f"{arm} ({bad} diverged)" if bad else arm


def divergences(results: AblationResults) -> list[str]:
    """Return for each arm with seeds whose training diverged a sentence on how that shows."""
    sentences = []
    for arm in results.arms:
        bad = results.diverged(arm)
        if bad:
            seed, words = next(iter(bad.items()))
            sentences.append(
                f"{arm}: {len(bad)} of {len(results.seeds(arm))} seeds diverged, no score of theirs is one; seed {seed}: {words}"
            )
    return sentences


def cell(results: AblationResults, arm: str, score: Score) -> str:
    """Return a score of an arm, mean and standard deviation over its seeds; a dash if a trial has none."""
    return spread(results.by_seed(arm, score.key), score.digits) if results.has(arm, score.key) else "-"


def comparing(results: AblationResults) -> dict[str, list[Score]]:
    """Return the scores that compare any arms, as far as a trial has them, by the title of their table."""
    sections = {title: results.present(scores) for title, scores in compared(results.scores).items()}
    return {title: scores for title, scores in sections.items() if scores}


def varying(results: AblationResults, scores: Sequence[Score]) -> list[Score]:
    """Return those scores that exist and differ between trials, because a column of zeros says nothing.

    If none differs, as after a single trial, it is all that exist: a table without a score says less.
    """
    return [s for s in scores if s.key in results.table and results.table[s.key].nunique() > 1] or results.present(scores)


def telling(results: AblationResults) -> list[Score]:
    """Return the scores to show where there is room for few: named by hypotheses, the study's own, then the most telling ones."""
    rows = [score for scores in compared(results.scores).values() for score in scores]
    named = [score for h in results.study.hypotheses for score in rows if score.key == h.metric]
    own = [score for score in rows if score.compute is not None and score.headline]
    headlines = [score for score in results.scores.values() if score in rows and score.headline]
    return list({score.key: score for score in (*named, *own, *headlines)}.values())


def to_show(results: AblationResults, width: int) -> list[Score]:
    """Return the scores that a terminal of this width holds."""
    return varying(results, telling(results))[: WIDE_COLUMNS if width >= WIDE_TERMINAL else NARROW_COLUMNS]


def left_out(results: AblationResults, scores: Sequence[Score]) -> list[str]:
    """Return for each of these scores that some arm lacks a sentence on which arms and why."""
    specs = {c.arm: c.spec for c in results.cells}
    sentences = []

    def why(score: Score, arm: str) -> str:
        unresolved = (
            "exact" in score.needs and results.has(arm, EXACT_RESOLVED.key) and min(results.by_seed(arm, EXACT_RESOLVED.key)) < 1
        )
        return lacking(score, specs[arm]) or (NOT_RESOLVED if unresolved else "")

    for score in scores:
        arms = [arm for arm in results.arms if not results.has(arm, score.key)]
        for reason in dict.fromkeys(why(score, arm) for arm in arms):
            of = [arm for arm in arms if why(score, arm) == reason]
            if reason and not (score.asked_for and of == results.arms):
                sentences.append(f"{score.label} {reason}: none for {'any arm' if of == results.arms else ', '.join(of)}.")
    return sentences


def difference_rows(results: AblationResults, scores: Sequence[Score]) -> list[list[str]]:
    """Return a row for each arm but the first: its paired differences to the first."""
    first = results.arms[0]
    return [
        [
            f"{arm} - {first}",
            *(
                interval(results.difference(arm, first, s.key), s.digits)
                if results.has(arm, s.key) and results.has(first, s.key)
                else "-"
                for s in scores
            ),
        ]
        for arm in results.arms[1:]
    ]


def table_of(results: AblationResults, scores: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of a group of scores."""
    return ["arm", "n", *(s.heading for s in scores)], score_rows(results, scores)


def difference_of(results: AblationResults, scores: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the paired differences of a group of scores."""
    return ["difference", *(s.heading for s in scores)], difference_rows(results, scores)


def _native(results: AblationResults) -> list[Score]:
    """Return the scores of the native table: those that are shown by default, and those that some arm asked for and has."""
    asked = [
        s for s in results.scores.values() if s.group == NATIVE and s.asked_for and any(results.has(a, s.key) for a in results.arms)
    ]
    return [*in_groups(results.scores, NATIVE), *asked, *in_groups(results.scores, TRUST)]


def native_headings(results: AblationResults) -> list[str]:
    """Return the headings of `native_rows`."""
    rows = _native(results)
    return ["arm", *(f"{s.heading}, largest" if s == ELBO_MC_ERROR else s.heading for s in rows)]


def native_rows(results: AblationResults) -> list[tuple[str, list[list[str]]]]:
    """Return for each scale the rows of its arms: their bounds, and what shows how far to trust them.

    The Monte Carlo error is the largest over seeds, the other values are means.
    """

    def text(arm: str, score: Score) -> str:
        worst = score == ELBO_MC_ERROR and results.has(arm, score.key)
        return number(max(results.by_seed(arm, score.key)), score.digits) if worst else cell(results, arm, score)

    rows = _native(results)
    return [(scale, [[arm, *(text(arm, score) for score in rows)] for arm in arms]) for scale, arms in results.scales.items()]


def own_rows(results: AblationResults, scores: Sequence[Score]) -> list[list[str]]:
    """Return a row per arm for tier B: its scores if its likelihood is a pmf of grey levels, else the reason why it has none."""
    specs = {c.arm: c.spec for c in results.cells}
    return [
        [
            arm,
            *(
                cell(results, arm, s) if results.has(arm, s.key) or specs[arm].has_grey_pmf else f"none: a {specs[arm].scale}"
                for s in scores
            ),
        ]
        for arm in results.arms
    ]


def cost_rows(results: AblationResults) -> list[list[str]]:
    """Return a row per arm: what a trial costs."""
    return [[arm, *(cell(results, arm, score) for score in in_groups(results.scores, COST))] for arm in results.arms]
