"""All scores of one trained trial. Shapes: N images, P pixels, Z latents; every VAE here has one lane.

Bounds are in nats per image: summed over pixels and latents, then averaged over images, in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harness import catalog
from harness.data import Data
from harness.metrics import diagnostics
from harness.metrics.bits_per_dim import CommonHead, bits_per_dimension, own_levels
from harness.metrics.bounds import LADDER, View, estimate_elbo, estimate_elbos, importance, importances, native
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

SAMPLES = 8  # draws of z per image in a final score
YARDSTICK_DRAWS = 100  # importance draws under tiers B and C


@dataclass(frozen=True)
class Depth:
    """The numbers of images and draws that the costly scores take.

    Attributes:
        draws: Importance draws per image.
        images: Images of the importance-weighted bounds, the first ones of the test set.
        exact_images: Images of the quadrature if the likelihood is an exponential family.
        other_images: Images of the quadrature if it is not, and for tier C; 0 leaves these scores out.
    """

    draws: int
    images: int
    exact_images: int
    other_images: int


DEPTHS: Mapping[str, Depth] = {name: Depth(**entry.fixed) for name, entry in catalog.EVALUATIONS.items()}


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
    scores, ladder = _bounds(spec, vae, replace(native(vae, x), codes=codes_of_test), depth)
    train = _codes_of(spec, vae, data)
    head = _common_head(spec, vae, data, train)
    if spec.fit_on == "train":
        inputs = model_inputs(spec, data.validation)
        scores |= _selecting(vae, inputs, data.validation.levels, head)
        dead = diagnostics.dead_units(vae, inputs, spec.latent)
        if dead:
            scores["validation/dead_units"] = mean_of(torch.cat(list(dead.values())))
    kl = kl_per_dimension(test.mean.double(), test.log_var.double()).mean(0).cpu()
    common = replace(head.view(vae, x, levels), codes=codes_of_test)
    scores |= _levels(spec, vae, common, own_levels(spec, vae, x, levels), depth)
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
        for images, draws in {"validation": 1, "test": SAMPLES}.items():
            if spec.fit_on != "train" if images == "validation" else spec.evaluation == "validation":
                continue
            split = getattr(data, images)
            x = model_inputs(spec, split)
            own = {f"{images}/elbo": estimate_elbo(vae, native(vae, x), draws).elbo}
            scores |= {f"ema/{key}": value for key, value in (own | _selecting(vae, x, split.levels, head, images)).items()}
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


def _selecting(vae: VAE, x: Tensor, levels: Tensor, head: CommonHead, images: str = "validation") -> dict[str, float]:
    """Return the scores of validation images, by which a winner may be selected; of other `images` for their keys.

    x is the encoder's input, (N, P), and `levels` their grey levels, uint8 (N, P).
    """
    seen = encodings(vae, x)
    common = replace(head.view(vae, x, levels.float()), codes=(seen.mean, seen.log_var))
    return {
        f"{images}/squared_error": mean_of(squared_error(seen.image, unit(levels))),
        f"{images}/common_bits": bits_per_dimension(estimate_elbo(vae, common, 1).elbo, x.shape[1]),
    }


def _common_head(spec: TrialSpec, vae: VAE, data: Data, train: tuple[Tensor, Tensor]) -> CommonHead:
    """Return the common head counted on the training images, given q's mean and log variance for them, (N, Z) each."""
    return CommonHead.count(vae, *train, data.fit_on(spec.fit_on).levels)


@torch.no_grad()
def _bounds(spec: TrialSpec, vae: VAE, view: View, depth: Depth) -> tuple[dict[str, float], dict[int, float]]:
    """Return the scores of tier A and IW-K by K: ELBO, IW-K and, at one or two latents, log p(x), on the model's own scale.

    A bound that is computed on the first images only is reported as the ELBO of all images plus its mean distance to the ELBO of
    those first images, because the distance varies far less between images than the bounds do. log p(x) is left out if the
    quadrature does not resolve it within its budget, and `test/exact_resolved` is then 0.

    Raises:
        NotFiniteError: The ELBO is not finite.
    """
    whole = estimate_elbo(vae, view, SAMPLES)
    scores = finite(
        {
            "test/elbo": whole.elbo,
            "test/recon": whole.recon,
            "test/kl": whole.kl,
            "test/elbo_mc_error": whole.standard_error,
        }
    )
    weighted = importance(vae, view.first(depth.images), depth.draws)
    ladder = {k: whole.elbo + mean_of(bound - weighted.bounds[1]) for k, bound in weighted.bounds.items()}
    scores |= {f"test/iw_{k}": ladder[k] for k in LADDER[1:] if k in ladder}
    scores["test/iw_effective_samples"] = weighted.effective.median().item()
    in_products = view.exponential_family(*vae.decode(view.x.new_zeros(1, 1, spec.latent))) is not None
    few = view.first(depth.exact_images if in_products else depth.other_images)
    if spec.latent <= EXACT_LATENTS and len(few):
        result = exact(vae, few)
        scores[EXACT_RESOLVED.key] = float(result.resolved)
        if result.resolved:
            few_elbo = whole.elbo if len(few) == len(view) else estimate_elbo(vae, few, SAMPLES).elbo
            gap = mean_of(result.log_px) - few_elbo
            scores["test/exact_log_px"] = whole.elbo + gap
            scores["test/inference_gap"] = gap
            scores["test/exact_resolution"] = mean_of((result.log_px - result.coarser).abs())
    return scores, ladder


def _levels(spec: TrialSpec, vae: VAE, common: View, own: View | None, depth: Depth) -> dict[str, float]:
    """Return tiers B and C in bits/dim: by the ELBO, by IW, and tier C also exactly at one or two latents, if that is resolved.

    With them, for it is of the same draws of z, comes what `diagnostics.noise` says of test images. `common` and `own` are the
    views of tier C and, if there is one, of tier B, of the test images.
    """
    pixels, views = common.x.shape[1], {"common": common}
    if own is not None:
        views["own"] = replace(own, codes=common.codes)
    of_noise = diagnostics.noise_views(vae, common)
    found = estimate_elbos(vae, [*views.values(), *of_noise.values()], 1)
    whole = {name: score.elbo for name, score in zip(views, found, strict=False)}
    scores = diagnostics.noise_scores(spec, {key: score.recon for key, score in zip(of_noise, found[len(views) :], strict=True)})
    weighted = importances(vae, [view.first(depth.images // 2) for view in views.values()], YARDSTICK_DRAWS)
    for name, iw in zip(views, weighted, strict=True):
        tighter = whole[name] + mean_of(iw.bounds[YARDSTICK_DRAWS] - iw.bounds[1])
        scores[f"test/{name}_bits"] = bits_per_dimension(whole[name], pixels)
        scores[f"test/{name}_bits_iw"] = bits_per_dimension(tighter, pixels)
    if spec.latent <= EXACT_LATENTS and depth.other_images:
        few = common.first(depth.other_images)
        result = exact(vae, few)
        if result.resolved:
            closer = whole["common"] + mean_of(result.log_px) - estimate_elbo(vae, few, SAMPLES).elbo
            scores["test/common_bits_exact"] = bits_per_dimension(closer, pixels)
        else:
            scores[EXACT_RESOLVED.key] = 0.0
    return scores
