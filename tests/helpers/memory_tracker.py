"""A `Tracker` in memory: what a study's loop does to it can be read off its dictionaries."""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from harness.spec import Result, TrialSpec
from harness.tracking import Record


class MemoryTracker:
    """Runs by id, each with its cell, trial, rows, metrics and status; the parent's tags and its report's file names."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.summary: Mapping[str, str] = {}
        self.report: list[str] = []
        self.note = ""
        self.pages: Mapping[str, str] = {}
        self.plan = ("", "")
        self.superseded: dict[str, str] = {}

    def begin(self, spec: TrialSpec, arm: str, trial: int, attempt: int, origin: Mapping[str, str]) -> str:
        run = f"run-{len(self.runs)}"
        self.runs[run] = {
            "cell": spec.id,
            "trial": trial,
            "rows": [],
            "status": "RUNNING",
            "metrics": {},
            "ledger": origin["ledger"],
        }
        return run

    def log(self, run: str, step: int, row: Mapping[str, float]) -> None:
        self.runs[run]["rows"].append((step, dict(row)))
        self.runs[run]["metrics"].update(row)

    def recorded(self, run: str) -> Record:
        return Record(run, self.runs[run]["metrics"], {"ledger": self.runs[run]["ledger"]})

    def finish(self, run: str, result: Result, files: Path) -> None:
        copies = Path(str(files) + ".kept")
        shutil.copytree(files, copies)
        self.runs[run]["files"] = copies
        self.runs[run]["metrics"].update(result.metrics)
        self.runs[run]["status"] = "FINISHED"

    def fail(self, run: str, why: str, *, killed: bool = False) -> None:
        self.runs[run].update(status="KILLED" if killed else "FAILED", failure=why)

    def prune(self, run: str, epoch: int) -> None:
        self.runs[run].update(status="KILLED", pruned=epoch)

    def run_path(self, run: str) -> str:
        return f"/#/{run}"

    def reopen(self, run: str) -> int | None:
        if self.runs[run]["status"] == "FINISHED":
            return None
        self.runs[run]["status"] = "RUNNING"
        return max((step for step, _ in self.runs[run]["rows"]), default=0)

    def look(self, run: str) -> tuple[str, Mapping[str, float]]:
        kept = self.runs.get(run, {"status": "", "metrics": {}})
        return kept["status"], kept["metrics"]

    def finished_runs(self, store: str) -> set[str]:
        return {r for r, kept in self.runs.items() if kept["ledger"] == store and kept["status"] == "FINISHED"}

    def close_orphans(self, store: str, keep: set[str], older_than_s: float) -> int:
        lost = [r for r, k in self.runs.items() if k["ledger"] == store and k["status"] == "RUNNING" and r not in keep]
        for run in lost:
            self.fail(run, "lost", killed=True)
        return len(lost)

    def results(self, runs: Mapping[str, str]) -> dict[str, Record]:
        return {cell: Record(run, self.runs[run]["metrics"], {}) for cell, run in runs.items()}

    def file(self, run: str, name: str) -> Path:
        return self.runs[run]["files"] / name

    def reopen_study(self) -> None:
        self.summary = {}

    def stop_study(self) -> None:
        self.summary = {"stopped": "yes"}

    def plan_on_record(self) -> tuple[str, str]:
        return self.plan

    def keep_plan(self, digest: str, text: str) -> None:
        self.plan = (digest, text)

    def supersede(self, store: str, cells: Collection[str], by: str) -> None:
        own = {r: kept["cell"] for r, kept in self.runs.items() if kept["ledger"] == store}
        self.summary = {**self.summary, "superseded.by": by}
        self.superseded |= {run: "no" if cell in cells else by for run, cell in own.items()}

    def finish_study(self, files: Path, summary: Mapping[str, str], note: str) -> None:
        self.summary, self.note = summary, note
        self.report = sorted(p.relative_to(files).as_posix() for p in files.rglob("*") if p.is_file())

    def study_tag(self, key: str) -> str | None:
        return self.summary.get(key)

    def log_model(self, programs: Path, example: Any, latent: int) -> str:
        return "memory"
