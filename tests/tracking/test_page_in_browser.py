"""What people see in MLflow: the pages of a study, a trial and a winner, in a real browser."""

import shutil
from pathlib import Path

import pytest
import torch
from browser import Browser
from mlflow_server import serving

from harness.data import load_dataset
from harness.figures.schedule import KEYS, epochs_pictured
from harness.figures.snapshots import snapshot, write_snapshots
from harness.models.vae import build
from harness.report import note
from harness.scores import ELBO_CURVES, KL_CURVES
from harness.spec import Result, TrialSpec
from harness.study import Ablation, Budget
from harness.tracking import MlflowTracker, server
from harness.tracking.layout import COMPARING, TRAINING
from harness.tracking.model_export import export
from harness.tracking.registry import model_name

EPOCHS = 3
STUDY = Ablation(
    base=TrialSpec(dataset="digits", epochs=EPOCHS),
    arms={"bce": {"likelihood": "bce"}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=EPOCHS, seeds=range(2))},
)
COLOURS = {"bce": "#0072b2", "mse": "#d55e00"}
USERS = "/ajax-api/2.0/mlflow/users/current"  # MLflow's page asks for it of a server without users too, which has none


def recorded(folder: Path) -> tuple[MlflowTracker, dict[str, str]]:
    """A finished study of two arms and two seeds, of untrained models, and its runs by arm and seed."""
    text = note("Does it show?", "default", STUDY)
    tracker = MlflowTracker("a_study", "default", text, epochs=EPOCHS, colours=COLOURS)
    data, runs = load_dataset("digits", lambda _: None, {}), {}
    for number, cell in enumerate(STUDY.cells("default")):
        spec, files = cell.spec, folder / cell.spec.id
        runs[f"{cell.arm} {cell.seed}"] = run = tracker.begin(spec, cell.arm, number, 1, {"dataset.digest": data.digest})
        for epoch in range(1, EPOCHS + 1):
            tracker.log(run, epoch, {"elbo/validation": -150.0 + epoch + number, "kl/validation": 5.0 + number, "kl/train": 5.0})
        (files / "figures").mkdir(parents=True)
        vae = build(spec, data.image_shape)
        vae.reset(0, torch.Generator().manual_seed(number))
        pictures = {epoch: snapshot(spec, vae, data) for epoch in epochs_pictured(EPOCHS)}
        (files / "figures" / "samples.png").write_bytes(pictures[EPOCHS]["samples"].numpy().tobytes())
        if cell.seed == 0:
            write_snapshots(pictures, spec.id, files)
        torch.save(vae.state_dict(), files / "state_dict.pt")
        tracker.finish(run, Result(spec, {"test/squared_error": 40.0 + number, "test/common_bits": 1.5 + number / 100}), files)
    spec = STUDY.cells("default")[0].spec
    uri = tracker.log_model(folder, export(spec, folder / spec.id / "state_dict.pt", folder), spec.latent)
    report = folder / "report"
    report.mkdir()
    (report / "report.html").write_text("the report")
    tags = {"verdict.1": "open", "winner": "bce / seed 0", "winner.cell": spec.id, "winner.model": uri}
    tracker.finish_study(report, tags, note("Does it show?", "default", STUDY, pages=tracker.pages))
    return tracker, runs


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed: nobody looked at the pages")
def test_pages_show_what_matters_and_ask_nobody_else(mlflow_store: Path, tmp_path: Path) -> None:
    tracker, runs = recorded(tmp_path / "study")
    with serving(server.free_port(15_000)) as address, Browser(1000, 3600) as browser:
        browser.open(address + tracker.ui_path)
        browser.wait("document.querySelectorAll('.js-plotly-plot').length >= 5")
        browser.wait(f"document.querySelectorAll('img[src*=get-artifact]').length >= {len(KEYS) * 2}")
        _check_comparison(browser)
        browser.open(address + tracker.pages["means of the arms"])
        browser.wait("document.body.innerText.includes('Group: bce')")
        browser.open(f"{address}/#/experiments/{tracker.experiment_id}/runs/{runs['bce 0']}")
        browser.wait("[...document.images].some(i => i.src.includes('samples.png') && i.naturalWidth > 0)")
        browser.wait("document.body.innerText.includes('1.500') && document.body.innerText.includes('common head')")
        browser.open(f"{address}/#/models/{model_name('a_study')}/versions/1")
        browser.wait("document.body.innerText.includes('bce / seed 0') && document.body.innerText.includes('encode')")
        browser.open(f"{address}/#/experiments/{tracker.experiment_id}/runs/{tracker.parent}")
        browser.wait("document.body.innerText.includes('common_bits/mse') && document.body.innerText.includes('Does it show?')")
        assert browser.hosts() == {address.removeprefix("http://")}
        assert [fault for fault in browser.failed if not fault.endswith(USERS)] == []


def _check_comparison(browser: Browser) -> None:
    """The page of all seeds: sections in their order, a colour for each arm, readable titles, an open description, no chat."""
    text = browser.text()
    places = [text.find(title) for title in (COMPARING, KL_CURVES, ELBO_CURVES, TRAINING)]
    assert -1 not in places
    assert places == sorted(places)
    assert "How to read it" in text
    assert "means of the arms" in text
    assert "Ask a question" not in text
    height = "[...document.querySelectorAll('a')].find(a => a.innerText == 'means of the arms').getBoundingClientRect().bottom"
    assert browser.value(f"({height}) < innerHeight")
    found = set(browser.value("[...document.querySelectorAll('.js-plotly-plot .scatterlayer path.point')].map(p => p.style.fill)"))
    assert {"rgb(0, 114, 178)", "rgb(213, 94, 0)"} <= found
    assert browser.value(
        "document.querySelector('.js-plotly-plot')._fullLayout.yaxis.range[0] > 1"
    )  # not at 0: scores are 1.5 and more
