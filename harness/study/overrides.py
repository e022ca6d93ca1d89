"""Changes of a study from the command line, `--set latent=10` and `--arms bce,mse`, as a study of its own name. Torch-free.

The changed study is built by `dataclasses.replace`, so that it is judged as a file is. A command takes it as `NAME[latent=10]` too.
"""

import ast
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from typing import Any

from harness.errors import UserError, cut, listed, shown, unknown
from harness.spec import FIELDS, TrialSpec
from harness.study.ablation import Ablation, Budget
from harness.study.forms import OF_BUDGETS, seeds_fault
from harness.study.search import Search
from harness.study.strategy import SearchBudget

BUDGET = "budget"  # keys of this head are the fields of a budget, and hold for all budgets of the study
LONGEST = 100  # characters of the changes in a name, which becomes a folder's
OPENING, CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Overrides:
    """The changes of a study.

    Attributes:
        settings: `key=value` texts. A key is a field of a trial, which may have parts (`likelihood_args.sigma`), or one of a budget
            (`budget.epochs`, or `epochs` for short); a value is a Python literal, `range(...)`, or else text.
        arms: the names of the arms to keep; empty for all.
    """

    settings: Sequence[str] = ()
    arms: Sequence[str] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.settings or self.arms)

    def __str__(self) -> str:
        """Return the changes as `split` takes them after a name; empty if there are none."""
        arms = [_arms_text(self.arms)] if self.arms else []
        return f"[{','.join([*arms, *map(_typed, self.settings)])}]" if self else ""


def split(reference: str) -> tuple[str, Overrides]:
    """Return what a reference names and the changes in brackets behind it.

    >>> split("loss_ablation[arms=bce+mse,budget.seeds=(0,1)]")
    ('loss_ablation', Overrides(settings=('budget.seeds=(0,1)',), arms=('bce', 'mse')))
    """
    name, bracket, rest = reference.partition("[")
    if not bracket or not rest.endswith("]"):
        return reference, Overrides()
    settings: list[str] = []
    arms: list[str] = []
    for part in _parts(rest[:-1]):
        key, _, value = part.partition("=")
        if key.strip() == "arms":
            listed = _parsed(value.strip())
            arms += map(str, listed) if isinstance(listed, list | tuple) else [arm.strip() for arm in value.split("+")]
        else:
            settings.append(part)
    return name, Overrides(tuple(settings), tuple(arms))


def apply(study: Ablation | Search, overrides: Overrides) -> tuple[Ablation | Search, str]:
    """Return the study with the changes made, and what its name has behind it: the changes, sorted and each in one form.

    Raises:
        UserError: something is wrong with the changes; the message lists all that is, with the nearest names.
    """
    faults: list[str] = []
    values = _values(overrides.settings, _budget_fields(study), faults)
    arms = _kept(study, overrides.arms, faults)
    of_trial = {key: value for key, value in values.items() if not key.startswith(f"{BUDGET}.")}
    of_budget = {key.partition(".")[2]: value for key, value in values.items() if key not in of_trial}
    faults += [_shadowed(key, study, arms) for key in of_trial if _shadowed(key, study, arms)]
    base = study.base
    try:
        base.derive(**of_trial | {key: value for key, value in of_budget.items() if key in OF_BUDGETS})
        base = base.derive(**of_trial)
    except UserError as fault:
        faults += str(fault).splitlines()
    if faults:
        raise UserError(listed(faults))
    try:
        changed = _rebuilt(study, base, of_budget, arms)
    except UserError as fault:
        raise UserError(f"with {cut(', '.join(overrides.settings)) or 'these arms'}: {fault}") from None
    shown = {key: _value_of(base, key) for key in of_trial} | {f"{BUDGET}.{key}": value for key, value in of_budget.items()}
    texts = [f"{key}={_text(value)}" for key, value in shown.items()]
    return changed, _suffix([*texts, _arms_text(arms)] if overrides.arms else texts)


