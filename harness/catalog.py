"""Everything that has a name: where it is defined, and the facts that a study is judged by. Torch is not imported here.

To add a likelihood, an activation, a network, a data set, ... to the package, write its definition and a line here; outside of the
package a reference does (`harness.references`), and an installed package may offer names by the entry points `vae_harness`.
"""

import importlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

from harness import references
from harness.arguments import Argument
from harness.errors import UserError, unknown

KINDS = ("pseudo", "pmf", "density")
BINARY = "{0,1}"


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

    @classmethod
    def parse(cls, text: object) -> "Scale":
        """Return the scale that is written as `density on v/255`.

        Raises:
            UserError: it is not written like that.

        >>> Scale.parse("pmf on 0..255")
        Scale(kind='pmf', of='0..255')
        """
        if isinstance(text, cls):
            return text
        match str(text).partition(" on "):
            case ("pseudo" | "pmf" | "density") as kind, _, of if of:
                return cls(kind, of)
        raise UserError(f"scale must be written as 'density on v/255', of the kinds {', '.join(KINDS)}; got {text!r}")


@dataclass(frozen=True)
class Entry:
    """A named thing of the package.

    Attributes:
        target: where it is defined, `module:name`.
        fixed: the arguments by which the name differs from others of the same target.
        arguments: those that a study may set.
    """

    target: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Argument] = field(default_factory=dict)


ON_THE_LINE = Scale("density", "v/255")


@dataclass(frozen=True)
class LikelihoodEntry(Entry):
    """A likelihood. In `scale` a trial's arguments take the place of their names in braces, as by str.format."""

    scale: Scale = ON_THE_LINE


@dataclass(frozen=True)
class NetworkEntry(Entry):
    """A network.

    Attributes:
        hidden: The widths that it has by default; None if the field cannot be given.
        of_lanes: True for a function of `Sizes` that makes all lanes; False for one that makes ordinary modules for one model, as a
            user's does, which are stacked.
        break_even_steps: The steps from which compiling pays on a CPU (docs/log.md): a cold compile takes about 35 s; it saves 2.5
            ms a step of the reference model, and 9 of `conv`. The default is for networks of the user's own too.
    """

    hidden: tuple[int, ...] | None = None
    of_lanes: bool = True
    break_even_steps: int = 15_000


@dataclass(frozen=True)
class ObjectiveEntry(Entry):
    """An objective. `weighs_kl` is False if it has no KL term to weigh, so that beta, kl_warmup and free_bits change nothing."""

    weighs_kl: bool = True


@dataclass(frozen=True, kw_only=True)
class DatasetEntry(Entry):
    """A data set.

    Attributes:
        packaged: the file of an installed package that holds it, if one does.
        train: how many of its published images train. Those that are left out because a later split has them too are counted.
        validation: how many validate, likewise.
    """

    packaged: str = ""
    train: int
    validation: int


_BINARY, _LEVELS, _LOCATION, _LOGISTIC, _MIXTURE = (
    f"harness.models.likelihoods.{module}" for module in ("binary", "levels", "location", "logistic", "mixture")
)
_ACTIVATIONS = "harness.models.activations"

