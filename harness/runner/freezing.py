"""The command `harness freeze`: a finished study as one folder that opens without any server."""

import io
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from harness import evidence, paths, report
from harness.errors import UserError
from harness.report import frozen
from harness.runner.outcome import report_study
from harness.stores.space import full_in_words
from harness.study import load
from harness.tracking import trial_runs

MARK = "frozen.json"  # it says that a folder was made by this command, which may then make it anew


@full_in_words()
def freeze_study(reference: str, budget: str, console: Console, *, out: str = "", storage: str = "") -> int:
    """Write a study's report, the pages of its runs and their records into one folder: `harness freeze`. Return the exit code.

    Args:
        reference: the study, as `study.load` takes it.
        budget: of the study, by name.
        console: where the folder is named.
        out: the folder; empty for one in mlruns/frozen/.
        storage: the URI of a PostgreSQL server that holds the trials.

    Raises:
        UserError: no trial is on record, or the folder holds something else.
    """
    loaded = load(reference)
    folder = Path(out).expanduser() if out else paths.mlruns() / "frozen" / report.folder(loaded.name, budget).name
    _check(folder)
    report_study(reference, budget, Console(file=io.StringIO()), storage=storage, keep=True)
    made = report.folder(loaded.name, budget)
    manifest = json.loads((made / evidence.FILE).read_text(encoding="utf-8"))["report"]
    partial = folder.with_name(f".{folder.name}.partial")  # a folder that was cut off must not look like one that is whole
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    count = frozen.freeze(made, _runs(loaded.name, budget, manifest["runs"]), loaded.study.scores, partial)
    (partial / MARK).write_text(json.dumps({"study": loaded.name, "budget": budget, "runs": count}), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    console.print(
        f"frozen: {shlex.quote(str(folder.resolve() / frozen.PAGE))}\n"
        f"{count} runs, {size / 1e6:.0f} MB, without weights; any browser opens it, without a server: zip it, send it, publish it",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    return 0


def _check(folder: Path) -> None:
    """Raise an error if a folder holds something that this command has not made."""
    if folder.exists() and not (folder / MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already, and not a frozen study: name a new folder, or an empty one")


def _runs(study: str, budget: str, counted: dict[str, str]) -> Iterator[frozen.FrozenRun]:
    """Yield the runs that a report is made of."""
    for trial in trial_runs(study, budget).values():
        if trial.record.run in counted:
            with trial.folder() as files:
                yield frozen.FrozenRun(run=trial.record.run, arm=trial.arm, seed=trial.seed, files=files)