def data_set(name: str, settings: Sequence[str]) -> TrialSpec:
    """Return a trial of a data set, with the arguments of it that settings such as `dataset_args.resize=32` give.

    Raises:
        UserError: there is no such data set, it takes no such argument, or a setting is about something else.
    """
    others = [setting for setting in settings if not setting.strip().startswith("dataset_args.")]
    faults = [
        f"--set {cut(setting)}: a data set takes its own arguments alone, such as dataset_args.resize=32" for setting in others
    ]
    values = {} if faults else _values(settings, (), faults)
    if faults:
        raise UserError("\n".join(faults))
    return TrialSpec(dataset=name).derive(**values)


def _typed(setting: str) -> str:
    """Return a setting as `split` takes it: what follows a comma and sets nothing belongs to the value before it.

    >>> _typed("seeds=0,1,2"), _typed("hidden=(64, 32)"), _typed("latent=10,epochs=3")
    ('seeds=(0,1,2)', 'hidden=(64, 32)', 'latent=10,epochs=3')
    """
    groups: list[list[str]] = []
    for part in _parts(setting):
        if "=" in part or not groups:
            groups.append([part])
        else:
            groups[-1].append(part)
    if all(len(group) == 1 for group in groups):
        return setting
    split_at = [(first.partition("="), rest) for first, *rest in groups]
    return ",".join(
        f"{key}=({','.join([value, *rest])})" if rest else key + equals + value for (key, equals, value), rest in split_at
    )


def _parts(text: str) -> list[str]:
    """Return a text cut at its commas, except those within brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in OPENING) - (character in CLOSING)
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _budget_fields(study: Ablation | Search) -> tuple[str, ...]:
    """Return the names of the fields of a study's budgets."""
    return tuple(f.name for f in fields(Budget if isinstance(study, Ablation) else SearchBudget))


def _values(settings: Iterable[str], budget_fields: Sequence[str], faults: list[str]) -> dict[str, Any]:
    """Return the values by key, in which budgets' short keys are written out; `faults` gets a message for each that is wrong."""
    trial_fields = [name for name in FIELDS if name not in OF_BUDGETS]
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or not key or not text:
            faults.append(f"--set {cut(setting)}: a key and its value are needed, such as latent=10")
            continue
        head, _, tail = key.partition(".")
        if head in budget_fields and not tail:
            head, tail = BUDGET, key
        if head == BUDGET and tail not in budget_fields:
            faults.append(f"--set {cut(setting)}: {unknown('field of a budget', tail, budget_fields)}")
        elif head != BUDGET and head in OF_BUDGETS:
            faults.append(f"--set {cut(setting)}: a budget sets the {head}s of its trials\nknown: {', '.join(budget_fields)}")
        elif head != BUDGET and head not in trial_fields:
            faults.append(f"--set {cut(setting)}: {unknown('field of a trial', head, (*trial_fields, *budget_fields))}")
        else:
            key = f"{head}.{tail}" if tail else head
            if key in values:
                faults.append(f"--set {cut(setting)}: {key} is set twice")
            values[key] = _parsed(text)
            if head == BUDGET and (fault := _budget_fault(tail, values[key])):
                faults.append(f"--set {cut(setting)}: {fault}")
    return values


def _parsed(text: str) -> Any:
    """Return the value of a text: a Python literal, a range, or the text itself.

    >>> _parsed("1e-3"), _parsed("(64, 32)"), _parsed("range(3)"), _parsed("relu")
    (0.001, (64, 32), range(0, 3), 'relu')
    """
    numbers = re.fullmatch(r"range\(\s*(-?\d+(?:\s*,\s*-?\d+){0,2})\s*,?\s*\)", text)
    try:
        return range(*map(int, numbers[1].split(","))) if numbers else ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def _budget_fault(name: str, value: Any) -> str:
    """Return what is wrong with the value of a budget's field; a trial's own values are judged by the trial."""
    if name in ("seeds", "refit_seeds"):
        return seeds_fault(value)
    if name == "trials":
        return "" if type(value) is int and value >= 1 else f"trials must be a whole number of at least 1, got {shown(value)}"
    return ""