LIKELIHOODS: Mapping[str, LikelihoodEntry] = {
    "bce": LikelihoodEntry(f"{_BINARY}:Bernoulli", {"grey": True}, scale=Scale("pseudo", "grey levels")),
    "bernoulli": LikelihoodEntry(
        f"{_BINARY}:Bernoulli",
        {"grey": False},
        {"binarisation": Argument("dynamic", ("dynamic", "static", "threshold"))},
        Scale("pmf", "{{0,1}}, {binarisation}"),
    ),
    "mse": LikelihoodEntry(f"{_LOCATION}:Gaussian", {"learned": "nothing"}, {"sigma": Argument(1.0)}),
    "gaussian_shared": LikelihoodEntry(f"{_LOCATION}:Gaussian", {"learned": "shared"}),
    "gaussian_per_pixel": LikelihoodEntry(f"{_LOCATION}:Gaussian", {"learned": "pixel"}),
    "continuous_bernoulli": LikelihoodEntry(f"{_BINARY}:ContinuousBernoulli", scale=Scale("density", "(v+u)/256")),
    "laplace": LikelihoodEntry(f"{_LOCATION}:Laplace"),
    "discretized_logistic": LikelihoodEntry(f"{_LOGISTIC}:DiscretizedLogistic", scale=Scale("pmf", "0..255")),
    "logistic_mixture": LikelihoodEntry(
        f"{_MIXTURE}:LogisticMixture",
        arguments={"channels": Argument(1, (1, 3)), "components": Argument(5)},
        scale=Scale("pmf", "0..255"),
    ),
    "beta_binomial": LikelihoodEntry(f"{_LEVELS}:BetaBinomial", scale=Scale("pmf", "0..255")),
    "categorical": LikelihoodEntry(f"{_LEVELS}:Categorical", scale=Scale("pmf", "0..255")),
}
_CONV = "harness.models.networks.convolutions:conv"
_CONVOLUTIONS = {"widths": Argument((16, 32)), "kernel": Argument(4, least=2)}
_MLP = {"norm": Argument(False, later=True), "residual": Argument(False, later=True)}
NETWORKS: Mapping[str, NetworkEntry] = {
    "reference": NetworkEntry("harness.models.networks.mlp:reference"),
    "mlp": NetworkEntry("harness.models.networks.mlp:mlp", hidden=(256, 128), arguments=_MLP),
    "conv": NetworkEntry(_CONV, arguments=_CONVOLUTIONS, of_lanes=False, break_even_steps=4_000),
    "resnet": NetworkEntry(_CONV, arguments={**_CONVOLUTIONS, "blocks": Argument(1)}, of_lanes=False, break_even_steps=4_000),
}
ACTIVATIONS: Mapping[str, Entry] = {
    name: Entry(f"torch.nn.functional:{name}") for name in ("elu", "relu", "leaky_relu", "selu", "gelu", "silu", "mish")
} | {
    "tanh": Entry("torch:tanh"),
    "softplus": Entry("torch.nn.functional:softplus"),
    "sigmoid": Entry("torch:sigmoid"),
    "identity": Entry(f"{_ACTIVATIONS}:identity"),
}
OBJECTIVES: Mapping[str, ObjectiveEntry] = {
    "elbo": ObjectiveEntry("harness.models.objectives:elbo"),
    "iwae": ObjectiveEntry("harness.models.objectives:iwae", weighs_kl=False),
    "dreg": ObjectiveEntry("harness.models.objectives:dreg", weighs_kl=False),
}
DATASETS: Mapping[str, DatasetEntry] = {
    "mnist": DatasetEntry("harness.data.mnist:mnist_family", {"folder": "MNIST"}, train=50_000, validation=10_000),
    "fashion_mnist": DatasetEntry("harness.data.mnist:mnist_family", {"folder": "FashionMNIST"}, train=50_000, validation=10_000),
    "kmnist": DatasetEntry("harness.data.mnist:mnist_family", {"folder": "KMNIST"}, train=50_000, validation=10_000),
    "cifar10": DatasetEntry("harness.data.colour:cifar10", {"folder": "CIFAR10"}, train=40_000, validation=10_000),
    "svhn": DatasetEntry("harness.data.colour:svhn", {"folder": "SVHN"}, train=63_257, validation=10_000),
    "digits": DatasetEntry(
        "harness.data.digits:digits", packaged="sklearn/datasets/data/digits.csv.gz", train=1_197, validation=300
    ),
    "shapes": DatasetEntry(
        "harness.data.shapes:shapes",
        arguments={"channels": Argument(1, (1, 3)), "size": Argument(64, (32, 64))},
        train=4_944,
        validation=600,
    ),
}
# Data files of the user's own, by the word before the colon of `npz:faces.npz` (`harness.references.files`).
DATA_FILES: Mapping[str, Entry] = {
    "npz": Entry("harness.data.arrays:from_npz"),
    "images": Entry("harness.data.pictures:from_pictures", arguments={"resize": Argument(None)}),
    "idx": Entry("harness.data.idx:from_idx"),
}
OPTIMIZERS: Mapping[str, Entry] = {
    "adam": Entry("harness.training.optimizers:Adam"),
    "adamw": Entry("harness.training.optimizers:Adam", {"decoupled": True}),
    "sgd": Entry("harness.training.optimizers:SGD"),
}
SCHEDULES: Mapping[str, Entry] = {
    name: Entry(f"harness.training.schedules:{name}") for name in ("exponential", "constant", "cosine")
}

