"""The contract of a likelihood. Shapes: S lanes, B images, P pixels, K outputs per pixel, N points, C channels that are coupled."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.catalog import Scale
from harness.models.likelihoods import MAX_LEVEL, Likelihood, OwnLikelihood
from harness.models.vae import likelihood_of
from harness.spec import TrialSpec
from harness.testing.rules import Contract, normal

LANES, IMAGES, PIXELS = 2, 3, 5
MASS = 1e-3  # that the whole probability may be off
POINTS = {1: 20_001, 2: 401, 3: 81}  # of the real line or of [0, 1], for each of so many values
DRAWS, FARTHEST = 4_000, 2.2  # draws, and sqrt(draws) times the distance of their distribution: more has p = 1e-4
BLOCK = 2**17  # combinations of points at once
LARGE = (10.0, 89.0, 300.0)  # outputs for which all must be finite in float32, in which exp overflows from 89 on


class _Grid(NamedTuple):
    """Points of one pixel, (N,) in ascending order, and the width that each stands for, (N,)."""

    points: Tensor
    widths: Tensor


def check_likelihood(given: Any, /, **arguments: Any) -> None:
    """Raise an error if a likelihood breaks its contract.

    It must have `outputs`, `scale`, `log_prob`, `mean` and `sample`; `log_pmf` and the other members of
    `harness.models.likelihoods.Likelihood` are free. Supports may be bounded or not, tails as heavy as they like.

    Args:
        given: A name of the catalog, a reference, a class, or an object.
        arguments: Those that it is made with, if it is a name, a reference or a class.

    Raises:
        ContractError: The rule that it breaks first.
    """
    contract = Contract(given, "likelihood")
    if isinstance(given, str | type):
        spec = TrialSpec(likelihood=given, likelihood_args=arguments)  # type: ignore[arg-type]  # a class becomes its reference
        with contract.calling(f"making it with {arguments}"):
            likelihood = likelihood_of(spec)
        own = likelihood.own if isinstance(likelihood, OwnLikelihood) else likelihood
        _check_members(contract, own, scale=not isinstance(likelihood, OwnLikelihood) or hasattr(own, "scale"))
        scale = spec.scale
    else:
        _check_members(contract, given, scale=hasattr(given, "scale"))
        whole = all(hasattr(given, name) for name in ("noise", "misfit", "channels"))
        likelihood = given if whole else OwnLikelihood(given)
        scale = Scale.parse(given.scale)
    with contract.calling("it"):
        _check_shapes(contract, likelihood)
        if (likelihood.channels or 1) > 1:
            _check_pixels(contract, likelihood)
            _check_channels(contract, likelihood, scale)
        else:
            for seed in range(4):
                if scale.kind != "pseudo":
                    for pixels in (1, 2):
                        _check_mass(contract, likelihood, scale, pixels, seed)
                    _check_draws(contract, likelihood, scale, seed)
                _check_levels(contract, likelihood, seed)
        _check_large(contract, likelihood)


def _check_members(contract: Contract, own: Any, *, scale: bool) -> None:
    """Check what the object has."""
    for name in ("log_prob", "mean", "sample"):
        if not callable(getattr(own, name, None)):
            contract.broken(f"it must have a method {name}", "none", f"add def {name}(self, ...): see docs/extending.md")
    outputs = getattr(own, "outputs", None)
    if not isinstance(outputs, int) or isinstance(outputs, bool) or outputs < 1:
        contract.broken("outputs must be the number of decoder outputs per pixel", repr(outputs), "add outputs: int = 1, or more")
    channels = getattr(own, "channels", None)
    if channels is not None and (type(channels) is not int or channels not in POINTS):
        contract.broken(
            "channels must be the number of those that are coupled, at most 3", repr(channels), "leave it out if none are"
        )
    if not scale:
        contract.broken("it must have a scale", "none", "add scale: str = 'density on v/255', or 'pmf on 0..255'")
    try:
        hash(own)
    except TypeError as fault:
        contract.broken("it must be hashable", fault, "make it a frozen dataclass: @dataclass(frozen=True)")


def _outputs(likelihood: Likelihood, shape: tuple[int, ...], seed: int, size: float = 1.0) -> tuple[Tensor, ...]:
    """Return random decoder outputs of these lanes, images and pixels, float64, with the shared scalars behind them."""
    own = [size * normal(*shape, seed=10 * seed + k, dtype=torch.float64) for k in range(likelihood.outputs)]
    return (*own, *(size * normal(shape[0], 1, 1, seed=10 * seed - k - 1, dtype=torch.float64) for k in range(likelihood.shared)))


def _check_shapes(contract: Contract, likelihood: Likelihood) -> None:
    """Check shapes, ranges and that lanes do not touch."""
    shape = (LANES, IMAGES, PIXELS * (likelihood.channels or 1))
    levels = (normal(*shape).abs() * 100).round().clamp(0, MAX_LEVEL).double()
    out = _outputs(likelihood, shape, 0)
    with contract.calling("observe"):
        x = contract.shape("observe", likelihood.observe(levels, torch.full_like(levels, 0.5)), shape, "(S, B, P)")
    with contract.calling("log_prob"):
        log_p = contract.shape("log_prob", likelihood.log_prob(x, *out), shape[:2], "(S, B)")
    contract.finite("log_prob", log_p, "compute it from logits and log scales, never from a probability")
    if not likelihood.log_prob(x, *(o.clone().requires_grad_() for o in out)).requires_grad:
        contract.broken("log_prob must be differentiable in the outputs", "no gradient", "detach nothing")
    contract.traceable("log_prob", likelihood.log_prob, x, *out)
    contract.same_twice("log_prob", lambda: likelihood.log_prob(x, *out), "draw nothing in it")
    alone = likelihood.log_prob(x[:1], *(o[:1] for o in out))
    contract.equal("a lane of log_prob must be what it is alone", log_p[:1], alone, "sum over pixels only: .sum(-1)", 1e-6)
    with contract.calling("mean"):
        mean = contract.shape("mean", likelihood.mean(*out), shape, "(S, B, P)")
    contract.finite("mean", mean, "compute it from the outputs without overflow")
    if mean.min() < -1e-6 or mean.max() > 1 + 1e-6:
        contract.broken("mean must lie on [0, 1]", f"{mean.min():.3g} to {mean.max():.3g}", "return E[x] on the axis of v/255")
    with contract.calling("sample"):
        draw = likelihood.sample(torch.Generator().manual_seed(0), *out)
    contract.shape("sample", draw, shape, "(S, B, P)")
    contract.same_twice(
        "sample with an equal generator",
        lambda: likelihood.sample(torch.Generator().manual_seed(0), *out),
        "draw all randomness from the generator that it is given",
    )


def _grid(contract: Contract, likelihood: Likelihood, scale: Scale, out: tuple[Tensor, ...], n: int, channel: int = 0) -> _Grid:
    """Return the points of a value over all of the support, n if it is continuous; on the line most are where samples are."""
    if scale.of.startswith("{0,1}"):
        return _Grid(torch.tensor([0.0, 1.0]).double(), torch.ones(2).double())
    match scale.of:
        case "0..255":
            return _Grid(torch.arange(MAX_LEVEL + 1).double() / MAX_LEVEL, torch.ones(MAX_LEVEL + 1).double())
        case "(v+u)/256":
            return _Grid((torch.arange(n).double() + 0.5) / n, torch.full((n,), 1 / n).double())
        case "v/255":
            draws = likelihood.sample(torch.Generator().manual_seed(1), *(o.expand(1, 400, -1) for o in out))[0, :, channel]
            low, centre, high = draws.double().quantile(torch.tensor([0.25, 0.5, 0.75]).double())
            spread = ((high - low) / 2).clamp_min(1e-6)
            angle = math.pi * ((torch.arange(n).double() + 0.5) / n - 0.5)  # x = centre + spread tan(angle), so tails are covered
            return _Grid(centre + spread * angle.tan(), spread * math.pi / n / angle.cos().square())
    contract.broken(
        "scale must be on a known support",
        repr(scale.of),
        "known: {0,1}, 0..255, v/255, (v+u)/256",
    )


def _masses(log_prob: Callable[..., Tensor], grids: Sequence[_Grid], out: Sequence[Tensor]) -> Tensor:
    """Return the probability of every combination of one point of each grid, (N, N, ...), in the precision of the outputs."""
    first, *others = (_Grid(*(t.to(out[0].dtype) for t in grid)) for grid in grids)
    inner, widths = torch.zeros(1, 0, dtype=out[0].dtype), torch.ones(1, dtype=out[0].dtype)
    for points, width in others:
        inner = torch.cat([inner.repeat_interleave(len(points), 0), points.repeat(len(inner))[:, None]], 1)
        widths = (widths[:, None] * width).flatten()
    masses = []
    for points, width in zip(*(t.split(max(1, BLOCK // len(inner))) for t in first), strict=True):
        x = torch.cat([points.repeat_interleave(len(inner))[:, None], inner.repeat(len(points), 1)], 1)
        log_p = log_prob(x[None], *(o.expand(1, len(x), o.shape[-1]) for o in out))[0]
        masses.append(log_p.exp() * (width[:, None] * widths).flatten())
    return torch.cat(masses).view([len(grid.points) for grid in grids])


def _check_mass(contract: Contract, likelihood: Likelihood, scale: Scale, pixels: int, seed: int) -> None:
    """Check that the probability over the whole support is 1, of one pixel and of two."""
    own = _outputs(likelihood, (1, 1, 1), seed)
    out = tuple(o.expand(1, 1, pixels) if i < likelihood.outputs else o for i, o in enumerate(own))
    grid = _grid(contract, likelihood, scale, own, POINTS[pixels])
    mass = _masses(likelihood.log_prob, [grid] * pixels, out).sum().item()
    if not abs(mass - 1) <= MASS:
        values = ", ".join(f"{o.item():.3g}" for o in own)
        whole = f"the probability of {'a pixel' if pixels == 1 else 'two pixels'} must be 1 over {scale.of}"
        fix = "keep all constants of the density" if pixels == 1 else "log_prob is the sum over pixels, not their mean: .sum(-1)"
        contract.broken(whole, f"{mass:.4g} for the outputs ({values})", fix)


def _check_draws(contract: Contract, likelihood: Likelihood, scale: Scale, seed: int) -> None:
    """Check that samples are distributed as log_prob says, by the largest distance of the distribution functions."""
    out = _outputs(likelihood, (1, 1, 1), seed)
    grid = _grid(contract, likelihood, scale, out, POINTS[1])
    function = _masses(likelihood.log_prob, [grid], out).cumsum(0)
    draws = likelihood.sample(torch.Generator().manual_seed(2), *(o.expand(1, DRAWS, 1) for o in out)).flatten().double()
    share = torch.searchsorted(draws.sort().values, grid.points + grid.widths.clamp_max(1e-6) / 2, right=True) / DRAWS
    distance = math.sqrt(DRAWS) * (share - function).abs().max().item()
    if not distance <= FARTHEST:
        found = f"{DRAWS} draws at a distance of {distance / math.sqrt(DRAWS):.3f} (allowed: {FARTHEST / math.sqrt(DRAWS):.3f})"
        contract.broken("samples must be distributed as log_prob says", found, "check sample against log_prob")


def _check_pixels(contract: Contract, likelihood: Likelihood) -> None:
    """Check that the log-probability of two pixels of coupled channels is the sum of theirs."""
    channels = likelihood.channels or 1
    out = _outputs(likelihood, (1, 1, 2 * channels), 0)
    x = likelihood.sample(torch.Generator().manual_seed(0), *out)
    alone = [
        likelihood.log_prob(*(t if t.shape[-1] == 1 else t.unflatten(-1, (channels, 2))[..., pixel] for t in (x, *out)))
        for pixel in range(2)
    ]
    fix = "images are flat, channel by channel: x.unflatten(-1, (channels, -1))"
    contract.equal(
        "log_prob must be the sum of what each pixel has", likelihood.log_prob(x, *out), sum(alone, x.new_zeros(())), fix
    )


def _check_channels(contract: Contract, likelihood: Likelihood, scale: Scale) -> None:
    """Check the whole probability of a pixel whose channels are coupled, and that draws have the joint distribution.

    The number of combinations is the third power of the points', so that it is computed for one set of outputs, in float32. Joint
    distribution functions are compared at five points of every channel.
    """
    channels = likelihood.channels or 1
    out = tuple(o.float() for o in _outputs(likelihood, (1, 1, channels), 0))
    if scale.kind != "pseudo":
        grids = [_grid(contract, likelihood, scale, out, POINTS[channels], c) for c in range(channels)]
        masses = _masses(likelihood.log_prob, grids, out)
        mass = masses.sum(dtype=torch.float64).item()
        if not abs(mass - 1) <= MASS:
            contract.broken(
                f"the probability of a pixel must be 1 over {scale.of}", f"{mass:.4g}", "keep all constants of the density"
            )
        draws = likelihood.sample(torch.Generator().manual_seed(2), *(o.expand(1, DRAWS, -1) for o in out))[0].double()
        inside, ends = torch.ones(1, DRAWS, dtype=torch.bool), []
        for c, grid in enumerate(grids):
            masses = masses.cumsum(c, dtype=torch.float64)
            at = torch.searchsorted(grid.points, draws[:, c].quantile(torch.arange(1, 6).double() / 6)).clamp_max(
                len(grid.points) - 1
            )
            ends.append(at)
            below = draws[:, c] <= (grid.points + grid.widths.clamp_max(1e-6) / 2)[at][:, None]
            inside = (inside[:, None] & below).flatten(0, 1)
        function = masses[torch.meshgrid(*ends, indexing="ij")].flatten()
        distance = (inside.double().mean(1) - function).abs().max().item()
        if not math.sqrt(DRAWS) * distance <= FARTHEST:
            found = f"{DRAWS} draws at a distance of {distance:.3f} (allowed: {FARTHEST / math.sqrt(DRAWS):.3f})"
            contract.broken("samples must be distributed as log_prob says", found, "check sample against log_prob")
    levels = torch.arange(MAX_LEVEL + 1).float()
    some = levels[:: 25 * channels][None, None, :channels]
    log_pmf = likelihood.log_pmf(some, *out)
    if log_pmf is None:
        return
    if scale == Scale("pmf", "0..255"):
        same = likelihood.log_prob(likelihood.observe(some, 0.5), *out)
        contract.equal("log_pmf must be log_prob of the levels", log_pmf, same, "or leave log_pmf out")
    else:
        grid = _Grid(levels, torch.ones_like(levels))
        mass = _masses(likelihood.log_pmf, [grid] * channels, out).sum(dtype=torch.float64).item()  # type: ignore[arg-type]  # it has one
        if not abs(mass - 1) <= MASS:
            contract.broken("log_pmf must sum to 1 over the levels 0..255 of a pixel", f"{mass:.4g}", "or leave log_pmf out")


def _check_levels(contract: Contract, likelihood: Likelihood, seed: int) -> None:
    """Check that the pmf of grey levels, if there is one, sums to 1."""
    levels, out = torch.arange(MAX_LEVEL + 1).double()[None, :, None], _outputs(likelihood, (1, 1, 1), seed)
    with contract.calling("log_pmf"):
        log_p = likelihood.log_pmf(levels, *(o.expand(1, MAX_LEVEL + 1, 1) for o in out))
    own = getattr(likelihood, "own", None)
    if log_p is None and callable(getattr(own, "log_pmf", None)):
        contract.broken("log_pmf must be a probability of grey levels", "None", "leave log_pmf out")
    if log_p is not None:
        contract.shape("log_pmf", log_p, (1, MAX_LEVEL + 1), "(S, B)")
        mass = log_p.exp().sum().item()
        if not abs(mass - 1) <= MASS:
            contract.broken("log_pmf must sum to 1 over the levels 0..255", f"{mass:.4g}", "or leave log_pmf out")


def _check_large(contract: Contract, likelihood: Likelihood) -> None:
    """Check that nothing overflows for large outputs, nor do gradients."""
    levels = torch.tensor([0.0, 100.0, MAX_LEVEL]).repeat(likelihood.channels or 1)[None, None]
    x = likelihood.observe(levels, torch.full_like(levels, 0.5))
    n = likelihood.outputs + likelihood.shared
    for size in (sign * size for size in LARGE for sign in (-1.0, 1.0)):
        out = [torch.full((1, 1, levels.shape[-1] if k < likelihood.outputs else 1), size, requires_grad=True) for k in range(n)]
        for call, value in {"log_prob": likelihood.log_prob(x, *out).sum(), "mean": likelihood.mean(*out).sum()}.items():
            contract.finite(f"{call} for outputs of {size:g}", value, "clamp log scales before exp")
            for gradient in torch.autograd.grad(value, out, allow_unused=True) if value.requires_grad else ():
                if gradient is not None:
                    contract.finite(f"the gradient of {call} for outputs of {size:g}", gradient, "clamp before exp and log")
