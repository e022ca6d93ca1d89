"""Every figure of a trial draws where it fits, the true posterior is right, and a study's figures show what is there."""

import re
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.markers import MarkerStyle

from harness import data, figures, metrics
from harness.figures import axes, palette
from harness.figures.posterior import posterior
from harness.metrics.quadrature import exact
from harness.models.vae import kl_per_dimension
from harness.report.ablation import figures as study_figures
from harness.report.inline import inline
from harness.scores import SCORES
from harness.spec import TrialSpec
from harness.training.cohort import Cohort


def subject(latent: int) -> figures.Subject:
    """A trial of two epochs on digits, with scores by hand."""
    spec = TrialSpec(
        dataset="digits", evaluation="full", epochs=2, batch_size=64, learning_rate=3e-3, likelihood="bernoulli", latent=latent
    )
    cohort = Cohort([spec], data.load_dataset("digits"), torch.device("cpu"))
    history = [next(iter(cohort.run_epoch().values())) for _ in range(spec.epochs)]
    vae = cohort.trained(cohort.specs[0])
    codes = metrics.encodings(vae, metrics.model_inputs(spec, cohort.data.test))
    kl = kl_per_dimension(codes.mean, codes.log_var).mean(0)
    scores = {"test/exact_log_px": -30.0} if latent == 2 else {}
    dead = {"encoder_1": 0.0, "decoder_1": 0.25}
    evaluation = metrics.Evaluation(scores, codes, kl, dead_by_layer=dead, ladder={1: -33.0, 10: -31.5})
    return figures.Subject(spec, vae, cohort.data, evaluation, history)


@pytest.fixture(scope="module")
def plane() -> figures.Subject:
    return subject(2)


@pytest.fixture(scope="module")
def space() -> figures.Subject:
    return subject(3)


def test_every_figure_draws_at_two_latents(plane: figures.Subject, tmp_path: Path) -> None:
    drawn = list(figures.draw(plane, tmp_path))
    assert [p.stem for p in drawn] == list(figures.FIGURES)
    assert all(p.stat().st_size > 1_000 for p in drawn)
    assert not plt.get_fignums()


def test_at_three_latents_those_of_a_plane_are_left_out(space: figures.Subject, tmp_path: Path) -> None:
    assert {p.stem for p in figures.draw(space, tmp_path)} == set(figures.FIGURES) - set(figures.NEEDS_TWO_LATENTS)


def test_a_glance_is_two_figures_and_a_quick_evaluation_has_four(plane: figures.Subject, tmp_path: Path) -> None:
    assert [p.stem for p in figures.draw(plane, tmp_path, figures.AT_A_GLANCE)] == ["reconstructions", "samples"]
    quick = replace(plane, spec=plane.spec.derive(evaluation="quick"))
    assert {p.stem for p in figures.draw(quick, tmp_path / "quick")} == set(figures.IN_QUICK)


def test_a_figure_without_numbers_is_left_out(space: figures.Subject) -> None:
    bare = replace(space, evaluation=replace(space.evaluation, ladder={}, dead_by_layer={}))
    assert not figures.fits("bounds", bare)
    assert not figures.fits("dead_units", bare)


def test_no_dead_units_are_said_in_words(space: figures.Subject) -> None:
    alive = replace(space, evaluation=replace(space.evaluation, dead_by_layer={"encoder_1": 0.0, "decoder_1": 0.0}))
    figure = figures.FIGURES["dead_units"](alive)
    assert "none of 2 layers has dead units" in [t.get_text() for t in figure.axes[0].texts]
    plt.close(figure)


@pytest.mark.parametrize("image", [0, 7, 50])
def test_the_posterior_on_its_grid(plane: figures.Subject, image: int) -> None:
    """It integrates to 1 under log p(x) by quadrature, and its KL is log p(x) less the ELBO, which draws estimate too."""
    x = metrics.model_inputs(plane.spec, plane.data.test)[[image]]
    view = metrics.native(plane.vae, x)
    found, log_px = posterior(plane.vae, view), exact(plane.vae, view).log_px.item()
    cell = (found.z1[1] - found.z1[0]) * (found.z2[1] - found.z2[0])
    assert np.exp(found.log_p + found.log_px - log_px).sum() * cell == pytest.approx(1, abs=5e-3)
    by_draws = metrics.estimate_elbo(plane.vae, view, samples=2_000)
    assert found.elbo == pytest.approx(by_draws.elbo, abs=4 * by_draws.standard_error + 1e-3)
    assert found.kl >= 0
    inside = found.log_p > found.level(0.5)
    assert np.exp(found.log_p[inside]).sum() * cell == pytest.approx(0.5, abs=0.02)


