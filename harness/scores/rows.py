"""The built-in scores, a row each, in the order in which they are shown. What they measure: docs/science.md."""

from dataclasses import replace

from harness.scores.score import (
    CODES,
    COST,
    DIAGNOSTICS,
    ELBO_CURVES,
    IMAGES,
    KL_CURVES,
    NATIVE,
    OWN_PMF,
    SAMPLES,
    SELECTION,
    TRUST,
    Score,
    Scores,
)

ROWS: tuple[Score, ...] = (
    Score(key="test/common_bits", label="common head (bits/dim)", better="lower", tier="C", group=IMAGES),
    Score(key="test/squared_error", label="squared error", better="lower", digits=2, group=IMAGES),
    Score(key="test/knn15_accuracy", label="15-NN accuracy", better="higher", group=CODES, needs=("labels", "neighbours")),
    Score(key="test/kl", label="KL (nats)", digits=2, group=CODES),
    Score(key="test/ssim", label="SSIM", better="higher", group=IMAGES),
    Score(key="test/frechet", label="Fréchet distance", better="lower", digits=1, group=SAMPLES, needs=("features",)),
    Score(key="validation/dead_units", label="dead hidden units (share)", better="lower", group=CODES, needs=("held_out",)),
    Score(
        key="test/common_bits_iw",
        label="common head, IW-100 (bits/dim)",
        better="lower",
        tier="C",
        group=IMAGES,
        headline=False,
    ),
    Score(
        key="test/common_bits_exact",
        label="common head, exact (bits/dim)",
        better="lower",
        tier="C",
        group=IMAGES,
        headline=False,
        needs=("exact", "deep"),
    ),
    Score(key="test/psnr", label="PSNR (dB)", better="higher", digits=2, group=IMAGES, headline=False),
    Score(key="test/precision", label="precision", better="higher", group=SAMPLES, headline=False, needs=("features",)),
    Score(key="test/recall", label="recall", better="higher", group=SAMPLES, headline=False, needs=("features",)),
    Score(
        key="test/probe_accuracy",
        label="linear probe accuracy",
        better="higher",
        group=CODES,
        headline=False,
        needs=("labels",),
    ),
    Score(key="test/mutual_information", label="mutual information (nats)", digits=2, group=CODES, headline=False),
    Score(key="test/marginal_kl", label="marginal KL (nats)", digits=2, group=CODES, headline=False),
    Score(key="test/active_units", label="active units", better="higher", digits=1, group=CODES, headline=False),
    Score(key="test/own_bits", label="own likelihood (bits/dim)", better="lower", tier="B", group=OWN_PMF, needs=("grey_pmf",)),
    Score(
        key="test/own_bits_iw",
        label="own likelihood, IW-100 (bits/dim)",
        better="lower",
        tier="B",
        group=OWN_PMF,
        needs=("grey_pmf",),
    ),
    Score(key="test/elbo", label="ELBO (nats)", better="higher", digits=2, tier="A", group=NATIVE),
    Score(key="test/recon", label="reconstruction (nats)", better="higher", digits=2, tier="A", group=NATIVE),
    Score(key="test/iw_10", label="IW-10 (nats)", better="higher", digits=2, tier="A", group=NATIVE, headline=False),
    Score(key="test/iw_100", label="IW-100 (nats)", better="higher", digits=2, tier="A", group=NATIVE),
    Score(
        key="test/iw_1000",
        label="IW-1,000 (nats)",
        better="higher",
        digits=2,
        tier="A",
        group=NATIVE,
        headline=False,
        needs=("deep",),
    ),
    Score(
        key="test/iw_5000",
        label="IW-5,000 (nats)",
        better="higher",
        digits=2,
        tier="A",
        group=NATIVE,
        headline=False,
        needs=("deep",),
    ),
    Score(
        key="test/exact_log_px",
        label="exact log p(x) (nats)",
        better="higher",
        digits=2,
        tier="A",
        group=NATIVE,
        needs=("exact",),
    ),
    Score(
        key="test/inference_gap",
        label="inference gap (nats)",
        better="lower",
        digits=2,
        tier="A",
        group=NATIVE,
        needs=("exact",),
    ),
    Score(key="test/elbo_mc_error", label="Monte Carlo error of the ELBO (nats)", tier="A", group=TRUST),
    Score(key="test/iw_effective_samples", label="effective samples of IW", digits=1, group=TRUST),
    Score(key="test/noise_scale", label="own pixel noise", digits=4, group=TRUST, needs=("noise_scale",)),
    Score(key="diagnostics/effective_beta", label="effective beta", digits=2, group=TRUST),
    Score(
        key="test/exact_resolution",
        label="resolution of exact log p(x) (nats)",
        digits=4,
        tier="A",
        group=TRUST,
        headline=False,
        needs=("exact",),
    ),
    Score(key="kl/validation", label="KL, validation (nats)", digits=2, group=KL_CURVES, needs=("held_out",)),
    Score(key="kl/train", label="KL, training (nats)", digits=2, group=KL_CURVES),
    Score(
        key="elbo/validation",
        label="validation ELBO (nats)",
        better="higher",
        digits=2,
        tier="A",
        group=ELBO_CURVES,
        needs=("held_out",),
    ),
    Score(
        key="recon/validation",
        label="validation reconstruction (nats)",
        digits=2,
        tier="A",
        group=ELBO_CURVES,
        needs=("held_out",),
    ),
    Score(key="elbo/train", label="training ELBO (nats)", better="higher", digits=2, tier="A", group=ELBO_CURVES),
    Score(key="recon/train", label="training reconstruction (nats)", digits=2, tier="A", group=ELBO_CURVES),
    Score(key="objective/train", label="what training maximises (nats)", digits=2, tier="A", group=ELBO_CURVES, headline=False),
    Score(
        key="validation/squared_error",
        label="validation squared error",
        better="lower",
        digits=2,
        group=SELECTION,
        needs=("held_out",),
    ),
    Score(
        key="validation/common_bits",
        label="validation common head (bits/dim)",
        better="lower",
        tier="C",
        group=SELECTION,
        needs=("held_out",),
    ),
    Score(
        key="test/exact_resolved",
        label="quadrature within its budget (1 or 0)",
        digits=0,
        group=TRUST,
        headline=False,
        needs=("exact",),
    ),
    Score(
        key="diagnostics/lost_elbo",
        label="ELBO lost since the start (share of its size and of the pixels)",
        digits=2,
        group=DIAGNOSTICS,
        headline=False,
    ),
    Score(
        key="diagnostics/over_histogram",
        label="common head above a histogram of levels (bits/dim)",
        group=DIAGNOSTICS,
        headline=False,
    ),
    Score(key="diagnostics/late_gain", label="late gain in ELBO (nats)", tier="A", group=DIAGNOSTICS, needs=("epochs",)),
    Score(key="train/best_epoch", label="epoch that was kept", digits=0, group=DIAGNOSTICS, headline=False, needs=("patience",)),
    Score(key="diagnostics/scale_at_floor", label="sigma on its floor (share)", group=DIAGNOSTICS, needs=("scale_floor",)),
    Score(key="diagnostics/nan_count", label="weights that are not finite", digits=0, group=DIAGNOSTICS),
    Score(key="diagnostics/gradient_norm", label="norm of the gradient", group=DIAGNOSTICS),
    Score(key="dead_units/", label="dead hidden units of a layer (share)", group=DIAGNOSTICS, headline=False, needs=("held_out",)),
    Score(key="kl_per_latent/", label="KL of a latent (nats)", group=DIAGNOSTICS, headline=False),
    Score(key="perf/step_ms_p50", label="step (ms, median)", digits=2, group=COST),
    Score(key="perf/images_per_s", label="images/s", digits=0, group=COST),
    Score(key="perf/train_s", label="training (s)", digits=1, group=COST),
    Score(key="perf/step_ms_p95", label="step (ms, 95th percentile)", digits=2, group=COST, headline=False),
    Score(key="perf/throughput", label="throughput of a trial (images/s)", better="higher", digits=0, group=COST, headline=False),
    Score(key="perf/step_ms", label="step (ms)", better="lower", digits=2, group=COST, headline=False),
    Score(key="model/parameters", label="parameters", better="lower", digits=0, group=COST, headline=False),
    Score(key="perf/compiled", label="compiled (1 or 0)", digits=0, group=COST, headline=False),
    Score(key="perf/compile_s", label="compilation (s)", digits=1, group=COST, headline=False),
    Score(key="perf/peak_memory_mib", label="peak memory (MiB)", digits=0, group=COST, headline=False),
)


