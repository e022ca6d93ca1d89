"""Findings about the runs of one study, from its plan and what is on record."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from harness import paths, provenance
from harness.doctor.rules import RULES, Case, Finding
from harness.scores import diverged, rows
from harness.spec import TrialSpec, unfinished
from harness.stats import detectable
from harness.study import Ablation, Cell
from harness.tracking import Record

LARGE_EFFECT = 3.0  # standard deviations of paired differences: a study that misses those can hardly see anything
LONGEST_REASON = 160  # characters of a failure's reason that are shown
SEVERITIES = ("wrong", "careful", "note")


def diagnose(
    study: Ablation,
    name: str,
    budget: str,
    cells: Sequence[Cell],
    records: Mapping[str, Record],
    failures: Mapping[str, str] | None = None,
    *,
    whole: Collection[str] = (),
) -> list[Finding]:
    """Return all findings about a study's runs, the most important ones first.

    A score or tag that is not on record, as in older runs, is passed over.

    Args:
        study: the plan.
        name: of the study, as a command takes it.
        budget: of the study, by name.
        cells: the trials of the plan.
        records: the finished runs by cell id.
        failures: the reasons of failed runs by cell id.
        whole: the budgets of the study of which every trial is on record.
    """
    rerun = paths.command("study", name=name, budget=budget)
    larger = Larger(study, name, budget, whole)
    findings = [
        *_diverged(cells, records),
        *_selection(study),
        *_failed(cells, failures or {}, rerun),
        *_scores(cells, records, larger),
        *_objectives(cells, records, larger),
        *_seeds(study, cells, records, rerun, larger),
        *_origins([records[c.spec.id] for c in cells if c.spec.id in records], rerun),
    ]
    return sorted(findings, key=lambda c: SEVERITIES.index(c.severity))


@dataclass(frozen=True)
class Larger:
    """The budgets of a study that are larger than one of them, as advice: to run one, or to read one that is on record.

    Attributes:
        study: the study.
        name: of the study, as a command takes it.
        budget: the one that they are larger than, by name.
        whole: those of which every trial is on record.
    """

    study: Ablation
    name: str
    budget: str
    whole: Collection[str]

    @property
    def epochs(self) -> str:
        """What to do for more epochs."""
        return self._advice("epochs", {n: b.epochs for n, b in self.study.budgets.items()}) or "give the study more epochs"

    @property
    def seeds(self) -> str:
        """What to do for more seeds."""
        return self._advice("seeds", {n: len(b.seeds) for n, b in self.study.budgets.items()}) or (
            "state a study with more seeds under a name of its own before it runs: seeds added to this one are now looks that "
            "nobody planned, which take more of them (harness plan says how many), and a deleted hypothesis still counts"
        )

    def _advice(self, what: str, sizes: Mapping[str, int]) -> str:
        """Return what to do for more of something, of which `sizes` says how much each budget has; empty if none has more."""
        more = sorted((size, name) for name, size in sizes.items() if size > sizes[self.budget])
        done = [(size, name) for size, name in more if name in self.whole]
        if done:
            return f"read the {done[-1][1]} budget, which is on record with {done[-1][0]} {what}"
        return f"run the {more[0][1]} budget, with {more[0][0]} {what}: {self._command(more[0][1])}" if more else ""

    def _command(self, budget: str) -> str:
        """Return the command that runs a budget."""
        return paths.command("study", name=self.name, budget=budget)


def plan_findings(faults: Sequence[str]) -> list[Finding]:
    """Return a finding for each fault of a stored plan."""
    advice = "no claim of this study can be called registered: restore the stores from a copy, or run it anew in an empty home"
    return [Finding("wrong", None, f"the plan: {fault}", advice) for fault in faults]


def _diverged(cells: Sequence[Cell], records: Mapping[str, Record]) -> list[Finding]:
    """Return a finding for every arm with seeds whose training diverged."""
    findings = []
    for arm, arm_cells in _by_arm(cells).items():
        words = [diverged(records[c.spec.id].metrics) for c in arm_cells if c.spec.id in records]
        bad = [w for w in words if w]
        if bad:
            what = f"{_seeds_of(len(bad), len(words))} diverged: {bad[0]}"
            findings.append(Finding("wrong", arm, what, _on_divergence(arm_cells[0].spec)))
    return findings


def _on_divergence(spec: TrialSpec) -> str:
    """Return what to do about a training that diverged."""
    warm = "warm it up for longer" if spec.learning_rate_warmup else "warm it up"
    clip = "clip the gradients at less" if spec.clip_norm else "clip the gradients"
    ways = f"lower the learning rate, {warm} (learning_rate_warmup) or {clip} (clip_norm)"
    return f"discard these scores, all of them: {ways}, and train the arm anew"


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


def _scores(cells: Sequence[Cell], records: Mapping[str, Record], larger: Larger) -> list[Finding]:
    """Return a finding for every rule and arm with a score for which the rule fires."""
    findings = []
    by_arm = _by_arm(cells)
    with_results = {arm: of[0].spec for arm, of in by_arm.items() if any(c.spec.id in records for c in of)}
    for rule in RULES:
        for arm, arm_cells in by_arm.items():
            scored = [records[c.spec.id].metrics for c in arm_cells if c.spec.id in records and rule.applies(c.spec)]
            key = rule.score.key
            values = sorted(m[key] for m in scored if key in m and rule.fires(m[key]))
            if values:
                span = " to ".join(dict.fromkeys(f"{v:.3g}" for v in (values[0], values[-1])))
                what = f"{_seeds_of(len(values), len(scored))}: {rule.what}: {span}"
                others = {other: spec for other, spec in with_results.items() if other != arm}
                common = frozenset.intersection(*map(frozenset, scored))
                case = Case(spec=arm_cells[0].spec, others=others, longer=larger.epochs, scores=common)
                findings.append(Finding(rule.severity, arm, what, rule.advice(case)))
    return findings


def _objectives(cells: Sequence[Cell], records: Mapping[str, Record], larger: Larger) -> list[Finding]:
    """Return findings about arms with results whose training objective is not an ELBO of the data."""
    findings = []
    for arm, arm_cells in _by_arm([c for c in cells if c.spec.id in records]).items():
        spec = arm_cells[0].spec
        if spec.scale.kind == "pseudo":
            binary = next((c.arm for c in cells if c.spec.likelihood == "bernoulli" and c.spec.id in records), "")
            other = f"with {binary}, which trains" if binary else "or train"
            end = "" if binary else " (likelihood bernoulli)"
            advice = f"compare by {rows.COMMON_BITS.key} (tier C), {other} on binarised pixels{end}"
            findings.append(Finding("note", arm, "pseudo-likelihood: its ELBO bounds no likelihood of grey pixels", advice))
        if spec.beta != 1:
            advice = f"{rows.ELBO.key} is at beta 1 whatever the objective was; the effective beta is not judged here"
            findings.append(Finding("note", arm, f"beta is {spec.beta:g} on purpose: what was trained is not the ELBO", advice))
        advice = f"these scores are of a model on its way: {larger.epochs}, or give it less of that"
        findings += [Finding("careful", arm, words, advice) for words in unfinished(spec)]
    return findings


def _seeds(study: Ablation, cells: Sequence[Cell], records: Mapping[str, Record], rerun: str, larger: Larger) -> list[Finding]:
    """Return findings about too few seeds: of the plan for its hypotheses, and of the arms that have not finished."""
    if not study.hypotheses:
        return []
    claims, planned = len(study.hypotheses), len({c.seed for c in cells})
    looks = {n for budget in study.budgets.values() if len(budget.seeds) == planned for n in budget.looks}
    findings = []
    seen = detectable(planned, (planned,), claims=claims, unplanned=False)
    if seen > LARGE_EFFECT:
        of = "1 hypothesis" if claims == 1 else f"{claims} hypotheses"
        sees = f"only differences of {seen:.1f} standard deviations or more" if isfinite(seen) else "no difference at all"
        what = f"{planned} seed{'s' * (planned != 1)} would show {sees}, for {of} (80 % power)"
        findings.append(Finding("careful", None, what, larger.seeds))
    for arm, arm_cells in _by_arm(cells).items():
        finished = sum(c.spec.id in records for c in arm_cells)
        if finished < len(arm_cells) and finished not in looks:
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
        findings.append(Finding("note", None, f"{len(devices)} devices: {_first_of(devices)}", advice))
    commits = sorted({provenance.code_of(r.tags) for r in records} - {"unknown"})
    if len(commits) > 1 or any(c.endswith("+dirty") for c in commits):
        what = f"{len(commits)} states of the code: {_first_of(commits)}" if len(commits) > 1 else f"changed files: {commits[0]}"
        advice = f"for numbers to publish commit, and in an empty home (HARNESS_HOME): {rerun}"
        findings.append(Finding("note", None, what, advice))
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
