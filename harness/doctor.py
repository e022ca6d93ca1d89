"""Findings about finished runs, in words: what is wrong with their numbers and what to do about it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from harness import paths, provenance
from harness.errors import UserError
from harness.scores import Score, diverged, rows
from harness.spec import TrialSpec, unfinished
from harness.stats import detectable
from harness.study import Ablation, Cell, LoadedStudy, load, names, questions
from harness.tracking import Record, judged_on_record, on_record

LARGE_EFFECT = 3.0  # standard deviations of paired differences: a study that misses those can hardly see anything
MORE_SEEDS = (
    "take a larger budget, or state a study with more seeds under a name of its own before it runs: seeds added to this one are "
    "now looks that nobody planned, which take more of them (harness plan says how many), and a deleted hypothesis still counts"
)
OFF_BETA = 1.5  # factor by which an effective beta may differ from 1
LONGEST_REASON = 160  # characters of a failure's reason that are shown
STYLES = {"wrong": "bold red", "careful": "bold yellow"}
Severity = Literal["wrong", "careful"]


@dataclass(frozen=True)
class Finding:
    """Something that is the matter with an arm or with a whole study, and what to do about it.

    Attributes:
        severity: `wrong` if the numbers do not mean what they claim; `careful` if they do, but are easily misread.
        arm: the arm, or None for the whole study.
        what: the finding in words.
        advice: what to do about it.
    """

    severity: Severity
    arm: str | None
    what: str
    advice: str


class Rule(NamedTuple):
    """A score of a trial and the values of it that are a finding.

    Attributes:
        score: the score.
        fires: returns True for a value that is a finding; NaN never is.
        severity, what, advice: those of the finding.
        applies: returns True for the specs that the rule is for.
    """

    score: Score
    fires: Callable[[float], bool]
    severity: Severity
    what: str
    advice: str
    applies: Callable[[TrialSpec], bool] = lambda _: True


DIVERGED = "discard these scores, all of them: lower the learning rate or warm it up (learning_rate_warmup), and train the arm anew"
UNFINISHED = "these scores are of a model on its way: take a budget with more epochs, or less of it"
COLLAPSED = "the decoder ignores the code: lower beta or sigma, warm the KL up (kl_warmup) or allow it some nats (free_bits)"


def collapse_is_not_intended(spec: TrialSpec) -> bool:
    """Return whether a posterior collapse would be a fault: a beta above 1 asks for it."""
    return spec.beta <= 1


RULES = (
    Rule(rows.KL, lambda kl: kl < 0.1, "wrong", "posterior collapse, KL below 0.1 nats", COLLAPSED, collapse_is_not_intended),
    Rule(rows.ACTIVE_UNITS, lambda n: n == 0, "wrong", "posterior collapse, no active unit", COLLAPSED, collapse_is_not_intended),
    Rule(
        rows.NAN_COUNT,
        lambda count: count > 0,
        "wrong",
        "weights that are not finite",
        "discard these scores and lower the learning rate",
    ),
    Rule(
        rows.SCALE_AT_FLOOR,
        lambda share: share > 0.01,
        "careful",
        "sigma on its floor (share of pixels)",
        f"the floor sets this density's height: do not rank by its ELBO, take {rows.OWN_BITS.key} or {rows.COMMON_BITS.key}",
    ),
    Rule(
        rows.EFFECTIVE_BETA,
        lambda beta: not 1 / OFF_BETA <= beta <= OFF_BETA,
        "careful",
        "effective beta away from 1",
        "its noise does not fit the residual, so the KL weighs that many times what it does where the noise fits: learn sigma "
        "(gaussian_shared), set it to the residual's, or read the arm as a beta-VAE",
        applies=lambda spec: spec.beta == 1,
    ),
    Rule(
        rows.IW_EFFECTIVE_SAMPLES,
        lambda samples: samples < 10,
        "careful",
        "few effective importance samples",
        f"importance sampling misses the posterior and its bound is loose: take {rows.EXACT_LOG_PX.key} up to two latents, more "
        "draws (evaluation full or thorough) beyond",
    ),
    Rule(
        rows.EXACT_RESOLVED,
        lambda within: within < 1,
        "careful",
        "exact likelihood not resolved and left out, its quadrature within the budget (1 or 0)",
        f"the decoder is too rugged over the latent space, as after a training that diverged: take {rows.ELBO.key} or IW-100",
    ),
    Rule(
        rows.EXACT_RESOLUTION,
        lambda nats: nats > 0.01,
        "careful",
        "exact likelihood not resolved, difference to cells twice as wide (nats)",
        f"do not quote {rows.EXACT_LOG_PX.key} to more digits than that",
    ),
    Rule(
        rows.LATE_GAIN,
        lambda nats: nats > 0.5,
        "careful",
        "not converged, ELBO gained over the last fifth of the epochs (nats)",
        "train for more epochs, or claim a speed of learning instead of an end result",
    ),
    Rule(
        rows.DEAD_UNITS,
        lambda share: share > 0.05,
        "careful",
        "dead hidden units (share)",
        "lower the learning rate or take an activation that does not die (elu)",
    ),
)


def diagnose(
    study: Ablation,
    name: str,
    budget: str,
    cells: Sequence[Cell],
    records: Mapping[str, Record],
    failures: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Return all findings about a study's runs, those that are `wrong` first.

    A score or tag that is not on record, as in older runs, is passed over.

    Args:
        study: the plan.
        name: of the study, as a command takes it.
        budget: of the study, by name.
        cells: the trials of the plan.
        records: the finished runs by cell id.
        failures: the reasons of failed runs by cell id.
    """
    rerun = paths.command("study", name=name, budget=budget)
    findings = [
        *_diverged(cells, records),
        *_selection(study),
        *_failed(cells, failures or {}, rerun),
        *_scores(cells, records),
        *_objectives(cells, records),
        *_seeds(study, cells, records, rerun),
        *_origins([records[c.spec.id] for c in cells if c.spec.id in records], rerun),
    ]
    return sorted(findings, key=lambda c: list(STYLES).index(c.severity))


