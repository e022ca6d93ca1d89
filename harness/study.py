"""A study: one question, its arms and seeds, and the hypotheses stated before the runs. No torch here."""

import ast
import importlib.util
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness import paths
from harness.errors import UserError
from harness.spec import TrialSpec
from harness.tables import look_up, unknown


class Score(NamedTuple):
    """A score of a trial: its label with unit, which way is better ("" for neither), decimals to print, and its tier.

    Tier A lives on its likelihood's own scale and may only be compared within one; B takes a likelihood that is a pmf of grey
    levels; C and D compare any models (docs/science.md). `most_latents`: it exists up to so many.
    """

    label: str
    better: str
    digits: int
    tier: Literal["A", "B", "C", "D"] = "D"
    most_latents: int | None = None


SCORES: Mapping[str, Score] = {
    "test/common_bits": Score("common head (bits/dim)", "lower", 3, "C"),
    "test/common_bits_iw": Score("common head, IW-100 (bits/dim)", "lower", 3, "C"),
    "test/common_bits_exact": Score("common head, exact (bits/dim)", "lower", 3, "C", most_latents=2),
    "test/squared_error": Score("squared error", "lower", 2),
    "test/psnr": Score("PSNR (dB)", "higher", 2),
    "test/ssim": Score("SSIM", "higher", 3),
    "test/frechet": Score("Fréchet distance", "lower", 1),
    "test/precision": Score("precision", "higher", 3),
    "test/recall": Score("recall", "higher", 3),
    "test/knn15_accuracy": Score("15-NN accuracy", "higher", 3),
    "test/probe_accuracy": Score("linear probe accuracy", "higher", 3),
    "test/active_units": Score("active units", "higher", 1),
    "test/kl": Score("KL (nats)", "", 2),
    "test/mutual_information": Score("mutual information (nats)", "", 2),
    "test/marginal_kl": Score("marginal KL (nats)", "", 2),
    "validation/dead_units": Score("dead hidden units (share)", "lower", 3),
    "test/own_bits": Score("own likelihood (bits/dim)", "lower", 3, "B"),
    "test/own_bits_iw": Score("own likelihood, IW-100 (bits/dim)", "lower", 3, "B"),
    "test/elbo": Score("ELBO (nats)", "higher", 2, "A"),
    "test/recon": Score("reconstruction (nats)", "higher", 2, "A"),
    "test/iw_100": Score("IW-100 (nats)", "higher", 2, "A"),
    "test/exact_log_px": Score("exact log p(x) (nats)", "higher", 2, "A", most_latents=2),
    "test/inference_gap": Score("inference gap (nats)", "lower", 2, "A", most_latents=2),
    "validation/squared_error": Score("validation squared error", "lower", 2),
    "elbo/validation": Score("validation ELBO (nats)", "higher", 2, "A"),
}


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """`better` beats `worse` on `metric`: a claim with a direction, written down before the runs."""

    better: str
    worse: str
    metric: str

    def __str__(self) -> str:
        return f"{self.better} beats {self.worse} on {SCORES[self.metric].label}"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a study spends: epochs of every trial, the seeds of every arm, and how deep the final scores go."""

    epochs: int
    seeds: Sequence[int]
    evaluation: str = "quick"


class Cell(NamedTuple):
    """One trial of the plan."""

    arm: str
    seed: int
    spec: TrialSpec


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Arms x seeds. Each arm is a change to `base`; arms share their seeds, so they are compared in pairs.

    Attributes:
        arms: name to changed fields of the base. The first arm is the one that differences are taken against.
        hypotheses: with 6 seeds a one-sided Wilcoxon test reaches p = 0.016, so Holm's correction lets at most 3 be confirmed.
        objective: the score on validation that picks the winner, whose model is kept. Lower or higher as `SCORES` says.

    Raises:
        UserError: an unknown field, name, arm or score, or a ranking across scales; before anything runs.
    """

    base: TrialSpec
    arms: Mapping[str, Mapping[str, Any]]
    budgets: Mapping[str, Budget]
    hypotheses: tuple[Hypothesis, ...] = ()
    objective: str | None = "validation/squared_error"

    def __post_init__(self) -> None:
        if not self.arms:
            raise UserError("a study needs at least one arm")
        if "default" not in self.budgets:
            raise unknown("budget (every study has one)", "default", self.budgets)
        specs = {arm: self._spec(arm) for arm in self.arms}
        datasets = sorted({spec.dataset for spec in specs.values()})
        if len(datasets) > 1:
            raise UserError(f"arms are compared on one data set, got {', '.join(datasets)}")
        if self.objective is not None:
            look_up(SCORES, self.objective, "score")
            self._comparable(self.objective, specs, f"objective {self.objective!r} ranks all arms")
        for h in self.hypotheses:
            score = look_up(SCORES, h.metric, "score")
            for arm in (h.better, h.worse):
                look_up(self.arms, arm, "arm")
            if not score.better:
                raise UserError(f"hypothesis '{h}': {h.metric!r} has no better or worse direction")
            self._comparable(h.metric, {a: specs[a] for a in (h.better, h.worse)}, f"hypothesis '{h}'")
        for name, budget in self.budgets.items():
            cells = self.cells(name)
            if not budget.seeds or len({c.spec.id for c in cells}) != len(cells):
                raise UserError(f"budget {name!r}: seeds must be given and differ, and no two arms may be the same trial")

    def _spec(self, arm: str) -> TrialSpec:
        try:
            return self.base.derive(**self.arms[arm])
        except UserError as fault:
            raise UserError(f"arm {arm!r}: {fault}") from None

    @staticmethod
    def _comparable(metric: str, specs: Mapping[str, TrialSpec], where: str) -> None:
        """Refuse a ranking that its score's tier does not allow."""
        score = SCORES[metric]
        scales = {arm: str(spec.scale) for arm, spec in specs.items()}
        listed = ", ".join(f"{arm} is a {scale}" for arm, scale in scales.items())
        latents = max(spec.latent for spec in specs.values())
        there = {name: s for name, s in SCORES.items() if s.most_latents is None or s.most_latents >= latents}
        fair = [name for name, s in there.items() if s.better and s.tier in "CD" and name.startswith("test/")]
        would_do = {tier: ", ".join(n for n in fair if SCORES[n].tier == tier) for tier in "CD"}
        if all(spec.has_grey_pmf for spec in specs.values()):
            would_do = {"B": "test/own_bits"} | would_do
        advice = "\n".join(f"tier {tier} would do: {names}" for tier, names in would_do.items())
        if score.tier == "A" and len(set(scales.values())) > 1:
            raise UserError(f"{where}: {metric!r} (tier A) cannot rank across scales ({listed})\n{advice}")
        without = [arm for arm, spec in specs.items() if not spec.has_grey_pmf]
        if score.tier == "B" and without:
            raise UserError(f"{where}: {metric!r} (tier B) takes a pmf of grey levels, {' and '.join(without)} has none\n{advice}")
        if metric not in there:
            raise UserError(f"{where}: {metric!r} exists up to {score.most_latents} latents, got {latents}\n{advice}")

    def cells(self, budget: str) -> tuple[Cell, ...]:
        """The plan of a budget, seed by seed, so that whatever is done first is balanced over arms."""
        chosen = look_up(self.budgets, budget, "budget")
        return tuple(
            Cell(arm, seed, self._spec(arm).derive(seed=seed, epochs=chosen.epochs, evaluation=chosen.evaluation))
            for seed in chosen.seeds
            for arm in self.arms
        )


