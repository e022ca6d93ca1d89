"""The contracts of activations and objectives. Shapes: S lanes, L draws, B images, Z latents."""

from typing import Any

import torch
from torch import Tensor

from harness import catalog
from harness.models.activations import gain
from harness.models.vae import Pass
from harness.spec import TrialSpec
from harness.testing.rules import Contract, normal


def check_activation(given: Any) -> None:
    """Raise an error if an activation breaks its contract: a function of a tensor, value by value, finite and not constant.

    Raises:
        ContractError: The rule that it breaks first.
    """
    contract = Contract(given, "activation")
    name = TrialSpec(activation=given).activation
    with contract.calling("it"):
        _check_activation(contract, name)


def _check_activation(contract: Contract, name: str) -> None:
    """Check the activation of this name."""
    function = catalog.find("activation", name)
    x = (10 * normal(2, 3, 4)).requires_grad_()
    with contract.calling("it"):
        y = contract.shape("its value", function(x), (2, 3, 4), "that of its input")
    contract.finite("its value", y, "clamp before exp")
    contract.equal("it must treat each value by itself", y[0, 0, :1], function(x[0, 0, :1]), "no sums over a dimension", 1e-6)
    contract.traceable("it", function, x)
    contract.same_twice("it", lambda: function(x), "draw nothing in it")
    if not y.requires_grad:
        contract.broken("it must be differentiable", "no gradient", "use operations of torch")
    (slope,) = torch.autograd.grad(y.sum(), x)
    contract.finite("its gradient", slope, "clamp before exp and log")
    if not 0 < gain(name) < float("inf"):
        contract.broken("its second moment for inputs from N(0, 1) must be finite and above 0", gain(name), "it is constant 0")


def check_objective(given: Any) -> None:
    """Raise an error if an objective breaks its contract.

    It is a function of a `harness.models.vae.Pass` and of `beta` and `free_bits`, (S,) each, which returns the bound of every lane
    in nats per image, averaged over the batch, (S,). Training maximises it.

    Raises:
        ContractError: The rule that it breaks first.
    """
    contract = Contract(given, "objective")
    function = catalog.find("objective", TrialSpec(objective=given).objective)
    with contract.calling("it"):
        _check_objective(contract, function)


def _check_objective(contract: Contract, function: Any) -> None:
    """Check the function of an objective."""
    lanes, draws, images, latents = 2, 3, 4, 5
    mean, log_var = (normal(lanes, images, latents, seed=k).requires_grad_() for k in range(2))
    eps, weight = normal(lanes, draws, images, latents, seed=2), torch.ones(lanes)

    def bound(mean: Tensor, log_var: Tensor, own: slice = slice(None)) -> Tensor:
        mean, log_var = mean[own], log_var[own]
        z = mean[:, None] + (log_var[:, None] / 2).exp() * eps[own]
        value: Tensor = function(Pass(mean, log_var, eps[own], z, -z.square().sum(-1)), weight[own], 0 * weight[own])
        return value

    with contract.calling("it"):
        value = contract.shape("its value", bound(mean, log_var), (lanes,), "(S,)")
    contract.finite("its value", value, "use logsumexp")
    contract.traceable("it", bound, mean, log_var)
    contract.equal(
        "a lane must be what it is alone", value[:1], bound(mean, log_var, slice(0, 1)), "average over draws and images only", 1e-5
    )
    if not value.requires_grad:
        contract.broken("its gradient must reach the encoder", "none", "detach nothing")
    for name, gradient in zip(
        ("mean", "log_var"), torch.autograd.grad(value.sum(), (mean, log_var), allow_unused=True), strict=True
    ):
        if gradient is None:
            contract.broken(f"its gradient must reach the encoder's {name}", "none", "the KL, or z, is made of it")
        contract.finite(f"its gradient in the encoder's {name}", gradient, "clamp before exp and log")
