"""All scores of one trained trial. Shapes: N images, P pixels, Z latents; every VAE here has one lane.

Bounds are in nats per image: summed over pixels and latents, then averaged over images, in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harness.data import Data
from harness.metrics import diagnostics
from harness.metrics.bits_per_dim import CommonHead, bits_per_dimension, own_levels
from harness.metrics.bounds import (
    LADDER,
    ElboScore,
    Importance,
    View,
    estimate_elbo,
    estimate_elbos,
    importances,
    native,
)
from harness.metrics.depth import DEPTHS, Depth
from harness.metrics.images import squared_error
from harness.metrics.inference import inference
from harness.metrics.inputs import Encodings, encode, encodings, model_inputs
from harness.metrics.own import Trained, own_scores
from harness.metrics.pictures import codes, mean_of, pictures, unit
from harness.metrics.quadrature import exact
from harness.models.vae import VAE, kl_per_dimension
from harness.scores import EXACT_LATENTS, NotFiniteError, finite
from harness.scores.rows import EXACT_RESOLVED
from harness.spec import TrialSpec

YARDSTICK_DRAWS = 100  # importance draws under tiers B and C


@dataclass(frozen=True)
class Evaluation:
    """A trial's final scores, and what figures need besides them.

    Attributes:
        scores: Scores by metric key.
        test: The model's encodings of the test set.
        kl_per_dimension: KL of each latent on the test set in nats per image, (Z,).
        dead_by_layer: Share of dead units of each hidden layer on the validation set; empty if the trial was trained on it.
        ladder: IW-K on the test set in nats per image, by K.
    """

    scores: dict[str, float]
    test: Encodings
    kl_per_dimension: Tensor
    dead_by_layer: dict[str, float] = field(default_factory=dict)
    ladder: dict[int, float] = field(default_factory=dict)


def evaluate(spec: TrialSpec, vae: VAE, data: Data, *, depths: Mapping[str, Depth] = DEPTHS) -> Evaluation:
    """Return all final scores of a trained trial.

    The `test/...` scores are computed here only, once per trial; selection uses `validation/...` scores only. Scores of images
    compare with the grey image v/255, whatever the model's inputs are.

    Args:
        spec: The trial; `spec.evaluation` names the depth.
        vae: Its model, of one lane.
        data: The data set, on the model's device.
        depths: What each depth takes.

    Raises:
        NotFiniteError: A score or a weight is not finite. It is found before what takes finite numbers is computed.
    """
    with inference(vae):
        return _evaluate(spec, vae, data, depths[spec.evaluation])


def _evaluate(spec: TrialSpec, vae: VAE, data: Data, depth: Depth) -> Evaluation:
    """Return the evaluation; the caller chooses the matrix products."""
    dead: dict[str, Tensor] = {}
    _check_weights(vae)
    x, levels = model_inputs(spec, data.test), data.test.levels.float()
    test = encodings(vae, x)
    codes_of_test = test.mean, test.log_var
    train = _codes_of(spec, vae, data)
    head = _common_head(spec, vae, data, train)
    view = replace(native(vae, x), codes=codes_of_test)
    by_levels = {"common": replace(head.view(vae, x, levels), codes=codes_of_test)}
    own = own_levels(spec, vae, x, levels)
    if own is not None:
        by_levels["own"] = replace(own, codes=codes_of_test)
    of_noise = diagnostics.noise_views(vae, view)
    views = [view, *by_levels.values(), *of_noise.values()]
    whole, *found = estimate_elbos(vae, views, [depth.samples] + [1] * (len(views) - 1))
    elbos = dict(zip((*by_levels, *of_noise), found, strict=True))
    of_first, *of_levels = importances(
        vae,
        [view, *by_levels.values()],
        [depth.draws] + [YARDSTICK_DRAWS] * len(by_levels),
        [depth.images] + [depth.images // 2] * len(by_levels),
    )
    scores, ladder = _bounds(spec, vae, view, depth, whole=whole, weighted=of_first)
    if spec.fit_on == "train":
        inputs = model_inputs(spec, data.validation)
        scores |= _selecting(vae, inputs, data.validation.levels, head)
        dead = diagnostics.dead_units(vae, inputs, spec.latent)
        if dead:
            scores["validation/dead_units"] = mean_of(torch.cat(list(dead.values())))
    kl = kl_per_dimension(test.mean.double(), test.log_var.double()).mean(0).cpu()
    scores |= diagnostics.noise_scores(spec, {name: elbos[name].recon for name in of_noise})
    by_name = {name: (elbos[name].elbo, iw) for name, iw in zip(by_levels, of_levels, strict=True)}
    scores |= _levels(spec, vae, by_levels["common"], by_name, depth)
    scores |= pictures(spec, vae, data, test)
    scores |= codes(spec, data, train[0], test)
    scores |= own_scores(Trained(spec, vae, data), ("train", "validation", "test", ""))
    scores["diagnostics/nan_count"] = diagnostics.nan_count(vae)
    by_layer = {name: mean_of(units) for name, units in dead.items()}
    scores |= {f"dead_units/{name}": share for name, share in by_layer.items()}
    scores |= {f"kl_per_latent/{j:02d}": nats for j, nats in enumerate(kl.tolist(), start=1)}
    return Evaluation(finite(scores), test, kl, by_layer, ladder)


def validate(spec: TrialSpec, vae: VAE, data: Data) -> dict[str, float]:
    """Return the scores by which a search may select, all of the validation images; the test set is not used.

    Raises:
        NotFiniteError: A score or a weight is not finite.
        ValueError: The trial was trained on the validation images.
    """
    if spec.fit_on != "train":
        raise ValueError(f"evaluation='validation' takes fit_on='train', got {spec.fit_on!r}: it was trained on these images")
    with inference(vae):
        _check_weights(vae)
        head = _common_head(spec, vae, data, _codes_of(spec, vae, data))
        scores = _selecting(vae, model_inputs(spec, data.validation), data.validation.levels, head)
        return finite(scores | own_scores(Trained(spec, vae, data), ("train", "validation")))


def averaged(spec: TrialSpec, vae: VAE, data: Data) -> dict[str, float]:
    """Return the scores of a model with a trial's averaged weights: those of selection, and their twins on test images.

    The keys are those of the weights themselves behind `ema/`. Draws of z are the same too, so the two may be subtracted.

    Raises:
        NotFiniteError: A score or a weight is not finite.
    """
    scores: dict[str, float] = {}
    with inference(vae):
        _check_weights(vae)
        head = _common_head(spec, vae, data, _codes_of(spec, vae, data))
        samples = {"validation": 1} if spec.fit_on == "train" else {}
        if spec.evaluation != "validation":
            samples["test"] = DEPTHS[spec.evaluation].samples
        for images, draws in samples.items():
            split = getattr(data, images)
            found = _selecting(vae, model_inputs(spec, split), split.levels, head, images=images, samples=draws)
            scores |= {f"ema/{key}": value for key, value in found.items()}
    return finite(scores)


def _check_weights(vae: VAE) -> None:
    """Raise an error if a weight is not finite, which no loss has shown if it was the last update that ruined them.

    Raises:
        NotFiniteError: One of the weights is not finite.
    """
    count = diagnostics.nan_count(vae)
    if count:
        raise NotFiniteError(f"{count} of {sum(p.numel() for p in vae.parameters())} weights")


def _codes_of(spec: TrialSpec, vae: VAE, data: Data) -> tuple[Tensor, Tensor]:
    """Return mean and log variance of q for the images that the trial was trained on, (N, Z) each.

    Raises:
        NotFiniteError: One of them is not finite.
    """
    mean, log_var = encode(spec, vae, data.fit_on(spec.fit_on))
    if not (mean.isfinite().all() and log_var.isfinite().all()):
        raise NotFiniteError("codes of training images")
    return mean, log_var


def _selecting(
    vae: VAE, x: Tensor, levels: Tensor, head: CommonHead, *, images: str = "validation", samples: int = 0
) -> dict[str, float]:
    """Return the scores of validation images, by which a winner may be selected; of other `images` for their keys.

    x is the encoder's input, (N, P), and `levels` their grey levels, uint8 (N, P). With `samples` draws of z per image comes the
    ELBO too.
    """
    seen = encodings(vae, x)
    codes_of_seen = seen.mean, seen.log_var
    views = [replace(head.view(vae, x, levels.float()), codes=codes_of_seen)]
    if samples:
        views.append(replace(native(vae, x), codes=codes_of_seen))
    common, *own = estimate_elbos(vae, views, [1, samples][: len(views)])
    return {
        **{f"{images}/elbo": score.elbo for score in own},
        f"{images}/squared_error": mean_of(squared_error(seen.image, unit(levels))),
        f"{images}/common_bits": bits_per_dimension(common.elbo, x.shape[1]),
    }


def _common_head(spec: TrialSpec, vae: VAE, data: Data, train: tuple[Tensor, Tensor]) -> CommonHead:
    """Return the common head counted on the training images, given q's mean and log variance for them, (N, Z) each."""
    return CommonHead.count(vae, *train, data.fit_on(spec.fit_on).levels)