def names() -> list[str]:
    """All studies."""
    return sorted(p.stem for p in paths.studies().glob("*.py") if not p.stem.startswith("_"))


def question(name: str) -> str:
    """What a study asks: the first line of its file, read without running it."""
    try:
        doc = ast.get_docstring(ast.parse(_path(name).read_text(encoding="utf-8")))
    except SyntaxError as fault:
        return f"(cannot be read: line {fault.lineno}: {fault.msg})"
    return (doc or "(asks nothing yet: its file has no docstring)").splitlines()[0]


def questions(which: Iterable[str] | None = None) -> str:
    """Every study with its question, one a line."""
    listed = list(which or names())
    width = max(map(len, listed), default=0)
    return "\n".join(f"  {name:<{width}}  {question(name)}" for name in listed)


def load(name: str) -> Ablation:
    """The study in studies/NAME.py.

    Raises:
        UserError: no such study, or one whose file has a fault; the message names file and line.
    """
    if name not in names():
        raise UserError(f"{unknown('study', name, names())}\n{questions()}")
    path = _path(name)
    module_spec = importlib.util.spec_from_file_location(f"studies.{name}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        study = module.STUDY
    except SyntaxError as fault:
        text = (fault.text or "").rstrip()
        raise UserError(f"{path}:{fault.lineno}:{fault.offset}: {fault.msg}\n  {text}") from None
    except Exception as fault:  # a study file is user code: whatever it raises is reported as its fault, with the line
        here = [f.lineno for f in traceback.extract_tb(fault.__traceback__) if f.filename == str(path)]
        kind = "" if isinstance(fault, UserError) else f"{type(fault).__name__}: "
        raise UserError(f"{path}:{here[-1] if here else 1}: {kind}{fault}") from None
    if not isinstance(study, Ablation):
        raise UserError(f"{path}: STUDY must be an Ablation, got {type(study).__name__}")
    return study


def cells_of(name: str, budget: str) -> tuple[Cell, ...]:
    """The plan of a study's budget, or the fault that keeps it from one."""
    return load(name).cells(budget)


def _path(name: str) -> Path:
    return paths.studies() / f"{name}.py"
