"""Manifests: every field is there and says something, a patch makes the tree again, stops and their gaps are kept."""

import json
import subprocess
from pathlib import Path

import pytest
from evidence_home import Home

from harness import paths, provenance
from harness.evidence import facts
from harness.evidence.manifest import UNTOLD, gaps_s
from harness.evidence.schema import TRIAL, absent, canonical, sha256_of
from harness.executors import Epoch, Finished, Job, train
from harness.spec import EXECUTION, TrialSpec
from harness.training.checkpoints import Checkpoints

SPEC = TrialSpec(dataset="digits", network="mlp", hidden=(16,), batch_size=600, epochs=3, evaluation="validation")


def test_a_manifest_has_every_field_and_each_says_something(on_record: Home) -> None:
    for run in on_record.runs():
        text = (on_record.files(run) / "manifest.json").read_text()
        manifest = json.loads(text)
        assert text == canonical(manifest) + "\n"
        assert list(absent(manifest, TRIAL)) == []
        assert {group: set(manifest[group]) >= set(names) for group, names in TRIAL.items()} == dict.fromkeys(TRIAL, True)
        assert UNTOLD not in text
        assert "not told" not in text
        assert manifest["data"]["counts"] == {"train": 1197, "validation": 300, "test": 300}
        assert manifest["results"]["history"].keys() >= {"elbo/train", "elbo/validation", "diagnostics/gradient_norm"}
        assert not any(key.startswith("perf/") for key in manifest["results"]["history"])


def test_a_field_that_is_gone_is_named(on_record: Home) -> None:
    text = (on_record.files(on_record.runs()[0]) / "manifest.json").read_text()
    for group, names in TRIAL.items():
        for name in names:
            manifest = json.loads(text)
            del manifest[group][name]
            assert f"{group}.{name}" in list(absent(manifest, TRIAL))
    manifest = json.loads(text)
    del manifest["execution"]["stints"][0]["threads"]
    assert list(absent(manifest, TRIAL)) == ["execution.stints.0.threads"]


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_a_patch_makes_the_tree_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed, deleted and new files: blank lines at the end, other scripts, no newline at the end."""
    clone, again = tmp_path / "clone", tmp_path / "again"
    (clone / "harness").mkdir(parents=True)
    (clone / "harness" / "a.py").write_text("x = 1\n\n\n\n\ny = 2\n\n\n")
    (clone / "harness" / "b.py").write_text("z = 3\n")
    git(clone, "init", "-q")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "first")
    git(tmp_path, "clone", "-q", str(clone), str(again))
    (clone / "harness" / "a.py").write_text("x = 1\n\n\n\n\ny = 'ä'\n\n\n")
    (clone / "harness" / "b.py").unlink()
    (clone / "harness" / "new one.py").write_text("# neu: ß\n\nw = 4")
    (clone / "notes.txt").write_text("no source")
    monkeypatch.setattr(paths, "PROJECT", clone.resolve())
    monkeypatch.setattr(paths, "in_clone", lambda: True)
    for fact in (provenance.commit, facts.uncommitted, facts.untracked):
        monkeypatch.setattr(*owner_of(fact), fact.__wrapped__)
    assert facts.untracked() == ("harness/new one.py",)
    (tmp_path / "code.diff").write_text(facts.uncommitted())
    git(again, "apply", str(tmp_path / "code.diff"))
    kept = {p.name: p.read_bytes() for p in (again / "harness").iterdir()}
    assert kept == {p.name: p.read_bytes() for p in (clone / "harness").iterdir()}


def owner_of(function: object) -> tuple[object, str]:
    """The module of a function, and its name there."""
    name = function.__name__  # type: ignore[attr-defined]
    return (facts if hasattr(facts, name) else provenance), name


def test_stops_and_their_gaps_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    first = train(Job((SPEC,)), "cpu", tmp_path / "scratch", checkpoints)
    while not (isinstance(event := next(first), Epoch) and event.epoch == 2):
        pass
    first.close()
    start = checkpoints.newest(SPEC)
    assert start == 2
    path = tmp_path / "checkpoints" / SPEC.id / "000002.pt"
    assert checkpoints.digest(SPEC, start) == sha256_of(path)
    *_, last = train(Job((SPEC,), start=start), "cpu", tmp_path / "scratch", checkpoints)
    assert isinstance(last, Finished)
    told = json.loads((last.files / EXECUTION).read_text())
    assert [(s["from_epoch"], s["to_epoch"]) for s in told["stints"]] == [(0, 2), (2, 3)]
    (gap,) = gaps_s(told["stints"])
    assert 0 <= gap < 60
    assert told["seeds"].keys() == {"weights", "order", "latent", "pixels"}
