"""Compare variational autoencoders by reconstruction loss, activation or any other field of a trial, with trustworthy numbers.

    model = harness.train(harness.TrialSpec(latent=2, epochs=5))
    mean, log_var = model.encode(images)
    harness.load("loss_ablation", arm="bce", seed=0).sample(16)
    harness.frame("loss_ablation")

Names are loaded on first use, so that `import harness` is immediate and a specification or a study needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import Model, frame, load, train
    from harness.metrics import Trained
    from harness.scores import Score
    from harness.spec import TrialSpec
    from harness.study import Ablation, Budget, Hypothesis, Search

__all__ = ["Ablation", "Budget", "Hypothesis", "Model", "Score", "Search", "Trained", "TrialSpec", "frame", "load", "train"]

_ELSEWHERE = {"Score": "scores", "Trained": "metrics", "TrialSpec": "spec"} | dict.fromkeys(
    ("Model", "frame", "load", "train"), "api"
)


def __getattr__(name: str) -> Any:
    """Return a public name, from the module that defines it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"harness.{_ELSEWHERE.get(name, 'study')}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