@torch.no_grad()
def _bounds(
    spec: TrialSpec, vae: VAE, view: View, depth: Depth, *, whole: ElboScore, weighted: Importance
) -> tuple[dict[str, float], dict[int, float]]:
    """Return the scores of tier A and IW-K by K: ELBO, IW-K and, at one or two latents, log p(x), on the model's own scale.

    A bound that is computed on the first images only is reported as the ELBO of all images plus its mean distance to the ELBO of
    those first images, because the distance varies far less between images than the bounds do. log p(x) is left out if the
    quadrature does not resolve it within its budget, and `test/exact_resolved` is then 0.

    Raises:
        NotFiniteError: The ELBO is not finite.
    """
    scores = finite(
        {
            "test/elbo": whole.elbo,
            "test/recon": whole.recon,
            "test/kl": whole.kl,
            "test/elbo_mc_error": whole.standard_error,
        }
    )
    ladder = {k: whole.elbo + mean_of(bound - weighted.bounds[1]) for k, bound in weighted.bounds.items()}
    scores |= {f"test/iw_{k}": ladder[k] for k in LADDER[1:] if k in ladder}
    scores["test/iw_effective_samples"] = weighted.effective.median().item()
    in_products = view.exponential_family(*vae.decode(view.x.new_zeros(1, 1, spec.latent))) is not None
    few = view.first(depth.exact_images if in_products else depth.other_images)
    if spec.latent <= EXACT_LATENTS and len(few):
        result = exact(vae, few, depth.tolerance, depth.side)
        scores[EXACT_RESOLVED.key] = float(result.resolved)
        if result.resolved:
            gap = mean_of(result.log_px) - (whole.elbo if len(few) == len(view) else _elbo_of(few, vae, weighted, depth))
            scores["test/exact_log_px"] = whole.elbo + gap
            scores["test/inference_gap"] = gap
            scores["test/exact_resolution"] = mean_of((result.log_px - result.coarser).abs())
    return scores, ladder


