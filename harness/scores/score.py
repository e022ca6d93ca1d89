"""What a row says of a score, and the filters over rows that tables, charts and objectives are."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import UserError, unknown

EXACT_LATENTS = 2  # quadrature over z takes at most as many
MOST_CLASSES = 1_000  # a linear probe takes minutes for them
NEIGHBOURS = 15  # training codes that a code's class is taken from
FEATURES = 64  # of an image, by a network that is trained on the same data
FEATURE_BATCH = 128  # images of a step of that training

# The sections that scores are shown in. One of any other name is a table of its own that compares arms, after the first three.
IMAGES = "Images: one scale for every arm"
SAMPLES = "Samples"
CODES = "Codes and hidden units"
OWN_PMF = "Own likelihood as a pmf of grey levels"
NATIVE = "Native objectives, one table per scale"
TRUST = "How far to trust the bounds"
KL_CURVES = "KL (nats per image)"
ELBO_CURVES = "ELBO, each arm on its own scale"
SELECTION = "Validation images: what may select"
DIAGNOSTICS = "Diagnostics"
COST = "Cost"
APART = (OWN_PMF, NATIVE, TRUST, KL_CURVES, ELBO_CURVES, SELECTION, DIAGNOSTICS, COST)  # sections that do not compare any arms

NEEDS: Mapping[str, str] = {
    "labels": f"labels of 2 to {MOST_CLASSES:,} classes",
    "features": f"at least {FEATURE_BATCH} training and {FEATURES + 1} test images",
    "neighbours": f"at least {NEIGHBOURS} training images",
    "grey_pmf": "a likelihood that gives the grey levels probabilities",
    "exact": f"at most {EXACT_LATENTS} latents",
    "deep": "an evaluation that is full or thorough",
    "held_out": "validation images that were not trained on (fit_on='train')",
    "noise_scale": "a likelihood with a scale of pixel noise",
    "scale_floor": "a learned scale of pixel noise that has a lower bound",
    "epochs": "two epochs",
    "average": "an average of the weights (ema_decay)",
    "patience": "early stopping (patience)",
}

ASKED_FOR = frozenset({"average", "patience"})  # needs that a trial has only if it asks: where none does, nothing is missing


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score of a trial.

    Attributes:
        key: its metric key. One that ends in a slash stands for a family: `dead_units/` for `dead_units/encoder_1` and so on.
        label: its name with the unit.
        better: "lower", "higher", or "" if neither is better.
        digits: the decimals to print.
        tier: A is on the likelihood's own scale and may only be compared within one; B takes a likelihood that is a pmf of grey
            levels; C and D compare any models (docs/science.md).
        group: the section that it is shown in.
        headline: True if it is shown where there is room for few: the main table, the charts.
        needs: what a trial must have for it, words of `NEEDS`.
        compute: of a study's own score, the function from a trained trial to its values by metric key; None for built-in scores,
            which are computed together.
    """

    key: str
    label: str
    better: Literal["lower", "higher", ""] = ""
    digits: int = 3
    tier: Literal["A", "B", "C", "D"] = "D"
    group: str = "Scores of this study"
    headline: bool = True
    needs: tuple[str, ...] = ()
    compute: Callable[[Any], Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        for field, known in {"better": ("lower", "higher", ""), "tier": ("A", "B", "C", "D")}.items():
            if getattr(self, field) not in known:
                raise UserError(f"score {self.key!r}: {unknown(field, getattr(self, field), map(repr, known))}")
        for need in self.needs:
            if need not in NEEDS:
                raise UserError(f"score {self.key!r}: {unknown('need', need, NEEDS)}")
        if not re.fullmatch(r"[a-z][\w-]*(/[\w-]*)+", str(self.key), re.ASCII) or not self.label:
            raise UserError(f"a score has a label, and a key such as 'test/sharpness'; got {self.key!r}, {self.label!r}")

    @property
    def images(self) -> str:
        """The images that it is measured on: `test`, `validation` or `train`; empty if none are meant.

        >>> Score(key="elbo/validation", label="ELBO").images, Score(key="perf/step_ms", label="step").images
        ('validation', '')
        """
        return next((part for part in self.key.split("/") if part in ("test", "validation", "train")), "")

    @property
    def name(self) -> str:
        """The key without the images, such as `elbo` for `elbo/validation` and `test/elbo`."""
        return "/".join(part for part in self.key.split("/") if part != self.images)

    @property
    def asked_for(self) -> bool:
        """True if only a trial has it that asks for what it needs."""
        return bool(ASKED_FOR & set(self.needs))

    @property
    def curve(self) -> bool:
        """True if there is a value for every epoch, which is shown as a line."""
        return self.key.endswith(("/train", "/validation"))

    @property
    def timed(self) -> bool:
        """True if it is measured on a clock or in memory, so that what else runs there changes it."""
        return self.key.startswith("perf/")

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1."""
        return 1 if self.better == "higher" else -1

    @property
    def heading(self) -> str:
        """The label with an arrow for the direction that is better."""
        return self.label + {"lower": " ↓", "higher": " ↑", "": ""}[self.better]

    def text(self, value: float) -> str:
        """Return a value with the decimals of this score."""
        return f"{value:,.{self.digits}f}"


Scores = Mapping[str, Score]  # by key


def row_of(key: str, scores: Scores) -> Score | None:
    """Return the row of a metric key, which may be that of its family; None if there is none."""
    return scores.get(key) or scores.get(key.partition("/")[0] + "/")


def in_groups(scores: Scores, *groups: str) -> list[Score]:
    """Return the rows of some sections that are shown where there is room for few, section by section."""
    return [row for group in groups for row in scores.values() if row.group == group and row.headline]


def compared(scores: Scores) -> dict[str, list[Score]]:
    """Return the rows of every section that compares any arms, by section."""
    groups = dict.fromkeys((IMAGES, SAMPLES, CODES, *(row.group for row in scores.values())))
    sections = {group: [row for row in scores.values() if row.group == group] for group in groups if group not in APART}
    return {group: rows for group, rows in sections.items() if rows}


def qualities(scores: Scores) -> list[Score]:
    """Return the rows of validation images by which a search may select: those meant for it, and a study's own."""
    return [
        row
        for row in scores.values()
        if row.images == "validation" and row.better and (row.group in (ELBO_CURVES, SELECTION) or row.compute is not None)
    ]


def costs(scores: Scores) -> list[Score]:
    """Return the rows of cost that a search may have for further objectives and for constraints."""
    return [row for row in scores.values() if row.group == COST and row.better]


def on_test(row: Score, scores: Scores) -> Score:
    """Return the score of the same name on test images; the row itself if there is none."""
    return next((other for other in scores.values() if other.images == "test" and other.name == row.name), row)
