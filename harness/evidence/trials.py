"""Where the two stores do not agree: the trials of Optuna's, and the runs of MLflow's that they name."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from harness.evidence.faults import Found
from harness.queue import TrialOnRecord
from harness.tracking import Inspected

# States in which a trial of a search may have finished runs beside one that never will, or that is still to come.
UNDER_WAY = ("RUNNING", "WAITING", "PRUNED")


def store_faults(found: Found, runs: Sequence[Inspected], trials: Sequence[TrialOnRecord], planned: Mapping[str, str]) -> None:
    """Add where the two stores do not agree: every trial that counts names a finished run, and every finished run one such trial.

    Args:
        found: the faults.
        runs: of MLflow.
        trials: of the trial store.
        planned: the names of the cells that the study's file has, by the id of the spec.
    """
    by_id = {r.run: r for r in runs}
    named: dict[str, TrialOnRecord] = {}
    finished = {run.run for run in runs if run.status == "FINISHED"}
    newest = {(t.store, t.cell): t.number for t in trials if t.state == "COMPLETE" and finished & {*t.runs.values()}}
    for t in trials:
        for part, run in t.runs.items():
            named[run] = t
            again = t.replaced or (t.cell and newest.get((t.store, t.cell), -1) > t.number)
            if again and t.state == "COMPLETE" and run not in finished:
                found.elsewhere.append(f"the run {run}, which was deleted: its trial was trained again")
                continue
            _trial_faults(found, t, part, by_id.get(run))
        _value_faults(found, t)
    cells: dict[tuple[str, str], list[Inspected]] = {}
    for r in runs:
        if r.status != "FINISHED":
            continue
        if r.run not in named:
            found.add(r.name, r.run, "FINISHED, but no trial of the trial store names it")
        elif named[r.run].replaced:
            continue  # its trial was queued again, and counts under the other number
        cells.setdefault((r.tags.get("ledger", ""), r.tags.get("cell", "")), []).append(r)
    for same in cells.values():
        if len(same) > 1:
            others = ", ".join(r.run for r in same[1:])
            found.add(same[0].name, same[0].run, f"its cell has {len(same)} finished runs, 1 counts: also {others}")
    settled = {cell for _, cell in cells} | {t.cell for t in trials if t.given_up}
    found.lines += [f"{name} (spec {cell}): has no result" for cell, name in planned.items() if cell not in settled]


def _trial_faults(found: Found, t: TrialOnRecord, part: int, run: Inspected | None) -> None:
    """Add what is wrong with a trial and the run that it names for one of its seeds."""
    status = run.status if run else "not there"
    name, run_id = (f"{run.name}, {t.name}" if run else t.name), t.runs[part]
    over = t.state == "COMPLETE"
    if over and status != "FINISHED":
        found.add(name, run_id, f"the trial is COMPLETE, but the status of its run is {status}")
    fitting = over or (not t.cell and (t.state in UNDER_WAY or t.given_up or t.replaced))
    if status == "FINISHED" and not fitting:
        found.add(name, run_id, f"the run is FINISHED, but the state of its trial is {t.state}")
    if run is None:
        return
    if t.cell and run.tags.get("cell") != t.cell:
        found.add(name, run_id, f"the trial is of the spec {t.cell}, its run of {run.tags.get('cell')}")
    if run.tags.get("trial") != t.was.get(part, str(t.number)):
        found.add(name, run_id, f"the run names trial {run.tags.get('trial')}, the trial is {t.number}")
    for name_of, value in _fields_of(t.params).items():
        if not _is_kept(value, run.params.get(name_of, "None")):
            found.add(name, run_id, f"the point of the trial has {name_of} {value!r}, its run {run.params.get(name_of)}")
    for value in t.values.get(part, ()) if over else ():
        if value not in run.record.metrics.values():
            found.add(name, run_id, f"the trial is judged by {value}, which is no score of its run")


def _value_faults(found: Found, t: TrialOnRecord) -> None:
    """Add it if Optuna was told of a trial of a search another value than the mean over its seeds."""
    if t.cell or t.state != "COMPLETE":
        return
    seeds = [t.values[part] for part in sorted(t.values)]
    means = [sum(values) / len(values) for values in zip(*seeds, strict=False)]
    if means != list(t.told):
        runs = ", ".join(t.runs.values())
        found.add(t.name, runs, f"Optuna was told {list(t.told)}, but the mean of its seeds' values is {means}")


def _fields_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a trial at a point of a search. The widths of layers, `hidden/1` and so on, are one field.

    >>> _fields_of({"latent": 2, "hidden/layers": 2, "hidden/2": 8, "hidden/1": 16})
    {'latent': 2, 'hidden': [16, 8]}
    """
    fields: dict[str, Any] = {name: value for name, value in params.items() if "/" not in name}
    widths = sorted(
        (outer, int(inner), v) for (outer, _, inner), v in ((k.partition("/"), v) for k, v in params.items()) if inner.isdigit()
    )
    for outer, i, width in widths:
        if i <= params.get(f"{outer}/layers", i):
            fields.setdefault(outer, []).append(width)
    return fields


def _is_kept(value: Any, kept: str) -> bool:
    """Return whether the value of a field at a point of a search is that of a parameter of a run.

    A tuple is chosen by its text, and a run keeps a list. Not compared are the name of the user's own code, which a run keeps with
    its digest, and None, for which a run keeps the default.

    >>> _is_kept(0.5, "0.5"), _is_kept("(16, 8)", "[16, 8]"), _is_kept("relu", "tanh")
    (True, True, False)
    """
    if isinstance(value, str) and kept.startswith("["):
        return str(tuple(ast.literal_eval(kept))) == value
    return str(value) == kept or value is None or ":" in str(value)
