"""Checkpoints of trials in training: files that are whole or not there, and that only the code that wrote them reads."""

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

KEPT = 2  # checkpoints per trial: the newest, and the one before in case the newest cannot be read


class CheckpointError(Exception):
    """Raised when there is no checkpoint of an epoch that can be used."""


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints of trials in `folder`/<spec id>/<epoch>.pt: tensors and primitives, the only types that are unpickled.

    Beside each lies a JSON label with the spec, the epoch, the code, the version of torch and the SHA-256 of the checkpoint. A
    checkpoint that is broken, or of another spec, code or torch, counts as not there. A file is replaced whole: written under
    another name, flushed to disk, renamed, so that a process killed at any moment leaves the previous file.

    Attributes:
        folder: the folder of all checkpoints.
        code: the digest of the code that reads and writes them.
        torch_version: the version of torch that does.
    """

    folder: Path
    code: str = field(default_factory=provenance.code)
    torch_version: str = str(torch.__version__)

    def save(self, spec: TrialSpec, epoch: int, state: Mapping[str, Any]) -> None:
        """Write `state` as the checkpoint of a trial after `epoch` epochs, and delete all but the newest KEPT."""
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

    def newest(self, spec: TrialSpec, images: str = "") -> int:
        """Return the epoch of a trial's newest checkpoint that can be used, or 0 if there is none.

        If `images` is the digest of a data set, one whose state names other "images" cannot.
        """
        for epoch in sorted(self._epochs(spec), reverse=True):
            with suppress(CheckpointError):
                if images in ("", self.load(spec, epoch).get("images")):
                    return epoch
        return 0

    def load(self, spec: TrialSpec, epoch: int) -> dict[str, Any]:
        """Return the state that was saved of a trial after `epoch` epochs, with all tensors on the CPU.

        Raises:
            CheckpointError: the checkpoint is not there, broken, or of another spec, code or torch.
        """
        path = self._path(spec, epoch)
        try:
            label, content = json.loads(_label_of(path).read_bytes()), path.read_bytes()
            if label != self._label(spec, epoch) | {"sha256": hashlib.sha256(content).hexdigest()}:
                raise CheckpointError(f"{path} is broken, or of another spec, code or torch")
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            return state
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as fault:  # RecursionError is a RuntimeError
            raise CheckpointError(f"{path} cannot be read: {fault}") from fault

    def digest(self, spec: TrialSpec, epoch: int) -> str:
        """Return the sha256 of a trial's checkpoint after `epoch` epochs, as its label has it.

        Raises:
            CheckpointError: the label cannot be read.
        """
        try:
            return str(json.loads(_label_of(self._path(spec, epoch)).read_bytes())["sha256"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as fault:
            raise CheckpointError(f"the label of {self._path(spec, epoch)} cannot be read: {fault}") from fault

    def discard(self, spec: TrialSpec) -> None:
        """Delete all checkpoints of a trial, whose result is on record or which will have none."""
        shutil.rmtree(self.folder / spec.id, ignore_errors=True)

    def _path(self, spec: TrialSpec, epoch: int) -> Path:
        """Return the path of a trial's checkpoint after `epoch` epochs."""
        return self.folder / spec.id / f"{epoch:06d}.pt"

    def _label(self, spec: TrialSpec, epoch: int) -> dict[str, Any]:
        """Return what the label of a usable checkpoint says, apart from the SHA-256."""
        return {"spec": spec.as_dict(), "epoch": epoch, "code": self.code, "torch": self.torch_version}

    def _epochs(self, spec: TrialSpec) -> list[int]:
        """Return the epochs that a trial has checkpoint files of, usable or not, in any order."""
        return [int(p.stem) for p in (self.folder / spec.id).glob("*.pt") if p.stem.isdecimal()]

    def _tidy(self, spec: TrialSpec, newest: int) -> None:
        """Delete a trial's checkpoints but those of the last KEPT epochs up to `newest`.

        Checkpoints of later epochs are deleted too: had they been usable, training would have gone on from them.
        """
        epochs = sorted(e for e in self._epochs(spec) if e <= newest)[-KEPT:]
        names = {f(self._path(spec, e)).name for e in epochs for f in (Path, _label_of)}
        for path in (self.folder / spec.id).iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)


def _label_of(path: Path) -> Path:
    """Return the path of a checkpoint's label."""
    return path.with_suffix(".json")


def _replace(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole: under another name, flushed to disk, then renamed."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Flush a folder to disk: the names of its files are its content, which a power cut may otherwise lose."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
