"""What goes into a trial and what comes out of it, as data. It does not import torch, so that a typo is reported at once."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

from harness.errors import UserError, unknown

LANE = {"lane": True}  # metadata of lane fields
LATER = {"later": True}  # metadata of fields that were added when ids were already in use

REAL_FIELDS = (
    "learning_rate",
    "beta",
    "weight_decay",
    "kl_warmup",
    "kl_cycle",
    "free_bits",
    "learning_rate_decay",
    "learning_rate_warmup",
)


class Scale(NamedTuple):
    """The scale of a likelihood's native objective. Only values on equal scales may be ranked against each other.

    Attributes:
        kind: `pmf` or `density`; `pseudo` if the objective is no likelihood of the data at all.
        of: the values that it is a probability of.
    """

    kind: Literal["pseudo", "pmf", "density"]
    of: str

    def __str__(self) -> str:
        return f"{self.kind} on {self.of}"


# The names that a study may use, so that they are known without importing torch. Tests hold them equal to the tables that
# implement them.
LIKELIHOOD_SCALES: Mapping[str, Scale] = {
    "bce": Scale("pseudo", "grey levels"),
    "bernoulli": Scale("pmf", "{0,1}"),
    "mse": Scale("density", "v/255"),
    "gaussian_shared": Scale("density", "v/255"),
    "gaussian_per_pixel": Scale("density", "v/255"),
    "continuous_bernoulli": Scale("density", "(v+u)/256"),
    "laplace": Scale("density", "v/255"),
    "discretized_logistic": Scale("pmf", "0..255"),
    "beta_binomial": Scale("pmf", "0..255"),
    "categorical": Scale("pmf", "0..255"),
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "dataset": ("mnist", "fashion_mnist", "kmnist", "digits"),
    "fit_on": ("train", "train+validation"),
    "likelihood": tuple(LIKELIHOOD_SCALES),
    "binarisation": ("dynamic", "static", "threshold"),
    "network": ("reference", "mlp"),
    "activation": (
        "elu",
        "relu",
        "leaky_relu",
        "selu",
        "gelu",
        "silu",
        "mish",
        "tanh",
        "softplus",
        "sigmoid",
        "identity",
    ),
    "optimizer": ("adam", "adamw", "sgd"),
    "learning_rate_schedule": ("exponential", "constant", "cosine"),
    "objective": ("elbo", "iwae", "dreg"),
    "precision": ("fp32", "tf32", "bf16"),
    "evaluation": ("validation", "quick", "full", "thorough"),
}


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One training run, completely specified: equal specs give equal runs.

    Structure fields determine the program (shapes, operations, number of steps). Lane fields reach the step as tensors with one
    value per lane, so that trials which differ only in them train together.

    Structure:
        dataset, fit_on: which images, and whether to fit on the 50k training images or on them and the 10k validation
            images (to compare with published numbers; nothing may then be selected on validation).
        likelihood, binarisation: the reconstruction loss; binarisation (`dynamic` by default) is for `bernoulli` only.
        network, hidden, activation, latent: `hidden` gives the encoder's widths (the decoder mirrors them), `mlp` only.
        sigma: the fixed noise of `mse`, 1 by default.
        batch_size, epochs, optimizer: images per step (the last, smaller batch is kept) and passes over the data.
        objective, num_samples: what is maximised, and how many z it draws per image: `elbo` (averaged over the draws), `iwae`
            (Burda et al., 2016, https://arxiv.org/abs/1509.00519) or `dreg`, the same bound with the encoder's gradient of
            Tucker et al. (2019, https://arxiv.org/abs/1810.04152).
        precision: of the products in training: `fp32` in full, `tf32` (19 bits; a GPU's tensor cores) or `bf16` (16 bits;
            parameters, moments, likelihood and all scores stay in fp32). It is refused on a device that has no use for it.
        evaluation: how deep the final scores go (docs/science.md): `validation` alone (a search, which must not see the test set),
            or with the test set: `quick`, `full` or `thorough`, which take seconds, under a minute, or minutes per trial.

    Lane:
        seed: the only source of randomness: initial weights, order, noise.
        learning_rate, learning_rate_decay: the rate of the first epoch, and that of the last epoch as a fraction of it (0.1 is the
            schedule of Burda et al., 2016).
        learning_rate_schedule: how the rate falls: `exponential`, evenly in its logarithm from epoch to epoch; `cosine`, from step
            to step along half a cosine (Loshchilov & Hutter, 2017, https://arxiv.org/abs/1608.03983); or `constant`, not at all.
        learning_rate_warmup: epochs over which a factor on the rate rises linearly from 0 to 1.
        weight_decay: of the optimizer. `adam` adds the decay to the gradient as torch.optim.Adam does,
            `adamw` decouples it (Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101).
        beta: the weight of the KL in the objective; 1 is the ELBO.
        kl_warmup: epochs over which the weight of the KL rises linearly from 0 to beta.
        kl_cycle: epochs after which that rise starts again (Fu et al., 2019, https://arxiv.org/abs/1903.10145); 0 for never.
        free_bits: nats per latent below which its KL, averaged over the batch, costs nothing more (Kingma et al., 2016,
            https://arxiv.org/abs/1606.04934).

    Raises:
        UserError: a name that no table holds, or a value out of range. The message lists all errors at once.

    >>> TrialSpec(seed=1).cohort == TrialSpec(seed=2, learning_rate=0.1).cohort
    True
    >>> TrialSpec(activation="rleu")
    Traceback (most recent call last):
    ...
    harness.errors.UserError: unknown activation 'rleu'; did you mean 'relu'?
    known: elu, relu, leaky_relu, selu, gelu, silu, mish, tanh, softplus, sigmoid, identity
    """

    dataset: str = "mnist"
    fit_on: str = "train"
    likelihood: str = "bce"
    binarisation: str | None = None
    network: str = "reference"
    hidden: tuple[int, ...] | None = None
    sigma: float | None = None
    activation: str = "elu"
    latent: int = 2
    batch_size: int = 128
    epochs: int = 50
    optimizer: str = "adam"
    objective: str = "elbo"
    num_samples: int = 1
    precision: str = "fp32"
    evaluation: str = "quick"
    seed: int = field(default=0, metadata=LANE)
    learning_rate: float = field(default=3e-4, metadata=LANE)
    learning_rate_decay: float = field(default=1.0, metadata=LANE)
    learning_rate_schedule: str = field(default="exponential", metadata=LANE | LATER)
    learning_rate_warmup: float = field(default=0.0, metadata=LANE | LATER)
    beta: float = field(default=1.0, metadata=LANE)
    weight_decay: float = field(default=0.0, metadata=LANE)
    kl_warmup: float = field(default=0.0, metadata=LANE)
    kl_cycle: float = field(default=0.0, metadata=LANE)
    free_bits: float = field(default=0.0, metadata=LANE)

    def __post_init__(self) -> None:
        if self.likelihood == "bernoulli" and self.binarisation is None:
            object.__setattr__(self, "binarisation", "dynamic")
        if self.network == "mlp" and self.hidden is None:
            object.__setattr__(self, "hidden", (256, 128))
        if self.likelihood == "mse" and self.sigma is None:
            object.__setattr__(self, "sigma", 1.0)
        if isinstance(self.hidden, list):
            object.__setattr__(self, "hidden", tuple(self.hidden))
        for name in (*REAL_FIELDS, "sigma"):  # 1 and 1.0 are equal and must give equal ids, but their JSON texts differ
            value = getattr(self, name)
            if isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, name, float(value))
        faults = self._faults()
        if faults:
            raise UserError("\n".join(faults))

    def _faults(self) -> list[str]:
        """Return a message for every field that is wrong, alone or beside the others."""
        faults = []
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known and not (name == "binarisation" and value is None):
                faults.append(str(unknown(name, value, known)))
        for name, low in {"latent": 1, "batch_size": 1, "epochs": 1, "seed": 0, "num_samples": 1}.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 2**31:
                faults.append(f"{name} must be a whole number from {low} to 2**31 - 1, got {value!r}")
        for name in REAL_FIELDS:
            value = getattr(self, name)
            positive = name in ("learning_rate", "learning_rate_decay")
            if not _is_number(value) or value < 0 or (positive and value == 0):
                faults.append(f"{name} must be a finite number {'above' if positive else 'of at least'} 0, got {value!r}")
        if self.binarisation is not None and self.likelihood != "bernoulli":
            faults.append(f"binarisation={self.binarisation!r} is for the likelihood 'bernoulli', got {self.likelihood!r}")
        if self.sigma is not None and self.likelihood != "mse":
            faults.append(f"sigma={self.sigma!r} is for the likelihood 'mse', got {self.likelihood!r}")
        elif self.sigma is not None and not (_is_number(self.sigma) and self.sigma > 0):
            faults.append(f"sigma must be a finite number above 0, got {self.sigma!r}")
        if self.evaluation == "validation" and self.fit_on != "train":
            faults.append(f"evaluation='validation' takes fit_on='train', or nothing is left to validate on; got {self.fit_on!r}")
        if self.network != "mlp" and self.hidden is not None:
            faults.append(f"hidden={self.hidden!r} is for the network 'mlp', got {self.network!r}")
        if self.hidden is not None and not _are_widths(self.hidden):
            faults.append(f"hidden must be a tuple of widths of at least 1, got {self.hidden!r}")
        if self.learning_rate_schedule == "constant" and self.learning_rate_decay != 1:
            faults.append(f"learning_rate_decay={self.learning_rate_decay!r} is for a schedule that falls, got 'constant'")
        if self.learning_rate_schedule == "cosine" and self.learning_rate_decay == 1:
            faults.append("the schedule 'cosine' falls to learning_rate_decay times the first rate: give it below 1, such as 0.01")
        if self.objective in ("iwae", "dreg"):
            for name, neutral in {"beta": 1, "kl_warmup": 0, "free_bits": 0}.items():
                if getattr(self, name) != neutral:
                    faults.append(f"{name}={getattr(self, name)!r} is for the objective 'elbo', got {self.objective!r}")
        numbers = _is_number(self.kl_cycle) and _is_number(self.kl_warmup)
        if numbers and self.kl_cycle > 0 and not 0 < self.kl_warmup <= self.kl_cycle:
            faults.append(f"kl_cycle={self.kl_cycle!r} takes a kl_warmup above 0 and no longer than itself, got {self.kl_warmup!r}")
        return faults

    @property
    def scale(self) -> Scale:
        """The scale of the native objective: its kind, and the data that it is a probability of."""
        scale = LIKELIHOOD_SCALES[self.likelihood]
        return scale._replace(of=f"{{0,1}}, {self.binarisation}") if self.binarisation else scale

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrialSpec":
        """Return the spec that `as_dict` gave these values.

        Raises:
            UserError: an unknown field, with the nearest known name, or a wrong value.
        """
        return cls().derive(**values)

    def derive(self, **changes: Any) -> "TrialSpec":
        """Return this spec with some fields changed.

        Raises:
            UserError: an unknown field, with the nearest known name, or a wrong value.
        """
        for name in changes:
            if name not in FIELDS:
                raise unknown("field of a trial", name, FIELDS)
        return replace(self, **changes)

    @property
    def has_grey_pmf(self) -> bool:
        """True if the likelihood is a probability of grey levels 0..255, so that it has bits/dim of its own (tier B)."""
        scale = LIKELIHOOD_SCALES[self.likelihood]
        return scale.kind != "pseudo" and scale.of != "{0,1}"

    @property
    def identity(self) -> dict[str, Any]:
        """The values that the id is a digest of: all fields as JSON values, except later additions that are at their default."""
        defaults_of_later_fields = {f.name: f.default for f in fields(self) if f.metadata.get("later")}
        return {
            name: value
            for name, value in self.as_dict().items()
            if name not in defaults_of_later_fields or value != defaults_of_later_fields[name]
        }

    @property
    def id(self) -> str:
        """The first 12 hexadecimal digits of a digest of the content: equal specs have equal ids on every machine."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def cohort(self) -> "TrialSpec":
        """This spec with its lane fields at their defaults: specs with equal cohorts run the same program and train together."""
        lane_defaults: dict[str, Any] = {f.name: f.default for f in fields(self) if f.metadata.get("lane")}
        return replace(self, **lane_defaults)

    @property
    def mixed(self) -> "TrialSpec":
        """`cohort` with the activation and the likelihood set to neutral ones too.

        Specs of which this is equal can share the matrix products of one program, in which each lane keeps its own activation and
        likelihood, if their decoders have one width (`harness.models.vae.mixable`).
        """
        static = self.binarisation == "static"
        neutral = {"likelihood": "bernoulli", "binarisation": "static"} if static else {"likelihood": "bce", "binarisation": None}
        return replace(self.cohort, activation="elu", sigma=None, **neutral)


def _is_number(value: object) -> bool:
    """Return whether this is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_widths(hidden: object) -> bool:
    """Return whether this is a tuple of one or more whole numbers of at least 1."""
    return isinstance(hidden, tuple) and len(hidden) > 0 and all(type(w) is int and w >= 1 for w in hidden)


def flattened(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the fields of a trial as parameters: those of nested mappings by dotted names, without those that are None.

    >>> flattened({"latent": 2, "hidden": None, "likelihood_args": {"sigma": 0.5}})
    {'latent': 2, 'likelihood_args.sigma': 0.5}
    """
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        elif value is not None:
            flat[prefix + name] = value
    return flat


FIELDS = tuple(f.name for f in fields(TrialSpec))


@dataclass(frozen=True)
class Result:
    """The result of a finished trial.

    Attributes:
        spec: the trial.
        metrics: its scores by metric key.
    """

    spec: TrialSpec
    metrics: Mapping[str, float]
