"""Several likelihoods in one program: each lane observes and scores its data by its own. Shapes: S lanes, B images, P pixels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.models.lanes import runs
from harness.models.likelihoods.protocol import Likelihood


@dataclass(frozen=True)
class Lanewise:
    """One likelihood per lane, all with the same number of decoder outputs per pixel.

    It has only those members of `Likelihood` that training uses. Neighbouring lanes of equal likelihoods are computed together.

    Attributes:
        likelihoods: The likelihood of each lane, S of them.
    """

    likelihoods: tuple[Likelihood, ...]

    @property
    def outputs(self) -> int:
        """The number of decoder outputs per pixel, the same in all lanes."""
        return self.likelihoods[0].outputs

    @property
    def shared(self) -> int:
        """The number of learned scalars of every lane: that of the likelihood with the most.

        Scalars that a lane's own likelihood does not use stay at 0.
        """
        return max(of_lane.shared for of_lane in self.likelihoods)

    def observe(self, v: Tensor, u: Tensor) -> Tensor:
        """Return x (S, B, P), the data as each lane sees it, from grey levels v (S, B, P) and noise u (S, B, P)."""
        return torch.cat([likelihood.observe(v[lanes], u[lanes]) for likelihood, lanes in runs(self.likelihoods)])

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return log p(x|z) in nats, summed over pixels, each lane under its own likelihood: (S, B, P) to (S, B)."""
        return torch.cat(
            [
                likelihood.log_prob(x[lanes], *(o[lanes] for o in out[: likelihood.outputs + likelihood.shared]))
                for likelihood, lanes in runs(self.likelihoods)
            ]
        )
