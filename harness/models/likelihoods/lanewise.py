"""Several likelihoods in one program: every lane is observed and scored by its own. Shapes: S lanes, B images, P pixels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.models.lanes import runs
from harness.models.likelihoods.protocol import Likelihood


@dataclass(frozen=True)
class Lanewise:
    """One likelihood per lane, all with the same number of outputs per pixel; only what training asks for.

    Lanes of a likelihood that stand side by side are computed together.
    """

    of: tuple[Likelihood, ...]

    @property
    def params(self) -> int:
        """Outputs of the decoder per pixel, alike in all lanes."""
        return self.of[0].params

    @property
    def shared(self) -> int:
        """Learned scalars kept for every lane: as many as the likelihood with the most has. Those of others stay at 0."""
        return max(one.shared for one in self.of)

    @property
    def noisy(self) -> bool:
        """Whether any lane's `observe` consumes noise."""
        return any(one.noisy for one in self.of)

    def observe(self, v: Tensor, u: Tensor) -> Tensor:
        """Grey levels v (S, B, P) and noise u to x (S, B, P), as each lane sees them."""
        return torch.cat([one.observe(v[at], u[at]) for one, at in runs(self.of)])

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """log p(x|z) in nats, each lane under its own likelihood: (S, B, P) to (S, B)."""
        return torch.cat([one.log_prob(x[at], *(o[at] for o in out[: one.params + one.shared])) for one, at in runs(self.of)])