def _diverged(cells: Sequence[Cell], records: Mapping[str, Record]) -> list[Finding]:
    """Return a finding for every arm with seeds whose training diverged."""
    findings = []
    for arm, arm_cells in _by_arm(cells).items():
        words = [diverged(records[c.spec.id].metrics) for c in arm_cells if c.spec.id in records]
        bad = [w for w in words if w]
        if bad:
            findings.append(Finding("wrong", arm, f"{_seeds_of(len(bad), len(words))} diverged: {bad[0]}", DIVERGED))
    return findings


def _selection(study: Ablation) -> list[Finding]:
    """Return a finding about choosing the winner on images that are for the final test."""
    if study.objective is None:
        return []
    objective = study.scores[study.objective]
    if objective.images != "test":
        return []
    known = f"{rows.VALIDATION_SQUARED_ERROR.key} or {rows.ELBO_VALIDATION.key}"
    advice = f"make {known} the objective; test is scored once, at the end"
    return [Finding("wrong", None, f"the winner is chosen on the test set ({objective.key})", advice)]


def _failed(cells: Sequence[Cell], failures: Mapping[str, str], rerun: str) -> list[Finding]:
    """Return a finding for every arm and reason for which seeds of the arm failed."""
    findings = []
    for arm, arm_cells in _by_arm(cells).items():
        reasons = [failures[c.spec.id].strip().partition("\n")[0][:LONGEST_REASON] for c in arm_cells if c.spec.id in failures]
        for reason in dict.fromkeys(reasons):
            what = f"{_seeds_of(reasons.count(reason), len(arm_cells))} failed: {reason}"
            findings.append(Finding("wrong", arm, what, f"what is left is a selection of seeds: mend the cause, then {rerun}"))
    return findings


