"""The contract of a score."""

import math
from typing import Any

import torch

from harness import references
from harness.data import Data, Split
from harness.metrics.own import Trained, measured, meets
from harness.models.vae import build
from harness.scores import Score
from harness.spec import TrialSpec
from harness.testing.rules import Contract

UNTRAINED = TrialSpec(dataset="digits", network="mlp", hidden=(16,))
IMAGES = 60  # of each split


def check_score(given: Any, /, *, image_shape: tuple[int, int, int] = (1, 8, 8), latent: int = 2, labelled: bool = True) -> None:
    """Raise an error if a score breaks its contract.

    It is a `harness.Score` whose `compute` takes a `harness.Trained` and returns finite numbers by key, its own key among them, the
    same each time. It is tried on a model that has not been trained, of made-up images.

    Args:
        given: A reference, or the score.
        image_shape: Channels, height and width of the images.
        latent: The latents of the model.
        labelled: Whether the images have labels.

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
    spec, data = UNTRAINED.derive(latent=latent), _made_up(image_shape, labelled=labelled)
    vae = build(spec, image_shape)
    vae.reset(0, torch.Generator().manual_seed(0))
    before = [p.detach().clone() for p in vae.parameters()]
    trained = Trained(spec, vae, data)
    if not meets(row, trained):
        return
    with contract.calling("compute"):
        values = measured(row, name, trained)
    if values != measured(row, name, trained):
        contract.broken("compute must give the same twice", "two values", "give torch.Generator().manual_seed(0) to all draws")
    if not all(map(torch.equal, before, vae.parameters())):
        contract.broken("compute must leave the model as it is", "changed weights", "train nothing in it, or a copy")


def _made_up(image_shape: tuple[int, int, int], *, labelled: bool) -> Data:
    """Return a data set of random images, in ten classes if they have labels."""
    generator = torch.Generator().manual_seed(0)

    def split(name: str) -> Split:
        levels = torch.randint(256, (IMAGES, math.prod(image_shape)), generator=generator, dtype=torch.uint8)
        return Split(name, levels, torch.arange(IMAGES) % 10 if labelled else None)

    train, validation, test = map(split, ("train", "validation", "test"))
    return Data(name="made_up", image_shape=image_shape, train=train, validation=validation, test=test, digest="")
