"""What is wrong with finished runs, in words, and what to do about it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from harness.errors import UserError
from harness.spec import TrialSpec
from harness.stats import ALPHA
from harness.study import Ablation, Cell, load_study, names, questions
from harness.tracking import Record, on_record, refitted

ENOUGH_SEEDS = 6
OFF_BETA = 1.5  # a factor
LONGEST_REASON = 160  # characters of a failure
STYLES = {"wrong": "bold red", "careful": "bold yellow"}
Severity = Literal["wrong", "careful"]


@dataclass(frozen=True)
class Finding:
    """What is the matter with an arm, or with the whole study (None), and what to do about it.

    `wrong`: the numbers do not mean what they claim. `careful`: they do, and are easily misread.
    """

    severity: Severity
    arm: str | None
    what: str
    advice: str


class Rule(NamedTuple):
    """A score of a trial and the values that tell of trouble; NaN never does. `applies`: to trials of which specs."""

    metric: str
    fires: Callable[[float], bool]
    severity: Severity
    what: str
    advice: str
    applies: Callable[[TrialSpec], bool] = lambda _: True


COLLAPSED = "the decoder ignores the code: lower beta or sigma, warm the KL up (kl_warmup) or allow it some nats (free_bits)"


def unforced(spec: TrialSpec) -> bool:
    """No beta above 1 asks for the collapse."""
    return spec.beta <= 1


RULES = (
    Rule("test/kl", lambda kl: kl < 0.1, "wrong", "posterior collapse, KL below 0.1 nats", COLLAPSED, unforced),
    Rule(
        "test/active_units", lambda n: n == 0, "wrong", "posterior collapse, no active unit", COLLAPSED, lambda spec: spec.beta <= 1
    ),
    Rule(
        "diagnostics/nan_count",
        lambda count: count > 0,
        "wrong",
        "weights that are not finite",
        "discard these scores and lower the learning rate",
    ),
    Rule(
        "diagnostics/scale_at_floor",
        lambda share: share > 0.01,
        "careful",
        "sigma on its floor (share of pixels)",
        "the floor sets this density's height: do not rank by its ELBO, take test/own_bits or test/common_bits",
    ),
    Rule(
        "diagnostics/effective_beta",
        lambda beta: not 1 / OFF_BETA <= beta <= OFF_BETA,
        "careful",
        "effective beta away from 1",
        "its noise does not fit the residual, so the KL weighs that many times what it does where the noise fits: learn sigma "
        "(gaussian_shared), set it to the residual's, or read the arm as a beta-VAE",
        applies=lambda spec: spec.beta == 1,
    ),
    Rule(
        "test/iw_effective_samples",
        lambda samples: samples < 10,
        "careful",
        "few effective importance samples",
        "importance sampling misses the posterior and its bound is loose: take test/exact_log_px up to two latents, more draws "
        "(evaluation full or thorough) beyond",
    ),
    Rule(
        "test/exact_resolution",
        lambda nats: nats > 0.01,
        "careful",
        "exact likelihood not resolved, difference to cells twice as wide (nats)",
        "do not quote test/exact_log_px to more digits than that",
    ),
    Rule(
        "diagnostics/late_gain",
        lambda nats: nats > 0.5,
        "careful",
        "not converged, ELBO gained over the last fifth of the epochs (nats)",
        "train for more epochs, or claim a speed of learning instead of an end result",
    ),
    Rule(
        "validation/dead_units",
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
    """All complaints about a study's runs, wrong ones first; records and reasons of failures by cell id.

    A score or tag that is not on record, as in older runs, is passed over.
    """
    again = f"make study NAME={name} BUDGET={budget}"
    found = [
        *_selection(study, cells),
        *_failed(cells, failures or {}, again),
        *_scores(cells, records),
        *_objectives(cells, records),
        *_seeds(study, cells, records, again),
        *_origins([records[c.spec.id] for c in cells if c.spec.id in records], again),
    ]
    return sorted(found, key=lambda c: list(STYLES).index(c.severity))


def _selection(study: Ablation, cells: Sequence[Cell]) -> list[Finding]:
    objective = study.objective or ""
    if objective.startswith("test/"):
        advice = "make validation/squared_error or elbo/validation the objective; test is scored once, at the end"
        return [Finding("wrong", None, f"the winner is chosen on the test set ({objective})", advice)]
    fitted = {c.arm: None for c in cells if "validation" in c.spec.fit_on} if "validation" in objective else {}
    advice = "fit on train, or set objective=None"
    return [Finding("wrong", arm, f"fits on the images that {objective} is chosen on", advice) for arm in fitted]


def _failed(cells: Sequence[Cell], failures: Mapping[str, str], again: str) -> list[Finding]:
    found = []
    for arm, mine in _by_arm(cells).items():
        reasons = [failures[c.spec.id].strip().partition("\n")[0][:LONGEST_REASON] for c in mine if c.spec.id in failures]
        for why in dict.fromkeys(reasons):
            what = f"{_of(reasons.count(why), len(mine))} failed: {why}"
            found.append(Finding("wrong", arm, what, f"what is left is a selection of seeds: mend the cause, then {again}"))
    return found


def _scores(cells: Sequence[Cell], records: Mapping[str, Record]) -> list[Finding]:
    found = []
    for rule in RULES:
        for arm, mine in _by_arm(cells).items():
            done = [records[c.spec.id].metrics for c in mine if c.spec.id in records and rule.applies(c.spec)]
            values = sorted(m[rule.metric] for m in done if rule.metric in m and rule.fires(m[rule.metric]))
            if values:
                span = " to ".join(dict.fromkeys(f"{v:.3g}" for v in (values[0], values[-1])))
                what = f"{_of(len(values), len(done))}: {rule.what}: {span}"
                found.append(Finding(rule.severity, arm, what, rule.advice))
    return found


def _objectives(cells: Sequence[Cell], records: Mapping[str, Record]) -> list[Finding]:
    """What the training objective of an arm with results is not."""
    found = []
    for arm, mine in _by_arm([c for c in cells if c.spec.id in records]).items():
        spec = mine[0].spec
        if spec.scale.kind == "pseudo":
            advice = "compare by test/common_bits (tier C), or train on binarised pixels (likelihood bernoulli)"
            found.append(Finding("careful", arm, "pseudo-likelihood: its ELBO bounds no likelihood of grey pixels", advice))
        if spec.beta != 1:
            advice = "test/elbo is at beta 1 whatever the objective was; the effective beta is not judged here"
            found.append(Finding("careful", arm, f"beta is {spec.beta:g} on purpose: what was trained is not the ELBO", advice))
    return found


def _seeds(study: Ablation, cells: Sequence[Cell], records: Mapping[str, Record], again: str) -> list[Finding]:
    if not study.hypotheses:
        return []
    claims, planned = len(study.hypotheses), len({c.seed for c in cells})
    found = []
    if 0.5**planned * claims >= ALPHA:
        seeds = f"{planned} seed{'s' * (planned != 1)}"
        what = f"{seeds} cannot confirm any of {claims} hypotheses: 2^-{planned} x {claims} is not below {ALPHA:.2g} (Holm)"
        found.append(Finding("careful", None, what, "a larger budget, more seeds in the study's file, or fewer hypotheses"))
    for arm, mine in _by_arm(cells).items():
        done = sum(c.spec.id in records for c in mine)
        if done < ENOUGH_SEEDS:
            advice = f"one-sided claims take 5 seeds, two-sided ones {ENOUGH_SEEDS}: finish ({again}) or take a larger budget"
            found.append(Finding("careful", arm, f"few seeds: {done} of {len(mine)} finished", advice))
    return found


def _origins(records: Sequence[Record], again: str) -> list[Finding]:
    """What runs that are compared do not share."""
    found = []
    extractors = _tags(records, "features.sha256")
    if len(extractors) > 1:
        what = f"{len(extractors)} feature extractors: {_listed([e[:12] for e in extractors])}"
        advice = "Fréchet distances, precision and recall may not be compared between them: run the study anew in one home"
        found.append(Finding("wrong", None, what, advice))
    devices = _tags(records, "device")
    if len(devices) > 1:
        advice = "scores differ by rounding, times and memory may not be compared"
        found.append(Finding("careful", None, f"{len(devices)} devices: {_listed(devices)}", advice))
    marks = {"true": "+dirty"}
    commits = sorted({r.tags["git.commit"] + marks.get(r.tags.get("git.dirty", ""), "") for r in records if "git.commit" in r.tags})
    if len(commits) > 1 or any(c.endswith("+dirty") for c in commits):
        what = f"{len(commits)} states of the code: {_listed(commits)}" if len(commits) > 1 else f"changed files: {commits[0]}"
        advice = f"for numbers to publish commit, and in an empty home (HARNESS_HOME): {again}"
        found.append(Finding("careful", None, what, advice))
    return found


def _by_arm(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    return {arm: [c for c in cells if c.arm == arm] for arm in dict.fromkeys(c.arm for c in cells)}


def _of(some: int, every: int) -> str:
    return f"{some} of {every} seed{'s' * (every != 1)}"


def _tags(records: Sequence[Record], tag: str) -> list[str]:
    return sorted({r.tags[tag] for r in records if tag in r.tags})


def _listed(items: Sequence[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def show(findings: Sequence[Finding], console: Console) -> None:
    """Complaints with one advice under one heading, arms with one trouble on one line."""
    for severity, advice in dict.fromkeys((c.severity, c.advice) for c in findings):
        alike = [c for c in findings if (c.severity, c.advice) == (severity, advice)]
        console.print(Text(severity, STYLES[severity]))
        for what in dict.fromkeys(c.what for c in alike):
            arms = ", ".join(c.arm for c in alike if c.what == what and c.arm)
            console.print(Padding(Text(f"{arms}: {what}" if arms else what), (0, 0, 0, 2), expand=False))
        console.print(Padding(Text(f"-> {advice}", "dim"), (0, 0, 0, 4), expand=False))


def examine(name: str, budget: str | None, console: Console) -> int:
    """`harness doctor`: complaints about a study's budget, or about all that have runs. Returns 1 if something is wrong, else 0."""
    seen, wrong = False, False
    for one, each, study in _plans(name, budget):
        cells = study.cells(each)
        ids = {c.spec.id for c in cells}
        runs, faults = on_record(one, each)
        records = {cell: r for cell, r in runs.items() if cell in ids}
        failures = {cell: why for cell, why in faults.items() if cell in ids}
        if not records and not failures:
            continue
        findings = diagnose(study, one, each, cells, records, failures)
        count = f"{len(records)} of {len(cells)}" if len(records) < len(cells) else f"{len(cells)}"
        what = f"{count} trial{'s' * (len(cells) != 1)} of {one} ({each} budget)"
        console.print(Text(f"{what}:" if findings else f"nothing to complain about: {what}"))
        show(findings, console)
        seen, wrong = True, wrong or any(c.severity == "wrong" for c in findings)
    if not seen:
        of = f" of {name}" * bool(name) + f" ({budget or 'default'} budget)" * bool(name or budget)
        run = f"make study NAME={name} BUDGET={budget or 'default'}" if name else f"make study NAME=...\n{questions()}"
        raise UserError(f"no trial{of} is on record\n{run}")
    return int(wrong)


def _plans(name: str, budget: str | None) -> Iterator[tuple[str, str, Ablation]]:
    """The study and budget that were named; without a name, every study with every budget, or with that budget.

    Of a search: its test, in which the base and the best were trained on new seeds.
    """
    for one in [name] if name else names():
        study = load_study(one)
        for each in [budget or "default"] if name else study.budgets:
            if budget in (None, each):
                yield one, each, study.judged(each, refitted(one, each))
