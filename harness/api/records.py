"""Trials on record: one as a model, those of a study as a frame."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import references
from harness.api.model import SPEC, WEIGHTS, Model, read, read_network, table
from harness.data import load_dataset
from harness.errors import UserError, unknown
from harness.figures.axes import kept_images
from harness.spec import TrialSpec, flattened
from harness.study import with_budget
from harness.tracking import TrialRun, beside, is_on_record, trial_run, trial_runs

PICTURES = "pictures.npz"  # of a trial that was scored on the test set


def load(name: str | Path, *, arm: str | None = None, seed: int = 0, budget: str | None = None) -> Model:
    """Return a trained VAE, on the CPU. Code of the user's own comes with the record, and is run: load what you trust.

    Args:
        name: The folder that `Model.save` wrote; or the id of a trial's run in MLflow; or, with an arm, the name of a study,
            behind which a budget may stand: `loss_ablation@smoke`.
        arm: The arm of the study.
        seed: The seed of the arm.
        budget: The budget of the study; `default` unless it or the name says another.

    Raises:
        UserError: There is no such folder, run, study, arm or seed, or the run keeps no weights;
            or name and `budget` name two budgets.
        MachineError: The tracking store cannot be read.
        DataError: The run keeps no pictures, which give the images' shape, and its data set cannot be had.

    >>> import harness, tempfile
    >>> spec = harness.TrialSpec(dataset="digits", epochs=1, evaluation="validation")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     harness.train(spec, device="cpu", progress=False).save(folder)
    ...     harness.load(folder).spec == spec
    True
    """
    if arm is not None:
        return _from_run(_find(*with_budget(str(name), budget), arm, seed))
    if (Path(name) / SPEC).exists():
        return read(Path(name))
    if re.fullmatch("[0-9a-f]{32}", str(name)):
        return _from_run(trial_run(str(name)))
    raise UserError(
        f"{name} is neither a folder with a {SPEC} nor the id of a run\n"
        f"the trial of a study: harness.load({str(name)!r}, arm=..., seed=0); harness.frame({str(name)!r}) shows its arms"
    )


def frame(study: str, budget: str | None = None) -> pd.DataFrame:
    """Return the finished trials of a study and budget as a frame, a row for each arm and seed: its newest trial.

    Its columns are `arm`, `seed`, the fields of the spec that differ between the trials, all scores and last metrics by metric key,
    and `run`, the id of the trial's run in MLflow. A score that a trial lacks is NaN.

    Args:
        study: The name of the study, behind which a budget may stand: `loss_ablation@smoke`.
        budget: The budget, by name; `default` unless it or the study says another.

    Raises:
        UserError: No such study and budget is on record, or two budgets are named.
        MachineError: The tracking store cannot be read.
    """
    newest = {(t.arm, t.seed): t for t in _trials(*with_budget(study, budget)).values()}
    trials = list(newest.values())
    specs = [flattened(t.spec()) for t in trials]
    values = {
        name: [_hashable(s.get(name)) for s in specs] for name in dict.fromkeys(name for s in specs for name in s) if name != "seed"
    }
    varying = [name for name, column in values.items() if len({json.dumps(v, sort_keys=True) for v in column}) > 1]
    keys = sorted({key for t in trials for key in t.record.metrics})
    columns = {
        "arm": [t.arm for t in trials],
        "seed": [t.seed for t in trials],
        **{name: values[name] for name in varying},
        **{key: [t.record.metrics.get(key, float("nan")) for t in trials] for key in keys},
        "run": [t.record.run for t in trials],
    }
    return pd.DataFrame(columns)


def _hashable(value: Any) -> Any:
    """Return a value by which a frame can be grouped: a list as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _trials(study: str, budget: str) -> dict[str, TrialRun]:
    """Return the finished trials of a study and budget by cell id.

    Raises:
        UserError: No such study and budget is on record; the message names the budgets that are.
    """
    if not is_on_record(study, budget) and (others := beside(study, budget, f"{study}@{{}}")):
        raise UserError(f"no trial of {study} ({budget} budget) is on record{others}")
    return trial_runs(study, budget)


def _find(study: str, budget: str, arm: str, seed: int) -> TrialRun:
    """Return the newest finished trial of an arm and seed."""
    trials = list(_trials(study, budget).values())
    seeds = {t.seed: t for t in trials if t.arm == arm}
    if not seeds:
        raise unknown(f"arm of {study} ({budget} budget, finished trials)", arm, dict.fromkeys(t.arm for t in trials))
    if seed not in seeds:
        raise UserError(f"no finished trial of {arm!r} has seed {seed}\non record: {', '.join(map(str, sorted(seeds)))}")
    return seeds[seed]


def _from_run(trial: TrialRun) -> Model:
    """Return the model of a trial on record."""
    spec = TrialSpec.from_dict(trial.spec())
    if spec.references:
        with trial.file(references.FILE) as code:
            references.from_record(code.read_text(encoding="utf-8"))
    image_shape = _image_shape(trial, spec)
    with trial.file(WEIGHTS) as weights:
        vae = read_network(spec, image_shape, weights)
    scores, history = dict(trial.record.metrics), table(trial.history())
    return Model(spec=spec, scores=scores, history=history, vae=vae, image_shape=image_shape)


def _image_shape(trial: TrialRun, spec: TrialSpec) -> tuple[int, int, int]:
    """Return (C, H, W) of a trial's images: as its pictures have it, or else its data set, which may be gone by now.

    Raises:
        DataError: it keeps no pictures, as without an evaluation on the test set, and the data set cannot be had.
    """
    if PICTURES not in trial.files_kept():
        return load_dataset(spec.dataset, lambda _: None, spec.dataset_args).image_shape
    with trial.file(PICTURES) as path, np.load(path, allow_pickle=False) as arrays:
        channels, height, width = kept_images(arrays["original"]).shape[1:]
    return channels, height, width