def test_the_scores_of_a_study_are_dots_by_arm_and_seed_about_a_bar_at_their_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"bce": [3.0, 1.0, 1.0], "mse": [4.0]}
    table = pd.DataFrame([{"arm": arm, "test/kl": v} for arm, seeds in values.items() for v in seeds])
    drawn, before = [], np.random.get_state()
    monkeypatch.setattr(study_figures, "new_figure", lambda *size: drawn.append(axes.new_figure(*size)) or drawn[0])
    study_figures.scores(table, palette.styles(list(values)), [SCORES["test/kl"]], tmp_path / "scores.png")
    panel = drawn[0].axes[0]
    assert [text.get_text() for text in panel.get_yticklabels()] == list(values)
    assert panel.yaxis_inverted()
    *clouds, bars = panel.collections
    for row, (arm, dots, bar) in enumerate(zip(values, clouds, bars.get_segments(), strict=True)):
        assert dots.get_offsets()[:, 0].tolist() == values[arm]
        assert bar[:, 0].tolist() == pytest.approx([np.mean(values[arm])] * 2)
        heights = dots.get_offsets()[:, 1]
        assert len(set(heights)) == len(heights)
        assert np.abs(heights - row).max() < 0.3
    assert len({tuple(dots.get_facecolor()[0]) for dots in clouds}) == 2
    assert [len(dots.get_paths()[0]) for dots in clouds] == [len(MarkerStyle(mark).get_path()) for mark in ("o", "s")]
    assert np.random.get_state()[1].tolist() == before[1].tolist()
    assert not plt.get_fignums()


def test_the_figures_of_a_study(tmp_path: Path) -> None:
    arms = [f"{family} beta={beta}" for family in ("bce", "mse") for beta in (1, 4)] + ["laplace"]
    rows = [
        {"arm": a, "test/kl": 5.0 + i + s / 9, "test/squared_error": 40.0 - i - s} for i, a in enumerate(arms) for s in range(2)
    ]
    table = pd.DataFrame(rows)
    study_figures.rate_distortion(table, palette.styles(arms), tmp_path / "rate_distortion.png")
    assert {p.name for p in tmp_path.iterdir() if p.suffix} == {f"rate_distortion.{kind}" for kind in ("png", "svg", "pdf")}
    assert not plt.get_fignums()


def test_every_arm_looks_the_same_in_all_figures_and_unlike_the_others() -> None:
    arms = [f"{family} beta={beta}" for family in "abcdefghij" for beta in (1, 4, 16)]
    looks = palette.styles(arms)
    assert len(set(looks.values())) == len(arms)
    assert palette.styles(arms)["c beta=4"] == looks["c beta=4"]
    assert len({looks[f"c beta={beta}"].mark for beta in (1, 4, 16)}) == 1
    assert all(re.fullmatch("#[0-9a-f]{6}", look.colour) for look in looks.values())


def test_a_figure_is_the_same_bytes_again_and_takes_a_pages_colours(tmp_path: Path) -> None:
    table = pd.DataFrame([{"arm": arm, "test/kl": v} for arm, v in (("bce", 1.0), ("bce", 2.0), ("mse", 3.0))])
    looks = palette.styles(["bce", "mse"])
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        study_figures.scores(table, looks, [SCORES["test/kl"]], tmp_path / name / "scores.png")
    for kind in ("png", "svg", "pdf"):
        assert (tmp_path / "once" / f"scores.{kind}").read_bytes() == (tmp_path / "again" / f"scores.{kind}").read_bytes()
    svg = inline(tmp_path / "once" / "scores.svg", 'a "panel"')
    assert svg.startswith('<svg role="img" aria-label="a &quot;panel&quot;" style="--width: 1152px" fill="currentColor"')
    assert "#000000" not in svg
    assert looks["bce"].colour in svg
    assert "currentColor" in svg
    assert "<metadata>" not in svg
