"""`harness replay`: a trial on record is trained again the same way, in a scratch folder, and compared bit by bit."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from harness import provenance, references
from harness.errors import UserError, counted
from harness.evidence.facts import split_digest
from harness.evidence.faults import manifest_of
from harness.evidence.manifest import SPEC, WEIGHTS
from harness.evidence.schema import FILE, absent, is_cost, score_as_json, sha256_of
from harness.evidence.verify import is_run, planned
from harness.spec import EXECUTION, TrialSpec
from harness.tracking import Inspected, Inspection, beside, inspection

# On another kind of machine sums are taken in another order: a score may differ by this much of itself, or of 1 if it is smaller.
TOLERANCE = 0.02
EQUAL, CLOSE, OTHER = "equal bit by bit", f"within {TOLERANCE:.0%} on another kind of machine", "not equal"
# The fields of a manifest without which a trial cannot be trained again and compared.
NEEDED: Mapping[str, tuple[str, ...]] = {
    "code": ("digest",),
    "spec": ("id", "resolved"),
    "environment": ("torch", "torch_build"),
    "hardware": ("cpu",),
    "data": ("splits",),
    "execution": ("stints", "evaluation"),
    "results": ("metrics",),
    "lineage": ("weights_sha256",),
}


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What came of training a trial again.

    Attributes:
        scores: the number of scores that were compared.
        kind: in what this machine or code is another than that of the record, in words; empty if in nothing.
        differences: what came out otherwise, in words; of another kind, by more than `TOLERANCE`.
        furthest: the largest difference of a score that was compared, as a part of the score or of 1.
        same_weights: True if the weights are equal bit by bit.
    """

    scores: int
    kind: Sequence[str]
    differences: Sequence[str]
    furthest: float
    same_weights: bool = False

    @property
    def outcome(self) -> str:
        """The result in a few words: one of `EQUAL`, `CLOSE` and `OTHER`."""
        if self.differences:
            return OTHER
        return EQUAL if self.same_weights and self.furthest == 0 else CLOSE

    @property
    def words(self) -> str:
        """The result in a line."""
        if self.outcome == OTHER:
            return "NOT EQUAL: " + "; ".join(self.differences)
        other = f" (another kind, which differs in {', '.join(self.kind)})" if self.kind else ""
        if self.outcome == EQUAL:
            return f"equal: weights and {self.scores} scores, bit by bit{other}"
        weights = "the same weights" if self.same_weights else "other weights"
        return f"within {TOLERANCE:.0%}: {self.scores} scores, the furthest off by {self.furthest:.1e}; {weights}{other}"


