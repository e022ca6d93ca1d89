"""The contract of a score."""

from typing import Any

import torch

from harness import references
from harness.data import load_dataset
from harness.metrics.own import Trained, measured
from harness.models.vae import build
from harness.scores import Score
from harness.spec import TrialSpec
from harness.testing.rules import Contract

UNTRAINED = TrialSpec(dataset="digits", network="mlp", hidden=(16,), latent=3)


def check_score(given: Any) -> None:
    """Raise an error if a score breaks its contract.

    It is a `harness.Score` whose `compute` takes a `harness.Trained` and returns finite numbers by key, its own key among them, the
    same each time. It is tried on a model of the digits that has not been trained.

    Args:
        given: A reference, or the score.

    Raises:
        ContractError: The rule that it breaks first.
        UserError: What `compute` returns is no mapping of finite numbers.
    """
    row, name = given, given.key if isinstance(given, Score) else references.label(given)
    if isinstance(given, str):
        row = references.resolve(given if references.is_pinned(given) else references.pin(given))
    contract = Contract(name, "score")
    if not isinstance(row, Score) or row.compute is None:
        contract.broken("it must be a harness.Score with compute=", repr(row), "Score(key=..., label=..., compute=function)")
    data = load_dataset(UNTRAINED.dataset, say=lambda _: None)
    vae = build(UNTRAINED, data.side**2)
    vae.reset(0, torch.Generator().manual_seed(0))
    before = [p.detach().clone() for p in vae.parameters()]
    trained = Trained(UNTRAINED, vae, data)
    with contract.calling("compute"):
        values = measured(row, name, trained)
    if values != measured(row, name, trained):
        contract.broken("compute must give the same twice", "two values", "give torch.Generator().manual_seed(0) to all draws")
    if not all(map(torch.equal, before, vae.parameters())):
        contract.broken("compute must leave the model as it is", "changed weights", "train nothing in it, or a copy")