def _averaged(row: Score) -> Score:
    """Return the row of the same score of a trial's averaged weights."""
    group = SELECTION if row.images == "validation" else row.group
    label, needs = f"{row.label}, averaged weights", (*row.needs, "average")
    return replace(row, key=f"ema/{row.images}/{row.name}", label=label, group=group, needs=needs, headline=False)


TWICE = (
    "test/common_bits",
    "test/squared_error",
    "test/elbo",
    "elbo/validation",
    "validation/squared_error",
    "validation/common_bits",
)
ROWS = (*ROWS, *(_averaged(row) for row in ROWS if row.key in TWICE))
SCORES: Scores = {row.key: row for row in ROWS}

# Those that code asks for one by one.
COMMON_BITS = SCORES["test/common_bits"]
VALIDATION_COMMON_BITS = SCORES["validation/common_bits"]
SQUARED_ERROR = SCORES["test/squared_error"]
KL = SCORES["test/kl"]
MARGINAL_KL = SCORES["test/marginal_kl"]
ACTIVE_UNITS = SCORES["test/active_units"]
DEAD_UNITS = SCORES["validation/dead_units"]
OWN_BITS = SCORES["test/own_bits"]
ELBO = SCORES["test/elbo"]
EXACT_LOG_PX = SCORES["test/exact_log_px"]
ELBO_MC_ERROR = SCORES["test/elbo_mc_error"]
IW_EFFECTIVE_SAMPLES = SCORES["test/iw_effective_samples"]
EXACT_RESOLUTION = SCORES["test/exact_resolution"]
EXACT_RESOLVED = SCORES["test/exact_resolved"]
EFFECTIVE_BETA = SCORES["diagnostics/effective_beta"]
LATE_GAIN = SCORES["diagnostics/late_gain"]
BEST_EPOCH = SCORES["train/best_epoch"]
LOST_ELBO = SCORES["diagnostics/lost_elbo"]
OVER_HISTOGRAM = SCORES["diagnostics/over_histogram"]
SCALE_AT_FLOOR = SCORES["diagnostics/scale_at_floor"]
NAN_COUNT = SCORES["diagnostics/nan_count"]
ELBO_VALIDATION = SCORES["elbo/validation"]
ELBO_TRAIN = SCORES["elbo/train"]
VALIDATION_SQUARED_ERROR = SCORES["validation/squared_error"]
STEP_MS_P50 = SCORES["perf/step_ms_p50"]
IMAGES_PER_S = SCORES["perf/images_per_s"]
TRAIN_S = SCORES["perf/train_s"]
