"""What the parts of a study must be, whatever they say: kinds of values, and names that can be shown and kept. Torch-free."""

import re
from collections.abc import Mapping, Sequence

from harness.errors import cut, nearest, shown
from harness.spec import TrialSpec

NAME = r"[^\W_][\w-]*"  # of a study or a budget: it becomes part of the names of experiments, folders and locks
OF_BUDGETS = ("seed", "epochs", "evaluation")  # fields of a trial that its budget sets
LONGEST_NAME = 200  # characters of an arm's name, which is shown in tables and figures and kept in MLflow


def faults(base: object, budgets: object, kind: type, lists: Mapping[str, tuple[object, type]]) -> list[str]:
    """Return what is wrong with the kinds of the values of a study.

    Args:
        base: the spec that it changes.
        budgets: its budgets by name.
        kind: the class of these.
        lists: values that are tuples or lists by the name of their field, each with the class of what it holds; `object` for
            references.
    """
    found = [] if isinstance(base, TrialSpec) else [f"base must be a TrialSpec, got {shown(base)}"]
    if isinstance(budgets, Mapping):
        found += [
            f"budget {shown(name)}: its name is made of letters, digits, _ and -, no _ in front"
            for name in budgets
            if not isinstance(name, str) or not re.fullmatch(NAME, name)
        ]
        found += [
            f"budget {shown(name)} must be a {kind.__name__}, got {shown(budget)}"
            for name, budget in budgets.items()
            if not isinstance(budget, kind)
        ]
        if "default" not in budgets:
            found.append(f"budgets must hold one of the name 'default', got: {cut(', '.join(map(str, budgets))) or 'none'}")
    else:
        found.append(f"budgets must be a mapping of names to {kind.__name__}s, got {shown(budgets)}")
    for name, (values, of) in lists.items():
        if not isinstance(values, tuple | list) or not all(isinstance(value, of) for value in values):
            what = {str: "words", object: "references"}.get(of, f"{of.__name__} values")
            found.append(f"{name} must be a tuple of {what}, got {shown(values)}")
    return found


def arm_faults(arms: object) -> list[str]:
    """Return what is wrong with the arms of an ablation: their kind, their names and the kinds of what they change."""
    if not isinstance(arms, Mapping):
        return [f"arms must be a mapping of names to changed fields, such as {{'wide': {{'latent': 8}}}}, got {shown(arms)}"]
    if not arms:
        return ["a study needs at least one arm"]
    found = []
    for name, fields in arms.items():
        if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            found.append(f"arm {shown(name)}: its name is text of 1 to {LONGEST_NAME} printable characters on one line")
        if not isinstance(fields, Mapping) or not all(isinstance(key, str) for key in fields):
            found.append(f"arm {shown(name)} must be a mapping of the fields that it changes, got {shown(fields)}")
    return found


def axes_fault(space: object, axis: type) -> str:
    """Return what is wrong with the kind of a search's space; empty if nothing is. `axis` is the class of its axes."""
    right = isinstance(space, Mapping) and all(isinstance(n, str) and isinstance(a, axis) for n, a in space.items())
    return "" if right else f"space must be a mapping of fields to axes, such as {{'latent': Whole(2, 8)}}, got {shown(space)}"


def seeds_fault(seeds: object) -> str:
    """Return what is wrong with the seeds of a budget; empty if nothing is."""
    if not isinstance(seeds, Sequence) or isinstance(seeds, str | bytes):
        return f"seeds are whole numbers, such as range(3) or (0,1,2), got {shown(seeds)}"
    if not isinstance(seeds, range) and not all(type(seed) is int for seed in seeds):
        return f"seeds are whole numbers, such as range(3) or (0,1,2), got {shown(seeds)}"
    return ""


def in_words(fault: TypeError, known: Mapping[str, Sequence[str]]) -> str:
    r"""Return the message of a call that Python refused, with the nearest keyword; `known` has the keywords of classes by name.

    >>> in_words(TypeError("Budget.__init__() got an unexpected keyword argument 'epoch'"), {"Budget": ("epochs", "seeds")})
    "Budget has no 'epoch'; did you mean 'epochs'?\nknown: epochs, seeds"
    """
    words = str(fault).replace(".__init__()", "")
    wrong = re.fullmatch(r"(\w+) got an unexpected keyword argument '(\w+)'", words)
    if not wrong or wrong[1] not in known:
        return words
    names = known[wrong[1]]
    return f"{wrong[1]} has no {wrong[2]!r}{nearest(wrong[2], names)}\nknown: {', '.join(names)}"
