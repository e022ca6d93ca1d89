"""The contracts of all that some trials refer to, checked before they train, once for each state of the code."""

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from harness import catalog, paths, provenance, references
from harness.data import Data
from harness.errors import UserError
from harness.models.vae import likelihood_of
from harness.spec import TrialSpec, check_fit, other_channels
from harness.testing.datasets import check_dataset
from harness.testing.functions import check_activation, check_objective
from harness.testing.likelihoods import check_likelihood
from harness.testing.networks import check_network
from harness.testing.scores import check_score

CHECKS: dict[str, Callable[..., None]] = {
    "dataset": check_dataset,
    "likelihood": check_likelihood,
    "network": check_network,
    "activation": check_activation,
    "objective": check_objective,
    "metrics": check_score,
}
ARGUMENTS = {of: name for name, of in catalog.ARGUMENTS.items()}
WORDS = {"metrics": "score"}  # for messages


def check_trials(specs: Iterable[TrialSpec], data: Data, say: Callable[[str], None] = print) -> None:
    """Raise an error if something of the user's own that these trials refer to breaks its contract, or does not fit the data.

    What has passed is noted in mlruns/checked by the digest of its code and of the harness's, and not checked again.

    Args:
        specs: The trials.
        data: Their data set.
        say: Takes a line for each thing that is checked.

    Raises:
        ContractError: The rule that is broken first.
        UserError: A reference that cannot be imported, a likelihood for images of other channels, or a batch of more images than
            there are.
    """
    specs = list(specs)
    check_fit(specs, data.images_to_fit, data.image_shape[0])
    things: dict[tuple[str, str, str], dict[str, Any]] = {}
    for spec in specs:
        own = [(kind, getattr(spec, kind)) for kind in catalog.TABLES if kind in CHECKS]
        for kind, name in (*own, *(("metrics", metric) for metric in spec.metrics)):
            if references.is_reference(name):
                arguments = dict(getattr(spec, ARGUMENTS[kind])) if kind in ARGUMENTS else {}
                if kind == "network":
                    arguments |= {"image_shape": data.image_shape, "latent": spec.latent}
                    arguments |= {"hidden": spec.hidden, "activation": spec.activation}
                if kind == "metrics":
                    labelled = data.train.labels is not None
                    arguments |= {"image_shape": data.image_shape, "latent": spec.latent, "labelled": labelled}
                things[kind, name, json.dumps(arguments, sort_keys=True, default=dict)] = arguments
    for (kind, name, words), arguments in things.items():
        key = hashlib.sha256(f"{kind} {name} {words} {provenance.code()}".encode()).hexdigest()[:16]
        passed = paths.mlruns() / "checked" / key
        if not passed.exists():
            say(f"checking the {WORDS.get(kind, kind)} {references.label(name)}")
            CHECKS[kind](name, **arguments)
            passed.parent.mkdir(parents=True, exist_ok=True)
            passed.write_text(f"{kind} {name} {words}\n", encoding="utf-8")
    for spec in specs:
        if fault := other_channels(spec, likelihood_of(spec).channels, data.image_shape[0]):
            raise UserError(fault)
