"""Counts of a training step: against their file, and any change of them shows."""

import io
import json

import pytest
import torch
from rich.console import Console

from harness.bench import counts
from harness.kernels import library
from harness.models import objectives
from harness.training.manual import ManualStep


def test_counts_are_those_on_record():
    before = counts.on_record().get(counts.key())
    if before is None:
        pytest.skip(f"{counts.file().name} has no entry for {counts.key()}; `harness bench counts --refresh` writes one")
    assert counts.changes(counts.count_all(), before) == [], "if meant: harness bench counts --refresh"


def test_one_more_operation_in_the_step_is_found(monkeypatch):
    before = counts.count("bce")
    assert counts.count("bce") == before
    plain = objectives.elbo
    monkeypatch.setattr(objectives, "elbo", lambda p, beta, free_bits: plain(p, beta, free_bits) * 1.0)
    found = counts.changes({"bce": counts.count("bce")}, {"bce": before})
    assert any("aten_ops" in line for line in found)


def test_one_more_operation_in_the_step_by_hand_is_found(monkeypatch):
    if library.load() is None:
        pytest.skip(f"no step by hand here: {library.fault()}")
    before = counts.count("bce")
    plain = ManualStep._elbo
    monkeypatch.setattr(ManualStep, "_elbo", lambda *arguments: (plain(*arguments), torch.zeros(1)))
    ops = before["by_hand_ops"]
    assert counts.changes({"bce": counts.count("bce")}, {"bce": before}) == [f"bce: by_hand_ops {ops} -> {ops + 1}"]


def test_a_step_that_looks_at_a_value_breaks_its_graph(monkeypatch):
    plain = objectives.elbo
    monkeypatch.setattr(objectives, "elbo", lambda p, beta, f: plain(p, beta, f) * float(p.log_px.mean() < 0))
    found = counts.count("bce")
    assert found["graph_breaks"] == 1
    assert "graph_ops" not in found


def test_bytes_are_counted_while_they_live():
    with counts.Meter() as meter:
        for _ in range(3):
            torch.zeros(1000)
        assert meter.peak == 4000
        kept = [torch.zeros(1000) for _ in range(3)]
        kept[0].add_(1).view(10, 100)
    assert meter.peak == 12000


def test_any_change_of_operations_counts_and_one_per_cent_of_memory():
    def changes(name, now):
        return counts.changes({"bce": {name: now}}, {"bce": {name: 1000}})

    assert changes("aten_ops", 1000) == changes("peak_bytes", 990) == changes("peak_bytes", 1010) == []
    assert changes("aten_ops", 1001) == ["bce: aten_ops 1,000 -> 1,001"]
    assert changes("peak_bytes", 989) == ["bce: peak_bytes 1,000 -> 989"]
    assert changes("peak_bytes", 1011) == ["bce: peak_bytes 1,000 -> 1,011"]
    assert counts.changes({}, {"bce": {"aten_ops": 1}}) == ["bce: aten_ops 1 -> none"]


def test_counts_without_an_entry_are_said_to_be_unchecked(tmp_path):
    file, said = tmp_path / "counts.json", Console(file=io.StringIO(), width=200)
    assert not counts.report(said, "cpu", file, ["bce"])
    assert "NOT CHECKED" in said.file.getvalue()
    counts.refresh("cpu", file, ["bce"])
    assert not counts.report(said, "cpu", file, ["bce"])
    assert "unchanged" in said.file.getvalue()
    file.write_text(json.dumps({counts.key(): {"bce": {"aten_ops": 1}}}))
    assert counts.report(said, "cpu", file, ["bce"])
    assert "CHANGED" in said.file.getvalue()
    assert "--refresh" in said.file.getvalue()