def _scores(cells: Sequence[Cell], records: Mapping[str, Record]) -> list[Finding]:
    """Return a finding for every rule and arm with a score for which the rule fires."""
    findings = []
    for rule in RULES:
        for arm, arm_cells in _by_arm(cells).items():
            scored = [records[c.spec.id].metrics for c in arm_cells if c.spec.id in records and rule.applies(c.spec)]
            key = rule.score.key
            values = sorted(m[key] for m in scored if key in m and rule.fires(m[key]))
            if values:
                span = " to ".join(dict.fromkeys(f"{v:.3g}" for v in (values[0], values[-1])))
                what = f"{_seeds_of(len(values), len(scored))}: {rule.what}: {span}"
                findings.append(Finding(rule.severity, arm, what, rule.advice))
    return findings


def _objectives(cells: Sequence[Cell], records: Mapping[str, Record]) -> list[Finding]:
    """Return findings about arms with results whose training objective is not an ELBO of the data."""
    findings = []
    for arm, arm_cells in _by_arm([c for c in cells if c.spec.id in records]).items():
        spec = arm_cells[0].spec
        if spec.scale.kind == "pseudo":
            advice = f"compare by {rows.COMMON_BITS.key} (tier C), or train on binarised pixels (likelihood bernoulli)"
            findings.append(Finding("careful", arm, "pseudo-likelihood: its ELBO bounds no likelihood of grey pixels", advice))
        if spec.beta != 1:
            advice = f"{rows.ELBO.key} is at beta 1 whatever the objective was; the effective beta is not judged here"
            findings.append(Finding("careful", arm, f"beta is {spec.beta:g} on purpose: what was trained is not the ELBO", advice))
        findings += [Finding("careful", arm, words, UNFINISHED) for words in unfinished(spec)]
    return findings


def _seeds(study: Ablation, cells: Sequence[Cell], records: Mapping[str, Record], rerun: str) -> list[Finding]:
    """Return findings about too few seeds: of the plan for its hypotheses, and of the arms that have not finished."""
    if not study.hypotheses:
        return []
    claims, planned = len(study.hypotheses), len({c.seed for c in cells})
    findings = []
    seen = detectable(planned, (planned,), claims=claims, unplanned=False)
    if seen > LARGE_EFFECT:
        sees = f"only differences of {seen:.1f} standard deviations or more" if isfinite(seen) else "no difference at all"
        what = f"{planned} seed{'s' * (planned != 1)} would show {sees}, for {claims} hypotheses (80 % power)"
        findings.append(Finding("careful", None, what, MORE_SEEDS))
    for arm, arm_cells in _by_arm(cells).items():
        finished = sum(c.spec.id in records for c in arm_cells)
        if finished < len(arm_cells):
            findings.append(Finding("careful", arm, f"{_seeds_of(finished, len(arm_cells))} finished", f"finish: {rerun}"))
    return findings


def _origins(records: Sequence[Record], rerun: str) -> list[Finding]:
    """Return findings about what compared runs should share but do not: feature extractor, images, device and commit."""
    findings = []
    extractors = _tag_values(records, "features.sha256")
    if len(extractors) > 1:
        what = f"{len(extractors)} feature extractors: {_first_of([e[:12] for e in extractors])}"
        advice = "Fréchet distances, precision and recall may not be compared between them: run the study anew in one home"
        findings.append(Finding("wrong", None, what, advice))
    images = _tag_values(records, "dataset.digest")
    if len(images) > 1:
        what = f"{len(images)} states of the images: {_first_of([d[:12] for d in images])}"
        findings.append(Finding("wrong", None, what, f"arms were not scored on the same images: in an empty home: {rerun}"))
    devices = _tag_values(records, "device")
    if len(devices) > 1:
        advice = "scores differ by rounding, times and memory may not be compared"
        findings.append(Finding("careful", None, f"{len(devices)} devices: {_first_of(devices)}", advice))
    commits = sorted({provenance.code_of(r.tags) for r in records} - {"unknown"})
    if len(commits) > 1 or any(c.endswith("+dirty") for c in commits):
        what = f"{len(commits)} states of the code: {_first_of(commits)}" if len(commits) > 1 else f"changed files: {commits[0]}"
        advice = f"for numbers to publish commit, and in an empty home (HARNESS_HOME): {rerun}"
        findings.append(Finding("careful", None, what, advice))
    return findings


