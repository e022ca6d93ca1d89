"""Which scores may rank which trials. Torch is not imported here."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from harness import paths, references
from harness.errors import WIDEST, UserError, nearest, shown
from harness.scores import EXACT_LATENTS, NEEDS, SCORES, Score, Scores, compared
from harness.scores.rows import OWN_BITS
from harness.spec import MEETS, Counts, TrialSpec, unmet

NEAR = 5  # scores that a message names if there is none of a name


def take_metrics(study: Any) -> None:
    """Give the trials of a study that is being made the scores of its own, and keep these with the digests of their code.

    Raises:
        UserError: a reference that cannot be found, or that is of no score.
    """
    if isinstance(study.metrics, tuple | list) and study.metrics:  # of any other kind they are refused beside this
        base = study.base.derive(metrics=study.metrics)
        rows_with(base.metrics)
        object.__setattr__(study, "base", base)
        object.__setattr__(study, "metrics", base.metrics)


@cache
def rows_with(metrics: tuple[str, ...]) -> Scores:
    """Return the rows of all scores by key: the package's, and those of these references.

    Raises:
        UserError: a reference that is of no score, of one that nothing computes, or of a key that is taken.
    """
    rows = dict(SCORES)
    for reference in metrics:
        row, name = references.resolve(reference), references.label(reference)
        if not isinstance(row, Score) or row.compute is None:
            form = "Score(key='test/...', label='...', compute=function)"
            raise UserError(f"{name} must be a harness.Score with the function that measures it: {form}; got {shown(row)}")
        if row.key in rows:
            raise UserError(f"{name}: there is a score {row.key!r} already\ngive it a key of its own")
        rows[row.key] = row
    return rows


def row_named(scores: Scores, key: str) -> Score:
    """Return the row of a score.

    Raises:
        UserError: there is none; the message has the nearest few, for there are dozens, and says where to see all.
    """
    if key in scores:
        return scores[key]
    likest = get_close_matches(key[:WIDEST], list(scores), n=NEAR, cutoff=0)
    everything = f"{paths.command('list')} {paths.flag('scores')}"
    raise UserError(
        f"unknown score {shown(key)}{nearest(key, scores)}\nknown: {', '.join(likest)}, ...; all {len(scores)}: {everything}"
    )


def lacking(score: Score, spec: TrialSpec) -> str:
    """Return in words why a trial without a score has none: the needs that it does not meet, or may not meet.

    >>> from harness.scores import SCORES
    >>> lacking(SCORES["test/exact_log_px"], TrialSpec(latent=3)), lacking(SCORES["test/kl"], TrialSpec())
    ('takes at most 2 latents', '')
    """
    return _takes([need for need in score.needs if need not in MEETS or not MEETS[need](spec)])


def impossible(score: Score, spec: TrialSpec) -> str:
    """Return in words why no trial of this spec can have a score, whatever its data are: the needs that the spec does not meet.

    >>> from harness.scores import SCORES
    >>> impossible(SCORES["test/exact_log_px"], TrialSpec(latent=3)), impossible(SCORES["test/frechet"], TrialSpec())
    ('takes at most 2 latents', '')
    """
    return _takes([need for need in score.needs if need in MEETS and not MEETS[need](spec)])


def left_out(scores: Scores, counts: Counts) -> list[str]:
    """Return a line for each reason why a data set gives some scores to no trial, with the scores and what they take.

    >>> from harness.scores import SCORES
    >>> left_out({"test/frechet": SCORES["test/frechet"]}, Counts(train=100, test=20, classes=0))
    ['left out: Fréchet distance, which takes at least 128 training and 65 test images (got 100 and 20)']
    """
    labels: dict[str, list[str]] = {}
    for score in scores.values():
        reason = " and ".join(unmet(score.needs, counts))
        if reason:
            labels.setdefault(reason, []).append(score.label)
    return [f"left out: {', '.join(of)}, which take{'s' * (len(of) == 1)} {reason}" for reason, of in labels.items()]


def check_data(study: Any, budget: str, counts: Counts) -> None:
    """Raise an error if a study ranks or claims by a score that no trial on its data set can have.

    Raises:
        UserError: it does; the message names what ranks, and what the score takes.
    """
    judged = study.judged(budget, {})
    ranking = {f"objective {judged.objective!r}": judged.objective} if judged.objective is not None else {}
    ranking |= {f"objective {key!r}": key for key in (study.search.objectives if study.search else ())}
    ranking |= {f"hypothesis '{h.in_words(judged.scores)}'": h.metric for h in judged.hypotheses}
    reasons = {words: unmet(study.scores[key].needs, counts) for words, key in ranking.items()}
    faults = [f"{words}: {ranking[words]!r} takes {' and '.join(of)}" for words, of in reasons.items() if of]
    if faults:
        raise UserError("\n".join([*faults, f"name another score, or other images than those of {study.base.dataset!r}"]))


def _takes(needs: Sequence[str]) -> str:
    """Return in words what is needed; empty if nothing is."""
    return f"takes {' and '.join(NEEDS[need] for need in needs)}" if needs else ""


def comparable(score: Score, specs: Mapping[str, TrialSpec], ranking: str, scores: Scores) -> None:
    """Raise an error if the tier of a score does not allow it to rank these specs.

    Args:
        score: what ranks.
        specs: by the name that the message should give each, such as its arm.
        ranking: what ranks them, in words, with which the message begins.
        scores: the study's, of which the message names those that would do.

    Raises:
        UserError: the specs are on different scales, have no pmf of grey levels or no average, or have too many latents for the
            score.
    """
    scales = {arm: str(spec.scale) for arm, spec in specs.items()}
    scales_in_words = ", ".join(f"{arm} is a {scale}" for arm, scale in scales.items())
    latents = max(spec.latent for spec in specs.values())
    rows = [row for section in compared(scores).values() for row in section]
    always_comparable = [
        row
        for row in rows
        if row.better
        and row.images == "test"
        and "average" not in row.needs
        and (latents <= EXACT_LATENTS or "exact" not in row.needs)
    ]
    alternatives = {tier: ", ".join(row.key for row in always_comparable if row.tier == tier) for tier in "CD"}
    if all(spec.has_grey_pmf for spec in specs.values()):
        alternatives = {"B": OWN_BITS.key} | alternatives
    advice = "\n".join(f"tier {tier} would do: {names}" for tier, names in alternatives.items())
    if score.tier == "A" and len(set(scales.values())) > 1:
        raise UserError(f"{ranking}: {score.key!r} (tier A) cannot rank across scales ({scales_in_words})\n{advice}")
    without_pmf = [arm for arm, spec in specs.items() if not spec.has_grey_pmf]
    if "grey_pmf" in score.needs and without_pmf:
        raise UserError(
            f"{ranking}: {score.key!r} (tier B) takes a pmf of grey levels, {' and '.join(without_pmf)} has none\n{advice}"
        )
    without_average = [arm for arm, spec in specs.items() if not MEETS["average"](spec)]
    if "average" in score.needs and without_average:
        raise UserError(f"{ranking}: {score.key!r} takes {NEEDS['average']}, {' and '.join(without_average)} has none\n{advice}")
    if "exact" in score.needs and latents > EXACT_LATENTS:
        raise UserError(f"{ranking}: {score.key!r} exists up to {EXACT_LATENTS} latents, got {latents}\n{advice}")
