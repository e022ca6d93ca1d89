"""Trials in training, kept on disk: files that are whole or not there, and are read only by the code that wrote them."""

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness import provenance
from harness.spec import TrialSpec

KEPT = 2  # per trial: the newest, and the one before in case the newest cannot be read


class CheckpointError(Exception):
    """There is no checkpoint of this epoch that can be used."""


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of trials in `folder`/<spec id>/<epoch>.pt: tensors and primitives, unpickled as such and nothing else.

    Beside each stands a file that says what it is of (spec, code, torch) and its SHA-256. What is broken, or of another spec,
    code or torch, counts as not there. A file is replaced whole: written beside, flushed to disk, renamed, so that a process
    killed at any moment leaves the one before.
    """

    folder: Path
    code: str = field(default_factory=provenance.code)

    def save(self, spec: TrialSpec, epoch: int, state: Mapping[str, Any]) -> None:
        """Keep `state` as what this trial is after `epoch` epochs."""
        path = self._path(spec, epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save(dict(state), content)
        label = self._label(spec, epoch) | {"sha256": hashlib.sha256(content.getbuffer()).hexdigest()}
        _replace(path, content.getbuffer())
        _replace(_label_of(path), json.dumps(label, indent=1).encode())
        _flush_folder(path.parent)
        _flush_folder(self.folder)
        self._tidy(spec, epoch)

    def newest(self, spec: TrialSpec) -> int:
        """The epoch of the newest checkpoint that can be used; 0 where there is none."""
        for epoch in sorted(self._epochs(spec), reverse=True):
            with suppress(CheckpointError):
                self.load(spec, epoch)
                return epoch
        return 0

    def load(self, spec: TrialSpec, epoch: int) -> dict[str, Any]:
        """What was saved of this trial after `epoch` epochs.

        Raises:
            CheckpointError: it is not there, broken, or of another spec, code or torch.
        """
        path = self._path(spec, epoch)
        try:
            label, content = json.loads(_label_of(path).read_bytes()), path.read_bytes()
            if label != self._label(spec, epoch) | {"sha256": hashlib.sha256(content).hexdigest()}:
                raise CheckpointError(f"{path} is broken, or of another spec, code or torch")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as fault:
            raise CheckpointError(f"{path} cannot be read: {fault}") from fault

    def discard(self, spec: TrialSpec) -> None:
        """Forget this trial: its result is on record, or it will have none."""
        shutil.rmtree(self.folder / spec.id, ignore_errors=True)

    def _path(self, spec: TrialSpec, epoch: int) -> Path:
        return self.folder / spec.id / f"{epoch:06d}.pt"

    def _label(self, spec: TrialSpec, epoch: int) -> dict[str, Any]:
        return {"spec": spec.as_dict(), "epoch": epoch, "code": self.code, "torch": str(torch.__version__)}

    def _epochs(self, spec: TrialSpec) -> list[int]:
        return [int(p.stem) for p in (self.folder / spec.id).glob("*.pt") if p.stem.isdecimal()]

    def _tidy(self, spec: TrialSpec, newest: int) -> None:
        """Remove all but the newest and those before it that are kept: later ones were not usable, or training were beyond them."""
        kept = sorted(e for e in self._epochs(spec) if e <= newest)[-KEPT:]
        names = {f(self._path(spec, e)).name for e in kept for f in (Path, _label_of)}
        for path in (self.folder / spec.id).iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)


def _label_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _replace(path: Path, content: bytes | memoryview) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Names of files are the folder's content: without this a power cut may lose them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
