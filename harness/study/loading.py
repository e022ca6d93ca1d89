"""Load and check the studies that commands name. Torch is not imported here."""

import ast
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from harness import paths, references
from harness.errors import UserError, listed, look_up, raised
from harness.study.ablation import Ablation, Budget
from harness.study.files import StudyFile, find, parsed
from harness.study.forms import in_words
from harness.study.overrides import apply, split
from harness.study.protocol import Study
from harness.study.reading import KEYWORDS, refused_calls, repeated_names
from harness.study.search import Search
from harness.study.strategy import SearchBudget


@dataclass(frozen=True, kw_only=True)
class LoadedStudy:
    """A study with what its record is called and said by.

    Attributes:
        name: in stores, experiments and reports.
        reference: what a command takes for it.
        question: that it asks.
        study: the study.
        path: of its file.
        source: the content of the file when it was loaded.
    """

    name: str
    reference: str
    question: str
    study: Study
    path: Path
    source: bytes


def load(reference: str) -> LoadedStudy:
    """Return the study that a command names, as `files.find` looks for it, with the changes in brackets behind it.

    Raises:
        UserError: there is no such study, its file has an error, or a change cannot be made; the message names file and line.
    """
    original, overrides = split(reference)
    file = find(original)
    parsed(file.path)  # raises an error for a file that cannot be read
    source = file.path.read_bytes()
    with paths.loading_from(file.path.parent):
        study, suffix = _study_of(file), ""
        if overrides:
            study, suffix = apply(study, overrides)
    return LoadedStudy(
        name=file.name + suffix, reference=reference, question=file.question, study=study, path=file.path, source=source
    )


def with_budget(text: str, budget: str | None = None) -> tuple[str, str]:
    """Return the reference and the budget of a study that is written STUDY or STUDY@BUDGET; without a budget that is `default`.

    Args:
        text: What was written. The path of a file that there is has no budget behind it.
        budget: The budget that was named beside it; None if none was.

    Raises:
        UserError: Both name a budget, and not the same.

    >>> with_budget("loss_ablation@smoke"), with_budget("loss_ablation", "full")
    (('loss_ablation', 'smoke'), ('loss_ablation', 'full'))
    """
    reference, _, said = text.rpartition("@") if re.search(r"@[^\]/]*$", text) and not os.path.exists(text) else (text, "", "")
    if said and budget is not None and budget != said:
        raise UserError(f"{text!r} names the budget {said!r}, and budget={budget!r} another: name one")
    return reference, said or budget or "default"


def load_study(reference: str) -> Study:
    """Return the study itself that `load` finds."""
    return load(reference).study


def check(reference: str, budget: str) -> None:
    """Raise an error if a study cannot run with this budget.

    Raises:
        UserError: the study or budget is unknown or has an error, or its budget would never look at the test set.
    """
    budgets: Mapping[str, Budget | SearchBudget] = load_study(reference).budgets
    if look_up(budgets, budget, "budget").evaluation == "validation":
        raise UserError(
            f"study {reference!r}, budget {budget!r}: evaluation='validation' leaves nothing to report\n"
            "it never looks at the test set; use 'quick', 'full' or 'thorough'"
        )


def _study_of(file: StudyFile) -> Ablation | Search:
    """Return what a study's file assigns to STUDY.

    Raises:
        UserError: the file has an error; the message names it and the line.
    """
    path = file.path
    tree = parsed(path)
    repeated = [f"{path}:{line}: {message}" for line, message in repeated_names(tree)]
    if repeated:
        raise UserError(listed(repeated))
    try:
        module = _execute(file)
    except SyntaxError as fault:  # of a file that it imports
        text = (fault.text or "").rstrip()
        raise UserError(f"{fault.filename or path}:{fault.lineno}:{fault.offset}: {fault.msg}\n  {text}") from None
    except BaseException as fault:  # a study file is user code, so whatever it raises is reported with the file and line
        if isinstance(fault, KeyboardInterrupt):
            raise
        own_lines = [f.lineno or 1 for f in traceback.extract_tb(fault.__traceback__) if f.filename == str(path)]
        line, message = own_lines[-1] if own_lines else 1, _in_words(fault)
        found = _refused(tree)
        if not any(text == message or at == line for at, text in found):
            found.insert(0, (line, message))
        raise UserError(listed(f"{path}:{at}: {text}" for at, text in found)) from None
    if "STUDY" not in vars(module):
        raise UserError(f"{path}: sets no STUDY; write STUDY = Ablation(...) or STUDY = Search(...)")
    study = vars(module)["STUDY"]
    if not isinstance(study, Ablation | Search):
        got = f"the class {study.__name__}" if isinstance(study, type) else type(study).__name__
        form = "STUDY = Ablation(base=..., arms=..., budgets=...)"
        raise UserError(f"{path}: STUDY must be an Ablation or a Search, got {got}\n{form}")
    return study


def _in_words(fault: BaseException) -> str:
    """Return what a study's file raised, in words."""
    if isinstance(fault, UserError):
        return str(fault)
    if isinstance(fault, EOFError):  # of input()
        return "a study file must not ask: every command runs it, also where nobody can answer\nwrite the value into the file"
    with suppress(Exception):  # of its own too
        if isinstance(fault, TypeError):
            return f"{type(fault).__name__}: {in_words(fault, KEYWORDS)}"
    return raised(fault)


def _refused(tree: ast.Module) -> list[tuple[int, str]]:
    """Return the refused calls of a study's file by line; none of one that is nested too deeply to be read."""
    try:
        return refused_calls(tree)
    except RecursionError:
        return []


def _execute(file: StudyFile) -> ModuleType:
    """Run a study's file and return it as a module, under a name of its own in `sys.modules`, where `inspect` looks for it.

    A file imports from its own folder first, a dotted module from the working folder.
    """
    if file.module:
        with references.importable(Path.cwd()):
            return importlib.import_module(file.module)
    name = f"studies.{sha256(str(file.path).encode()).hexdigest()[:8]}.{file.name}"
    module_spec = importlib.util.spec_from_file_location(name, file.path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(module_spec)
    try:
        with references.importable(file.path.parent):
            module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
