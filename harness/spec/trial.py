"""What goes into a trial and what comes out of it, as data. It does not import torch, so that a typo is reported at once."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

from harness import catalog, references
from harness.catalog import Scale
from harness.errors import UserError, listed, shown, unknown
from harness.spec.arguments import NO_ARGUMENTS
from harness.spec.checks import REAL_FIELDS, arguments_of, faults_of

LANE = {"lane": True}  # metadata of lane fields
LATER = {"later": True}  # metadata of fields that were added when ids were already in use


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One training run, completely specified: equal specs give equal runs.

    Structure fields determine the program (shapes, operations, number of steps). Lane fields reach the step as tensors with one
    value per lane, so that trials which differ only in them train together.

    Structure:
        dataset, dataset_args, fit_on: which images, with the arguments of a data set that takes some, and whether to fit on the
            training images (MNIST: 50k) or on them and the validation images (10k; to compare with published numbers; nothing may
            then be selected on validation).
        likelihood, likelihood_args: the reconstruction loss, and its arguments: `sigma` of `mse` (1 by default), `binarisation` of
            `bernoulli` (`dynamic`, `static` or `threshold`).
        network, network_args, hidden, activation, latent: `hidden` gives the encoder's widths (the decoder mirrors them), of
            networks that have them, such as `mlp`.
        batch_size, epochs, optimizer: images per step (the last, smaller batch is kept) and passes over the data.
        objective, num_samples: what is maximised, and how many z it draws per image: `elbo` (averaged over the draws), `iwae`
            (Burda et al., 2016, https://arxiv.org/abs/1509.00519) or `dreg`, the same bound with the encoder's gradient of
            Tucker et al. (2019, https://arxiv.org/abs/1810.04152).
        precision: of the products in training: `fp32` in full, `tf32` (19 bits; a GPU's tensor cores) or `bf16` (16 bits;
            parameters, moments, likelihood and all scores stay in fp32). It is refused on a device that has no use for it.
        metrics: scores of the user's own, references to `harness.Score`s, that are computed with the final ones.
        evaluation: how deep the final scores go (docs/science.md): `validation` alone (a search, which must not see the test set),
            or with the test set: `quick`, `full` or `thorough`, which take seconds, under a minute, or minutes per trial.

    dataset, likelihood, network, activation and objective are names of the package (`harness.catalog`) or references to code of
    the user's own (`harness.references`): `losses.py:StudentT`, `my_package.losses:StudentT`, or the class or function itself. A
    reference is kept with the digest of its code, so other code is another trial. A data set may also be files, `npz:faces.npz`,
    `images:folder/` or `idx:folder/`, which are kept with the digest of their bytes.

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
        clip_norm: the norm of all gradients together to which larger ones are scaled down (Pascanu et al., 2013,
            https://arxiv.org/abs/1211.5063); 0 for never.
        ema_decay: per step, of an exponential moving average of the weights, which is scored beside them (`ema/...`): 0.999 for a
            mean over about 1,000 steps, 1 for that of all (Polyak & Juditsky, 1992, https://doi.org/10.1137/0330046), 0 for none.
        patience: epochs without a better ELBO of the validation images (beta = 1) after which a trial ends; its model is that of
            the best epoch. 0 for never, and the model of the last epoch. `epochs` is then the most that a trial takes.

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
    dataset_args: Mapping[str, Any] = field(default=NO_ARGUMENTS, metadata=LATER)
    fit_on: str = "train"
    likelihood: str = "bce"
    likelihood_args: Mapping[str, Any] = NO_ARGUMENTS
    network: str = "reference"
    network_args: Mapping[str, Any] = NO_ARGUMENTS
    hidden: tuple[int, ...] | None = None
    activation: str = "elu"
    latent: int = 2
    batch_size: int = 128
    epochs: int = 50
    optimizer: str = "adam"
    objective: str = "elbo"
    num_samples: int = 1
    precision: str = "fp32"
    evaluation: str = "quick"
    metrics: tuple[str, ...] = ()
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
    clip_norm: float = field(default=0.0, metadata=LANE | LATER)
    ema_decay: float = field(default=0.0, metadata=LANE | LATER)
    patience: int = field(default=0, metadata=LANE | LATER)

    def __post_init__(self) -> None:
        faults = []
        for name in catalog.TABLES:
            faults += self._pin(name)
        for name in catalog.ARGUMENTS:
            arguments, wrong = arguments_of(self, name)
            self._set(name, arguments)
            faults += wrong
        network = catalog.entry("network", self.network) if isinstance(self.network, str) else None
        if self.hidden is None and isinstance(network, catalog.NetworkEntry):
            self._set("hidden", network.hidden)
        if isinstance(self.hidden, list):
            self._set("hidden", tuple(self.hidden))
        for name in REAL_FIELDS:  # 1 and 1.0 are equal and must give equal ids, but their JSON texts differ
            value = getattr(self, name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                with suppress(OverflowError):  # 10**400, which stays as it is and is refused
                    self._set(name, float(value))
        faults += self._pin_metrics() + faults_of(self)
        if faults:
            raise UserError(listed(faults))

    def _set(self, name: str, value: Any) -> None:
        """Set a field while the spec is made."""
        object.__setattr__(self, name, value)

    def _pin(self, name: str) -> list[str]:
        """Pin the reference in a field, if it is one. Return what is wrong with it."""
        try:
            self._set(name, catalog.pinned(name, getattr(self, name)))
        except UserError as fault:
            return [str(fault)]
        return []

    def _pin_metrics(self) -> list[str]:
        """Pin the references of the user's own scores. Return what is wrong with them."""
        if isinstance(self.metrics, str) or not isinstance(self.metrics, list | tuple):
            return [f"metrics must be a tuple of references, such as ('sharpness.py:SHARPNESS',), got {shown(self.metrics)}"]
        try:
            pinned = [m if isinstance(m, str) and references.is_pinned(m) else references.pin(m) for m in self.metrics]
            self._set("metrics", tuple(dict.fromkeys(pinned)))
        except UserError as fault:
            return [str(fault)]
        return []

    @property
    def scale(self) -> Scale:
        """The scale of the native objective: its kind, and the data that it is a probability of. A user's is imported."""
        entry = catalog.LIKELIHOODS.get(self.likelihood)
        if entry is None:
            try:
                return Scale.parse(getattr(catalog.find("likelihood", self.likelihood), "scale", None))
            except UserError as fault:
                raise UserError(f"likelihood {references.label(self.likelihood)}: {fault}") from None
        return entry.scale._replace(of=entry.scale.of.format(**self.likelihood_args))

    @property
    def has_grey_pmf(self) -> bool:
        """True if the likelihood is a probability of grey levels 0..255, so that it has bits/dim of its own (tier B)."""
        if self.likelihood not in catalog.LIKELIHOODS:
            return callable(getattr(catalog.find("likelihood", self.likelihood), "log_pmf", None))
        return self.scale.kind != "pseudo" and not self.scale.of.startswith(catalog.BINARY)

    @property
    def references(self) -> tuple[str, ...]:
        """The references to code and data files of the user's own, in all fields."""
        named = [getattr(self, name) for name in catalog.TABLES]
        return tuple(name for name in (*named, *self.metrics) if references.is_reference(name) or references.is_file(name))

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        values: dict[str, Any] = json.loads(json.dumps({name: getattr(self, name) for name in FIELDS}, default=dict))
        return values

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the spec with the code that it refers to, so that another process or machine has both, and where its data lie."""
        values, named = {name: getattr(self, name) for name in FIELDS}, self.references
        return _restored, (values, references.sources_of(named), references.places_of(named))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrialSpec":
        """Return the spec that `as_dict` gave these values.

        Raises:
            UserError: an unknown field, with the nearest known name, a wrong value, or no mapping at all.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"the fields of a trial are a mapping of names to values, got {shown(values)}")
        return cls().derive(**values)

    def derive(self, **changes: Any) -> "TrialSpec":
        """Return this spec with some fields changed.

        `likelihood_args.sigma` is the argument of this name alone. Arguments do not outlive the thing that they are for: another
        likelihood or network starts from its own defaults, and one of the package that takes no widths drops `hidden`.

        Raises:
            UserError: an unknown field, with the nearest known name, or a wrong value. The message lists all errors at once.
        """
        faults = [str(unknown("field of a trial", name, FIELDS)) for name in changes if name.partition(".")[0] not in FIELDS]
        values = catalog.pinned_in({name: value for name, value in changes.items() if name in FIELDS})
        for name, of in catalog.ARGUMENTS.items():
            if of in values and name not in values and not (isinstance(values[of], str) and values[of] == getattr(self, of)):
                values[name] = {}
        network = catalog.NETWORKS.get(values["network"]) if isinstance(values.get("network"), str) else None
        if network is not None and network.hidden is None and "hidden" not in values:
            values["hidden"] = None
        for name, value in changes.items():
            outer, _, inner = name.partition(".")
            if inner and outer in catalog.ARGUMENTS:
                whole = values.get(outer, getattr(self, outer))
                values[outer] = {**whole, inner: value} if isinstance(whole, Mapping) else whole
            elif inner and outer in FIELDS:
                faults.append(f"{outer} has no parts, got {shown(name)}; those that have are {', '.join(catalog.ARGUMENTS)}")
        try:
            derived = replace(self, **values)
        except UserError as fault:
            raise UserError("\n".join([*faults, str(fault)])) from None
        if faults:
            raise UserError("\n".join(faults))
        return derived

    @property
    def identity(self) -> dict[str, Any]:
        """The values that the id is a digest of: all fields as JSON values, except later additions that are at their default."""
        defaults_of_later_fields = {f.name: f.default for f in fields(self) if f.metadata.get("later")}
        values = {
            name: value
            for name, value in self.as_dict().items()
            if name not in defaults_of_later_fields or value != defaults_of_later_fields[name]
        }
        for name, of in catalog.ARGUMENTS.items():
            entry = catalog.entry(of, getattr(self, of))
            for argument, known in entry.arguments.items() if entry else ():
                if known.later and values[name][argument] == known.default:
                    del values[name][argument]
        return values

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
        likelihood, if these agree in what the program must know of them (`harness.models.vae.mixable`).
        """
        return replace(self.cohort, activation="identity", likelihood="bce", likelihood_args=NO_ARGUMENTS)


def _restored(values: Mapping[str, Any], sources: tuple[references.Source, ...], places: Mapping[str, str]) -> TrialSpec:
    """Return a spec that was pickled, and take in the code and the places of data that came with it."""
    references.adopt(sources)
    references.adopt_places(places)
    return TrialSpec(**values)


FIELDS = tuple(f.name for f in fields(TrialSpec))
