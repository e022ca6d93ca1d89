"""A study's report: complete, self-contained, and silent about what its results do not show."""

import io
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from browser import Browser
from drivers import driver_of, queue_of
from homes import home_at
from memory_tracker import MemoryTracker
from rich.console import Console

from harness import paths, report
from harness.queue import AblationQueue
from harness.report import page
from harness.study import Ablation, Budget, Hypothesis, load_study
from harness.tracking import model_export

ORIGIN = {"dataset.digest": "digest", "device": "a CPU"}
LOSSES = load_study("loss_ablation")
SMALL = replace(
    LOSSES,
    base=LOSSES.base.derive(dataset="digits", batch_size=600),
    arms={"bce": {"likelihood": "bce"}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=1, seeds=range(2))},
    hypotheses=(Hypothesis(better="bce", worse="mse", metric="test/squared_error"),),
)


Trained = tuple[AblationQueue, MemoryTracker]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """The small study when it is done."""
    folder = tmp_path_factory.mktemp("trained")
    with home_at(folder) as patch:
        patch.setenv("HARNESS_DATA", os.environ.get("HARNESS_DATA") or str(paths.PROJECT / "data"))
        queue, tracker = queue_of(SMALL, "loss_ablation"), MemoryTracker()
        queue.prepare()
        driver_of(queue, tracker, folder).run()
        yield queue, tracker


def findings_of(study: Ablation, trained: Trained) -> report.AblationResults:
    queue, tracker = trained
    return report.AblationResults.collect("loss_ablation", "default", study, queue.done(), queue.given_up(), tracker)


def test_report_has_every_part_and_needs_nothing_else(trained: Trained) -> None:
    _, tracker = trained
    findings = findings_of(SMALL, trained)
    report.publish(findings, tracker)
    folder = report.folder("loss_ablation", "default")
    made = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    figures = {f"{name}.{kind}" for name in ("scores", "rate_distortion", "gallery") for kind in ("png", "svg", "pdf")}
    data = {"verdicts.json", "trials.csv", "arms.csv", "differences.csv"}
    assert figures | data | {"report.html", "manifest.json"} == {name for name in made if "/" not in name}
    assert {"tables/cost.tex", "tables/cost.md", "parts/00-images.png", "parts/test-squared-error.svg"} < made
    html = (folder / "report.html").read_text()
    assert not re.search(r'src="(?!data:)|(?<!a )(?<!class="run" )href="(?!#|data:)', html)
    for link in re.findall(r'<a href="([^#"][^"]*)"', html):
        assert (folder / link).is_file(), link
    anchors = set(re.findall(r'href="#([^"]+)"', html))
    assert anchors <= set(re.findall(r'id="([^"]+)"', html))
    assert len(set(re.findall(r'class="run" href="([^"]+)"', html))) == 4
    for part in ("bce beats mse", "density on v/255", "pseudo on grey levels", "15-NN accuracy", "mse - bce", "Cost"):
        assert part in html
    trials = pd.read_csv(report.folder("loss_ablation", "default") / "trials.csv")
    assert len(trials) == 4
    assert trials["cell"].is_unique
    assert tracker.summary["winner.model"] == "memory"


def test_a_winner_that_cannot_be_exported_leaves_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("cannot trace this\nmore of it")

    monkeypatch.setattr(model_export, "export", refuse)
    tracker = MemoryTracker()
    tracker.runs["a run"] = {"files": tmp_path}
    assert page._keep(SMALL.cells("default")[0], tracker, "a run") == "none: RuntimeError: cannot trace this"


def test_two_seeds_are_told_apart_from_a_verdict(trained: Trained) -> None:
    screen = io.StringIO()
    report.show(findings_of(SMALL, trained), Console(file=screen, width=80))
    shown = screen.getvalue()
    assert "no verdict, 2 seeds cannot show it (6 could)" in " ".join(shown.split())
    table = [line for line in shown.splitlines() if "±" in line]
    assert len(table) == 1 + len(SMALL.arms)  # the title and one unbroken line per arm
    assert all(len(line) <= 80 for line in table)


@pytest.mark.slow
def test_a_hypothesis_without_its_score_is_not_passed_over(trained: Trained) -> None:
    deep = Hypothesis(better="bce", worse="mse", metric="test/common_bits_exact")  # a quick evaluation leaves it out
    _, tracker = trained
    findings = findings_of(replace(SMALL, hypotheses=(deep,)), trained)
    screen = io.StringIO()
    report.show(findings, Console(file=screen, width=80))
    assert "open  bce beats mse on common head, exact (bits/dim): no verdict" in screen.getvalue()
    report.publish(findings, tracker)
    assert "no verdict, no seed has the score" in (report.folder("loss_ablation", "default") / "report.html").read_text()


def test_the_winner_is_chosen_on_validation(trained: Trained) -> None:
    findings = findings_of(SMALL, trained)
    means = findings.table.groupby("arm")["validation/squared_error"].mean()
    assert findings.winner is not None
    assert findings.winner.arm == means.idxmin()
    mine = findings.table[findings.table["arm"] == findings.winner.arm].set_index("seed")["validation/squared_error"]
    assert findings.winner.seed == mine.idxmin()


# The least contrast of a text with what lies behind it, by WCAG 2.2, and the text that has it.
LEAST_CONTRAST = """(() => {
  const rgb = c => { const n = c.match(/[\\d.]+/g).map(Number); return n.length > 3 && n[3] === 0 ? null : n.slice(0, 3); };
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                       return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c) return c; }
                        return [255, 255, 255]; };
  let worst = [99, ''], seen = 0;
  for (const e of document.querySelectorAll('body *')) {
    const text = [...e.childNodes].filter(n => n.nodeType === 3 && n.data.trim()).map(n => n.data.trim()).join(' ');
    if (!text || e.closest('svg, style')) continue;
    const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e)), c = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    if (c < worst[0]) worst = [c, text.slice(0, 80)];
  }
  return [...worst, seen, getComputedStyle(document.body).backgroundColor];
})()"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
def test_the_page_is_readable_on_a_phone_in_the_dark_and_on_paper(trained: Trained) -> None:
    _, tracker = trained
    report.publish(findings_of(SMALL, trained), tracker, question="Does it show?")
    page = report.folder("loss_ablation", "default") / "report.html"
    with Browser(390, 844) as browser:
        browser.open(page.as_uri())
        browser.wait("document.readyState === 'complete' && document.querySelectorAll('figure').length > 3")
        assert browser.value("document.documentElement.scrollWidth") <= 390
        widths = browser.value("[...document.querySelectorAll('figure svg, figure img')].map(e => e.getBoundingClientRect().width)")
        assert len(widths) > 8
        assert min(widths) >= 330
        assert browser.value("[...document.querySelectorAll('img')].every(e => e.naturalWidth > 0)")
        for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 24, 31)")):
            browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            contrast, text, seen, found = browser.value(LEAST_CONTRAST)
            assert contrast >= 4.5, f"{scheme}: {text!r} has {contrast:.2f}"
            assert seen > 100
            assert found == paper
            ink = browser.value("getComputedStyle(document.querySelector('figure svg')).fill")
            assert ink == browser.value("getComputedStyle(document.body).color")
        browser.ask("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.value("getComputedStyle(document.querySelector('.files')).display") == "none"
        assert not browser.hosts()
        assert not browser.failed
