"""Times over commits: from the sessions on record to a page, and nothing that belongs to no commit or to another machine."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness import cli, paths
from harness.bench import history, history_page
from harness.errors import UserError

BCE = "step_time/likelihood/bce"


def bench(test: str, seconds: list[float], **extra: Any) -> dict[str, Any]:
    return {"fullname": f"tests/bench/test_step_time.py::{test}", "extra_info": extra, "stats": {"data": seconds}}


def keep(machine: str, commit: str, time: str | None, seconds: list[float], *, moment: str = "1", load: float = 0.5) -> None:
    """Keep a session of a step of 32 and of a race that has one round."""
    session = {
        "origin": {"commit": commit, "torch": "2.13.0", "device": machine.upper(), "load": load},
        "commit_info": {"time": time},
        "benchmarks": [bench("test_likelihood[bce]", seconds, units=32, unit="step"), bench("test_race", [9.0])],
    }
    folder = paths.mlruns() / "bench" / machine
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{moment}_{commit}.json").write_text(json.dumps(session))


def test_points_are_medians_and_quartiles_in_the_order_of_commits_and_machines_are_apart() -> None:
    keep("fast", "bbbb", "2026-11-27T03:00:00+00:00", [0.032, 0.064, 0.096, 0.128, 0.160], moment="1")
    keep("fast", "aaaa", "2026-11-26T03:00:00+00:00", [0.32, 0.32, 0.32], moment="2")
    keep("fast", "aaaa", "2026-11-26T03:00:00+00:00", [0.64, 0.64, 0.64], moment="3", load=2.5)
    keep("slow", "bbbb", "2026-11-27T03:00:00+00:00", [3.2, 3.2, 3.2])
    fast, slow = history.read(history.folder())
    assert (fast.machine, fast.device, slow.machine) == ("fast", "FAST", "slow")
    (series,) = fast.series  # the race has no quartiles
    assert (series.name, series.unit) == (BCE, "step")
    first, second = series.points
    assert (first.commit, first.date, first.rounds, first.load) == ("aaaa", "2026-11-26 03:00", 6, 2.5)
    assert (first.low, first.median, first.high) == pytest.approx((10, 15, 20))
    assert (second.low, second.median, second.high) == pytest.approx((2, 3, 4))
    assert series.change == pytest.approx(3 / 15 - 1)
    assert slow.series[0].change is None
    assert [p.median for p in slow.series[0].points] == pytest.approx([100])


def test_sessions_of_changed_files_are_counted_and_left_out() -> None:
    keep("fast", "aaaa", "2026-11-26T03:00:00+00:00", [1.0, 1.0, 1.0])
    keep("fast", "aaaa+dirty", "2026-11-26T03:00:00+00:00", [9.0, 9.0, 9.0])
    keep("fast", "unknown", None, [9.0, 9.0, 9.0])
    (fast,) = history.read(history.folder())
    assert fast.left_out == 2
    assert [p.commit for p in fast.series[0].points] == ["aaaa"]


def test_an_empty_store_is_said_to_be_empty_and_how_to_fill_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "history"]) == 2
    said = capsys.readouterr().err
    assert "no benchmarks of a commit are on record in" in said
    assert "make bench" in said
    keep("fast", "aaaa+dirty", "2026-11-26T03:00:00+00:00", [9.0, 9.0, 9.0])
    with pytest.raises(UserError, match="the 1 there were measured with changed files"):
        history.read(history.folder())
    assert not (history.folder() / history_page.PAGE).exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"origin": {}}', '{"origin": 3}'])
def test_a_file_that_is_no_session_is_named(content: str) -> None:
    keep("fast", "aaaa", "2026-11-26T03:00:00+00:00", [1.0, 1.0, 1.0])
    (history.folder() / "fast" / "other.json").write_text(content)
    with pytest.raises(UserError, match=r"other\.json is no session of benchmarks"):
        history.read(history.folder())


class Page(HTMLParser):
    """The tags of a page, and the text of its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_page_needs_no_other_file_and_has_a_figure_and_a_table_per_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    for day in range(1, 21):
        keep("fast", f"{day:04}aaaa", f"2026-11-{day:02}T03:00:00+00:00", [0.32 + day / 1000] * 3)
    keep("slow", "0001aaaa", "2026-11-01T03:00:00+00:00", [3.2, 3.2, 3.2])
    assert cli.main(["bench", "history"]) == 0
    file = Path(capsys.readouterr().out.removeprefix("written: ").strip())
    assert file == history.folder() / history_page.PAGE
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    assert [facts["aria-label"] for tag, facts in page.tags if tag == "svg"] == [
        f"{BCE}: ms per step over {commits} commits" for commits in (20, 1)
    ]
    assert sum(tag == "tr" for tag, _ in page.tags) == 20 + 1 + 2
    assert {"FAST", "SLOW", "0020aaa", "10.6 ms per step at 0020aaa, +0.3 % against 0019aaa"} <= set(page.texts)
    assert not [facts for _, facts in page.tags if {"src", "href"} & facts.keys()]
    assert not re.findall(r"url\((?!#)", text)
    assert not re.search(f"{history_page.INK}|{history_page.LINE}", text), "a colour that is not the page's"
    rows = list(csv.DictReader(io.StringIO((file.parent / history_page.TABLE).read_text(encoding="utf-8"))))
    assert [row["machine"] for row in rows] == ["fast"] * 20 + ["slow"]
    assert float(rows[-1]["median"]) == pytest.approx(100)