def _elbo_of(few: View, vae: VAE, weighted: Importance, depth: Depth) -> float:
    """Return the ELBO of the first images in nats: the mean of their importance weights' logarithms, as far as these were drawn."""
    if len(few) <= len(weighted.effective):
        return mean_of(weighted.bounds[1][: len(few)])
    return estimate_elbo(vae, few, depth.samples).elbo


def _levels(
    spec: TrialSpec, vae: VAE, common: View, found: Mapping[str, tuple[float, Importance]], depth: Depth
) -> dict[str, float]:
    """Return tiers B and C in bits/dim: by the ELBO, by IW, and tier C also exactly at one or two latents, if that is resolved.

    Args:
        spec: The trial.
        vae: Its model, of one lane.
        common: The view of test images of tier C.
        found: The ELBO in nats, of all images, and IW, of the first, of `common` and, if there is one, `own`, tier B.
        depth: What the scores take.
    """
    pixels, scores = common.x.shape[1], dict[str, float]()
    for name, (elbo, iw) in found.items():
        tighter = elbo + mean_of(iw.bounds[YARDSTICK_DRAWS] - iw.bounds[1])
        scores[f"test/{name}_bits"] = bits_per_dimension(elbo, pixels)
        scores[f"test/{name}_bits_iw"] = bits_per_dimension(tighter, pixels)
    if spec.latent <= EXACT_LATENTS and depth.other_images:
        few = common.first(depth.other_images)
        result = exact(vae, few, depth.tolerance, depth.side)
        if result.resolved:
            elbo, iw = found["common"]
            closer = elbo + mean_of(result.log_px) - _elbo_of(few, vae, iw, depth)
            scores["test/common_bits_exact"] = bits_per_dimension(closer, pixels)
        else:
            scores[EXACT_RESOLVED.key] = 0.0
    return scores