_DEPTH = "harness.metrics.depth:Depth"
EVALUATIONS: Mapping[str, Entry] = {
    "quick": Entry(
        _DEPTH,
        {"samples": 2, "draws": 100, "images": 200, "exact_images": 100, "other_images": 0, "tolerance": 1e-2, "side": 1.0},
    ),
    "full": Entry(
        _DEPTH, {"samples": 8, "draws": 1_000, "images": 1_000, "exact_images": 10_000, "other_images": 50, "tolerance": 1e-3}
    ),
    "thorough": Entry(
        _DEPTH, {"samples": 8, "draws": 5_000, "images": 1_000, "exact_images": 10_000, "other_images": 500, "tolerance": 1e-3}
    ),
}

# The fields of a trial that take a name: the entries, and whether a reference will do too.
TABLES: Mapping[str, tuple[Mapping[str, Entry], bool]] = {
    "dataset": (DATASETS, True),
    "likelihood": (LIKELIHOODS, True),
    "network": (NETWORKS, True),
    "activation": (ACTIVATIONS, True),
    "objective": (OBJECTIVES, True),
    "optimizer": (OPTIMIZERS, False),
    "learning_rate_schedule": (SCHEDULES, False),
}
# Those that take one of a few words.
WORDS: Mapping[str, tuple[str, ...]] = {
    "fit_on": ("train", "train+validation"),
    "precision": ("fp32", "tf32", "bf16"),
    "evaluation": ("validation", *EVALUATIONS),
}
FILES: Mapping[str, Mapping[str, Entry]] = {"dataset": DATA_FILES}  # the fields that take data files
# The fields that hold the arguments of what another field names.
ARGUMENTS = {"dataset_args": "dataset", "likelihood_args": "likelihood", "network_args": "network"}


def names(kind: str) -> tuple[str, ...]:
    """Return the names that a field of a trial takes: of the package, then those that installed packages offer."""
    if kind in WORDS:
        return WORDS[kind]
    table, open_ = TABLES[kind]
    return (*table, *(references.offered(kind) if open_ else ()))


def pinned(kind: str, given: Any) -> str:
    """Return a name as a spec keeps it: that of an entry as it is, a reference (or a class, or an offered name) with its digest.

    The name of data files has the digest of their bytes.

    Raises:
        UserError: neither an entry nor a reference nor a file that can be found.
    """
    table, open_ = TABLES[kind]
    if isinstance(given, str) and takes_file(kind, given):
        return given if references.is_pinned(given) else references.pin_file(given)
    if isinstance(given, str) and (given in table or (open_ and references.is_pinned(given))):
        return given
    if open_ and isinstance(given, str) and not references.is_reference(given):
        given = references.offered(kind).get(given, given)
    if open_ and (callable(given) or (isinstance(given, str) and references.is_reference(given))):
        return references.pin(given)
    fault = unknown(kind, given, names(kind))
    if open_ and isinstance(given, str) and re.search(r"[./]", given):
        forms = "".join(f", {what} as '{form}:...'" for form, what in references.FORMS_IN_WORDS.items()) if kind in FILES else ""
        raise UserError(f"{fault}\none of your own is named as 'file.py:Name'{forms}")
    raise fault


def takes_file(kind: str, name: str) -> bool:
    """Return whether a name is that of data files, and for a field that takes them."""
    return kind in FILES and references.is_file(name)


def pinned_in(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return some fields of a trial with the names in them as a spec keeps them; those that cannot be found stay as they are."""
    kept = dict(fields)
    for kind in TABLES.keys() & kept.keys():
        with suppress(UserError):  # whoever makes a trial of these fields says it
            kept[kind] = pinned(kind, kept[kind])
    return kept


def entry(kind: str, name: str) -> Entry | None:
    """Return the entry of a name; None if it is a reference. That of data files is the one of their form."""
    return FILES[kind][name.partition(":")[0]] if takes_file(kind, name) else TABLES[kind][0].get(name)


def load(entry: Entry) -> Any:
    """Return the object that an entry is the name of, which imports its module."""
    module, _, attribute = entry.target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def find(kind: str, name: str) -> Any:
    """Return what a field of a trial names: an entry's object, with the entry's arguments fixed if it has any, or a reference's.

    Raises:
        UserError: a reference whose code cannot be imported.
    """
    of = entry(kind, name)
    if of is None:
        return references.resolve(name)
    return partial(load(of), **of.fixed) if of.fixed else load(of)
