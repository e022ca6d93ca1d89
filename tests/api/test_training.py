"""Training of one VAE: as a study would, with its faults as errors."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import own_file
import pytest
import torch

import harness
from harness.api import training
from harness.errors import HarnessError, UserError
from harness.scores import SCORES
from harness.study.scores import lacking

TINY = harness.TrialSpec(dataset="digits", network="mlp", hidden=(16,), epochs=1, batch_size=300, evaluation="validation")


def test_a_loss_that_is_not_finite_is_an_error_with_its_step() -> None:
    with pytest.raises(HarnessError, match=r"loss not finite at step \d+ \(epoch 1\): .*learning_rate=1e\+30"):
        harness.train(replace(TINY, learning_rate=1e30), device="cpu", progress=False)


def test_an_update_that_ruins_the_model_after_a_finite_loss_is_an_error_with_score_epoch_and_cause() -> None:
    """The epoch has one step, whose loss is that of the initial weights."""
    ruined = replace(TINY, latent=3, batch_size=1197, learning_rate=1e10)
    with pytest.raises(HarnessError, match=r"not finite after epoch 1: elbo/validation = .*likely cause: learning_rate=1e\+10"):
        harness.train(ruined, device="cpu", progress=False)
    unseen = replace(ruined, fit_on="train+validation", batch_size=1497, evaluation="quick")
    with pytest.raises(HarnessError, match=r"not finite after the last epoch \(1\): test/elbo = .*learning_rate=1e\+10"):
        harness.train(unseen, device="cpu", progress=False)


def test_a_likelihood_whose_log_pmf_is_none_is_scored_without_tier_b(tmp_path: Path) -> None:
    """As one without the method: the report's table of tier B says so (tests/report)."""
    path = own_file.write(tmp_path, own_file.SOURCE.replace("outputs: int = 2", "outputs: int = 2\n    log_pmf: None = None"))
    spec = replace(TINY, likelihood=f"{path}:StudentT", latent=2, evaluation="quick")
    assert not spec.has_grey_pmf
    scores = harness.train(spec, device="cpu", progress=False).scores
    assert {key for key in scores if "own_bits" in key} == set()
    assert {"test/common_bits", "test/elbo", "test/iw_100"} <= scores.keys()
    assert lacking(SCORES["test/own_bits"], spec) == "takes a likelihood that gives the grey levels probabilities"


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UserError, match="kl_warmup=400 takes longer than the 1 epoch of training\ntrain for more epochs"):
        harness.train(replace(TINY, kl_warmup=400.0), device="cpu", progress=False)
    with pytest.raises(UserError, match="train takes a TrialSpec, got str"):
        harness.train("bce")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        harness.train(TINY, device="gpu")


def test_an_interrupt_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object, text: str) -> None:
        if text.startswith("epoch 1"):
            raise KeyboardInterrupt

    monkeypatch.setattr(training._Line, "show", interrupted)
    with pytest.raises(KeyboardInterrupt):
        harness.train(TINY, device="cpu")


def test_progress_is_a_line_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    harness.train(TINY, device="cpu")
    out, err = capfd.readouterr()
    assert not out
    assert re.fullmatch(r"trained in \d+\.\d s: ELBO -\d+\.\d nats \(validation\)\n", err)
    harness.train(TINY, device="cpu", progress=False)
    assert capfd.readouterr() == ("", "")


def test_training_leaves_the_process_as_it_was() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(threads + 1)
    harness.train(TINY, device="cpu", progress=False)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_the_package_is_imported_without_torch_and_mlflow() -> None:
    code = (
        "import sys, harness; harness.TrialSpec(latent=3); harness.Ablation, harness.Budget, harness.Search, harness.Hypothesis\n"
        "assert not {'torch', 'mlflow', 'numpy', 'pandas'} & set(sys.modules), sorted(sys.modules)\n"
        "assert set(harness.__all__) <= set(dir(harness))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        harness.trian  # noqa: B018
    assert all(getattr(harness, name) for name in harness.__all__)