def _by_arm(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Return the cells of each arm, by arm."""
    return {arm: [c for c in cells if c.arm == arm] for arm in dict.fromkeys(c.arm for c in cells)}


def _seeds_of(count: int, total: int) -> str:
    """Return a number of seeds and their total in words, such as "3 of 6 seeds"."""
    return f"{count} of {total} seed{'s' * (total != 1)}"


def _tag_values(records: Sequence[Record], tag: str) -> list[str]:
    """Return the different values of a tag, sorted."""
    return sorted({r.tags[tag] for r in records if tag in r.tags})


def _first_of(items: Sequence[str], limit: int = 4) -> str:
    """Return the first few items in words, with the number of those left out."""
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the findings: those with the same advice under one heading, arms with the same finding on one line."""
    for severity, advice in dict.fromkeys((c.severity, c.advice) for c in findings):
        similar = [c for c in findings if (c.severity, c.advice) == (severity, advice)]
        console.print(Text(severity, STYLES[severity]))
        for what in dict.fromkeys(c.what for c in similar):
            arms = ", ".join(c.arm for c in similar if c.what == what and c.arm)
            console.print(Padding(Text(f"{arms}: {what}" if arms else what), (0, 0, 0, 2), expand=False))
        console.print(Padding(Text(f"-> {advice}", "dim"), (0, 0, 0, 4), expand=False))


def examine(name: str, budget: str | None, console: Console) -> int:
    """Print the findings about a study's budget, or about all that have runs, for `harness doctor`.

    Returns:
        1 if something is wrong, else 0.

    Raises:
        UserError: no such trial is on record.
    """
    any_runs, any_wrong = False, False
    for loaded, study_budget, study in _planned(name, budget):
        cells = study.cells(study_budget)
        ids = {c.spec.id for c in cells}
        finished, failed = on_record(loaded.name, study_budget)
        records = {cell: r for cell, r in finished.items() if cell in ids}
        failures = {cell: reason for cell, reason in failed.items() if cell in ids}
        if not records and not failures:
            continue
        findings = diagnose(study, loaded.reference, study_budget, cells, records, failures)
        count = f"{len(records)} of {len(cells)}" if len(records) < len(cells) else f"{len(cells)}"
        trials = f"{count} trial{'s' * (len(cells) != 1)} of {loaded.name} ({study_budget} budget)"
        console.print(Text(f"{trials}:" if findings else f"nothing to complain about: {trials}"))
        show(findings, console)
        any_runs, any_wrong = True, any_wrong or any(c.severity == "wrong" for c in findings)
    if not any_runs:
        which = f" of {name}" * bool(name) + f" ({budget or 'default'} budget)" * bool(name or budget)
        run = paths.command("study", name=name or "...", budget=(budget or "default") if name else "")
        raise UserError(f"no trial{which} is on record\n{run}" + f"\n{questions()}" * (not name))
    return int(any_wrong)


def _planned(name: str, budget: str | None) -> Iterator[tuple[LoadedStudy, str, Ablation]]:
    """Yield study, budget and ablation of the study and budget that were named, or of all of them.

    Without a name these are all studies with every budget, or with the budget that was named. For a search it is its test, in which
    the base and the best trials are trained on new seeds.
    """
    for reference in [name] if name else names():
        loaded = load(reference)
        for study_budget in [budget or "default"] if name else loaded.study.budgets:
            if budget in (None, study_budget):
                yield loaded, study_budget, judged_on_record(loaded, study_budget)