def replay(reference: str, budget: str, count: int, console: Console) -> int:
    """Train a run by its id, or some runs of a study spread evenly over its arms, again, and print whether they come out equal.

    Returns:
        0 if all do, or are within `TOLERANCE` on another kind of machine, else 1.

    Raises:
        UserError: no such study, budget or run is on record, or its manifest does not say how it was trained.
        MachineError: the tracking store cannot be read, or the device of the record is not here.
    """
    if count < 1:
        raise UserError(f"--runs {count}: at least 1")
    with inspection() as store:
        if is_run(reference):
            chosen = [store.run(reference)]
            runs, _ = store.runs(chosen[0].tags["study"], chosen[0].tags["budget"])
        else:
            runs, _ = store.runs(planned(reference, budget)[0], budget)
            chosen = sorted((r for r in runs if r.status == "FINISHED"), key=lambda r: r.name)  # arm by arm
            chosen = [chosen[i * len(chosen) // min(count, len(chosen))] for i in range(min(count, len(chosen)))]
        if not chosen:
            more = "" if is_run(reference) else beside(planned(reference, budget)[0], budget)
            raise UserError(f"no trial of {reference} ({budget} budget) has finished: there is nothing to train again{more}")
        outcomes: Counter[str] = Counter()
        for run in chosen:
            with store.folder(run) as folder:
                manifest = manifest_of(folder) or {}
                if missing := list(_untold(manifest)):
                    raise UserError(
                        f"{run.name} (run {run.run}) cannot be trained again: its {FILE} does not tell {', '.join(missing[:4])}\n"
                        f"harness verify {run.run} says what else is not as it was kept"
                    )
                others = {r.tags["cell"]: r for r in runs if r.tags.get("cell")}
                mates = list(_mates(manifest, others, store))
                result = replayed(manifest, folder, mates)
            outcomes[result.outcome] += 1
            console.print(f"{run.name} (run {run.run}): {result.words}", soft_wrap=True, highlight=False, markup=False)
    counts = ", ".join(f"{outcomes[what]} {what}" for what in (EQUAL, CLOSE, OTHER) if what == EQUAL or outcomes[what])
    console.print(f"of {counted(len(chosen), 'trial')}: {counts}", highlight=False)
    return int(bool(outcomes[OTHER]))


def _untold(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields of a manifest that a replay needs, and that it lacks or that the process that trained did not tell."""
    yield from absent(manifest, NEEDED)
    execution = manifest.get("execution")
    if isinstance(execution, Mapping):
        for name, kind in {"stints": list, "evaluation": Mapping}.items():
            value = execution.get(name)
            if value == [] or (value and not isinstance(value, kind)):
                yield f"execution.{name} ({value})"


def _mates(manifest: Mapping[str, Any], runs: Mapping[str, Inspected], store: Inspection) -> Iterator[TrialSpec]:
    """Yield the specs of the lanes that a trial trained in, itself included; those that are not on record are left out."""
    for cell in manifest["execution"]["stints"][0]["lanes"]:
        if cell == manifest["spec"]["id"]:
            yield TrialSpec.from_dict(manifest["spec"]["resolved"])
        elif cell in runs:
            with store.folder(runs[cell]) as folder:
                yield TrialSpec.from_dict(json.loads((folder / SPEC).read_text(encoding="utf-8")))


def replayed(manifest: Mapping[str, Any], folder: Path, mates: Sequence[TrialSpec]) -> Replayed:
    """Train the trial of a manifest again and compare.

    Args:
        manifest: of its run.
        folder: of the run's files, for the weights and the user's own code.
        mates: the trials of the lanes that it trained in, itself included.
    """
    # Not at the top: those who write manifests or verify them need no torch.
    import torch

    from harness.executors import Failed, Finished

    code = folder / references.FILE
    if code.is_file():
        references.from_record(code.read_text(encoding="utf-8"))
    spec = TrialSpec.from_dict(manifest["spec"]["resolved"])
    threads, differences = torch.get_num_threads(), []
    if spec.id != manifest["spec"]["id"]:
        differences.append(f"the spec has the id {spec.id} here, {manifest['spec']['id']} on record")
    with TemporaryDirectory(prefix="harness-replay-") as scratch:
        row: dict[str, float] = {}
        try:
            for event in _events(manifest, mates, Path(scratch)):
                if event.spec != spec.id:
                    continue
                if isinstance(event, Failed):
                    return Replayed(scores=0, kind=[], differences=[f"failed: {event.why}"], furthest=0)
                if isinstance(event, Finished):
                    result = _compared(manifest, folder, event.files, {**event.result.metrics, **row})
                    return replace(result, differences=[*differences, *_data_differences(manifest, spec), *result.differences])
                row = getattr(event, "row", row)
        finally:
            torch.set_num_threads(threads)
    return Replayed(scores=0, kind=[], differences=["the training ended without a result"], furthest=0)


def _compared(manifest: Mapping[str, Any], folder: Path, files: Path, scores: Mapping[str, float]) -> Replayed:
    """Compare the files and scores of a replay with those on record, whose files are in `folder`."""
    kind = list(_kind(manifest, json.loads((files / EXECUTION).read_text(encoding="utf-8"))))
    recorded = {key: value for key, value in manifest["results"]["metrics"].items() if not is_cost(key)}
    same = sha256_of(files / WEIGHTS) == manifest["lineage"]["weights_sha256"]
    differences = [] if kind or same else [f"weights: {_furthest(files / WEIGHTS, folder / WEIGHTS)}"]
    both = recorded.keys() & scores.keys()
    return Replayed(
        scores=len(both),
        kind=kind,
        differences=differences + _score_differences(recorded, scores, exact=not kind),
        furthest=max((_distance(recorded[key], scores[key]) for key in both), default=0.0),
        same_weights=same,
    )


def _events(manifest: Mapping[str, Any], mates: Sequence[TrialSpec], scratch: Path) -> Iterator[Any]:
    """Yield the events of training as the first stint of a record was, and of an evaluation where that one was made."""
    import torch

    from harness.executors import Job, Saving, train
    from harness.training.checkpoints import Checkpoints

    stint, evaluation = manifest["execution"]["stints"][0], manifest["execution"]["evaluation"]
    checkpoints, saving = Checkpoints(scratch / "checkpoints"), Saving(every_s=float("inf"))
    apart = evaluation["device"] != stint["device"]
    torch.set_num_threads(stint["threads"])
    job = Job(tuple(mates), execution=stint["execution"], part="train" if apart else "all")
    yield from train(job, stint["device"], scratch, checkpoints, saving=saving)
    if apart:
        torch.set_num_threads(evaluation["threads"])
        own = tuple(s for s in mates if s.id == manifest["spec"]["id"])
        yield from train(Job(own, start=own[0].epochs, part="evaluate"), evaluation["device"], scratch, checkpoints, saving=saving)


def _kind(manifest: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what the machine and code of a replay, as it has `told` them, are others than those of the record."""
    then, now = manifest["execution"]["stints"][0], told["stints"][0]
    machine = told["machine"]
    pairs = {
        "harness": (manifest["code"]["digest"], provenance.digest()),
        "torch": (manifest["environment"]["torch"], machine["torch"]),
        "build of torch": (manifest["environment"]["torch_build"], machine["torch_build"]),
        "processor": (manifest["hardware"]["cpu"], machine["cpu"]),
        "capability": (then["capability"], now["capability"]),
        "device": (then["on"].partition(",")[0], now["on"].partition(",")[0]),
        "steps": (then["execution"], now["execution"]),
        "compiled": (then["compiled"], now["compiled"]),
        "kernels": (_kernels(manifest["environment"]), _kernels(machine)),
        "lanes": (then["lanes"], now["lanes"]),
    }
    for name, (recorded, here) in pairs.items():
        if recorded != here:
            short = len(f"{recorded}{here}") < 80
            yield f"{name} ({recorded} on record, {here} here)" if short else name


def _kernels(environment: Mapping[str, Any]) -> str:
    """Return the set of native kernels that was asked for by name, "unset" if none was: then it goes with the capability."""
    variables = environment.get("variables")
    return str(variables.get("HARNESS_KERNELS", "unset")) if isinstance(variables, Mapping) else "unset"


def _data_differences(manifest: Mapping[str, Any], spec: TrialSpec) -> list[str]:
    """Return the splits of the data that are not those of the record."""
    from harness.executors.evaluation import dataset

    kept, here = manifest["data"]["splits"], dataset(spec.dataset, spec.dataset_args)
    if not isinstance(kept, Mapping):
        return []
    return [f"data: the {part} split is another" for part, digest in kept.items() if split_digest(getattr(here, part)) != digest]


def _score_differences(recorded: Mapping[str, Any], scores: Mapping[str, float], *, exact: bool) -> list[str]:
    """Return in words how scores differ from those on record; if not exact, from `TOLERANCE` on."""
    found = []
    for key, value in recorded.items():
        here = scores.get(key)
        if here is None:
            found.append(f"{key}: {value} on record, none here")
        elif (score_as_json(here) != value) if exact else _distance(value, here) > TOLERANCE:
            found.append(f"{key}: {value} on record, {here} here")
    return found


def _distance(recorded: Any, here: float) -> float:
    """Return how far a score is from that on record, as a part of it or of 1; 0 for equal ones and infinity for one in words."""
    if score_as_json(here) == recorded:
        return 0.0
    return abs(here - recorded) / max(1.0, abs(recorded)) if isinstance(recorded, int | float) else float("inf")


def _furthest(here: Path, recorded: Path) -> str:
    """Return in words how far the weights of two files are apart."""
    import torch

    a, b = (torch.load(file, map_location="cpu", weights_only=True) for file in (here, recorded))
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        return "those of another network"
    return f"up to {max(float((a[name].double() - b[name].double()).abs().max()) for name in a):.1e} off"