def _kept(study: Ablation | Search, wanted: Sequence[str], faults: list[str]) -> list[str]:
    """Return the names of the arms that are kept, in the study's order; `faults` gets a message for each that is unknown."""
    if isinstance(study, Search):
        if wanted:
            faults.append(f"--arms {cut(','.join(wanted))}: a search finds its arms itself")
        return []
    for arm in wanted:
        if arm not in study.arms and len(arm.split()) > 1 and all(part in study.arms for part in arm.split()):
            faults.append(f"--arms {cut(arm)}: commas are between arms: {','.join(arm.split())}")
        elif arm not in study.arms:
            faults.append(f"--arms {cut(','.join(wanted))}: {unknown('arm', arm, study.arms)}")
    return [arm for arm in study.arms if not wanted or arm in wanted]


def _shadowed(key: str, study: Ablation | Search, arms: Sequence[str]) -> str:
    """Return what is wrong with setting a field of the base that an arm or a space sets itself; empty if none does."""
    head = key.partition(".")[0]

    def has(fields: Iterable[str]) -> bool:
        return any(name in (key, head) or name.partition(".")[0] == key for name in fields)

    if isinstance(study, Search):
        return f"--set {cut(key)}: the search looks for its best value, so that none can be set" if has(study.space) else ""
    own = [arm for arm in arms if has(study.arms[arm])]
    if not own:
        return ""
    others = [arm for arm in arms if arm not in own]
    hint = f"\nwithout them: --arms {shlex.quote(','.join(others))}" if others else ""
    setting = ", ".join(f"arm {shown(arm)}" for arm in own)
    return f"--set {cut(key)}: {setting} of the study would ignore it, with a {key} of its own{hint}"


def _rebuilt(study: Ablation | Search, base: TrialSpec, of_budget: Mapping[str, Any], arms: Sequence[str]) -> Ablation | Search:
    """Return the study with another base, with these fields of all its budgets and, if it has arms, with these alone.

    Hypotheses about arms that are left out are left out too.

    Raises:
        UserError: there is no such study.
    """
    if isinstance(study, Search):
        return replace(study, base=base, budgets={name: replace(b, **of_budget) for name, b in study.budgets.items()})
    return replace(
        study,
        base=base,
        budgets={name: replace(b, **of_budget) for name, b in study.budgets.items()},
        arms={arm: study.arms[arm] for arm in arms},
        hypotheses=tuple(h for h in study.hypotheses if h.better in arms and h.worse in arms),
    )


def _value_of(base: TrialSpec, key: str) -> Any:
    """Return the value of a field or of a part of one, as the spec holds it: 1.0 where 1 was given for a real number."""
    head, _, part = key.partition(".")
    return getattr(base, head)[part] if part else getattr(base, head)


def _text(value: Any) -> str:
    """Return a value in the one form that names have.

    >>> _text((64, 32)), _text(range(0, 3)), _text(1e-3), _text("relu"), _text([0, 1])
    ('(64,32)', 'range(3)', '0.001', 'relu', '(0,1)')
    """
    if isinstance(value, range):
        start = f"{value.start}," if value.start or value.step != 1 else ""
        return f"range({start}{value.stop}{f',{value.step}' if value.step != 1 else ''})"
    if isinstance(value, list | tuple):
        return f"({','.join(map(_text, value))}{',' * (len(value) == 1)})"
    return str(value)


def _arms_text(arms: Sequence[str]) -> str:
    """Return the arms that are kept as a change; as a Python tuple if their names could be read in another way.

    >>> _arms_text(["bce", "mse"]), _arms_text(["warm-up+decay"])
    ('arms=bce+mse', "arms=('warm-up+decay',)")
    """
    plain = all(re.fullmatch(r"\w[\w.=-]*", arm) for arm in arms)
    return f"arms={'+'.join(arms) if plain else repr(tuple(arms))}"


def _suffix(texts: Iterable[str]) -> str:
    """Return changes as a study's name has them behind it, sorted.

    Names become folders, locks and parts of MLflow's filters: other characters than those of plain values become `_`, and what is
    long is cut; a digest then tells apart what would be the same.
    """
    whole = ",".join(sorted(texts))
    plain = re.sub(r"[^\w.,=+()-]", "_", whole)
    return (
        f"[{plain}]"
        if plain == whole and len(plain) <= LONGEST
        else f"[{plain[:LONGEST]}~{sha256(whole.encode()).hexdigest()[:8]}]"
    )
