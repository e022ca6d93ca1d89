"""What may be wrong with the fields of a trial, all of it at once. Torch is not imported here."""

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from harness import catalog, references
from harness.errors import shown, unknown
from harness.spec.arguments import Arguments
from harness.spec.sizes import published_images, too_many_at_once

if TYPE_CHECKING:
    from harness.spec.trial import TrialSpec

MOST_LAYERS = 1_000  # to make many more takes minutes before the first step
DEEPEST = 20  # lists and mappings within one another
MOST_BITS = 1_024  # of a whole number among the arguments of code of the user's own
REAL_FIELDS = (
    "learning_rate",
    "beta",
    "weight_decay",
    "kl_warmup",
    "kl_cycle",
    "free_bits",
    "learning_rate_decay",
    "learning_rate_warmup",
    "clip_norm",
    "ema_decay",
)


def faults_of(spec: "TrialSpec") -> list[str]:
    """Return a message for every field that is wrong, alone or beside the others."""
    alone = _alone(spec)
    return [*alone.values(), *_beside(spec, wrong=alone.keys())]


def _alone(spec: "TrialSpec") -> dict[str, str]:
    """Return a message for every field that is wrong whatever the others are, by the field's name."""
    faults: dict[str, str] = {}
    for name, words in catalog.WORDS.items():
        value = getattr(spec, name)
        if not isinstance(value, str) or value not in words:
            faults[name] = str(unknown(name, value, words))
    for name, low in {"latent": 1, "batch_size": 1, "epochs": 1, "seed": 0, "num_samples": 1, "patience": 0}.items():
        value = getattr(spec, name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 2**31:
            faults[name] = f"{name} must be a whole number from {low} to 2**31 - 1, got {shown(value)}"
    for name in REAL_FIELDS:
        value = getattr(spec, name)
        positive = name in ("learning_rate", "learning_rate_decay")
        if not _is_number(value) or value < 0 or (positive and value == 0):
            faults[name] = f"{name} must be a finite number {'above' if positive else 'of at least'} 0, got {shown(value)}"
    if "ema_decay" not in faults and spec.ema_decay > 1:
        faults["ema_decay"] = f"ema_decay must be at most 1, the plain mean of the weights after all steps, got {spec.ema_decay!r}"
    if spec.hidden is not None and not _are_widths(spec.hidden):
        faults["hidden"] = f"hidden must be a tuple of widths of at least 1, got {shown(spec.hidden)}"
    elif spec.hidden is not None and len(spec.hidden) > MOST_LAYERS:
        faults["hidden"] = f"hidden must have at most {MOST_LAYERS:,} widths, got {len(spec.hidden):,}"
    return faults


def _beside(spec: "TrialSpec", wrong: Collection[str]) -> list[str]:
    """Return a message for every field that is wrong beside others, of those that are not `wrong` already."""
    faults = []

    def right(*names: str) -> bool:
        return not any(name in wrong for name in names)

    if right("patience", "fit_on") and spec.patience and spec.fit_on != "train":
        faults.append(f"patience={spec.patience!r} takes fit_on='train', or there is no validation to stop by; got {spec.fit_on!r}")
    if right("evaluation", "fit_on") and spec.evaluation == "validation" and spec.fit_on != "train":
        faults.append(f"evaluation='validation' takes fit_on='train', or nothing is left to validate on; got {spec.fit_on!r}")
    if right("batch_size", "fit_on") and isinstance(spec.dataset, str):
        images = published_images(spec)
        if images and (fault := too_many_at_once(spec, images)):
            faults.append(fault)
    network = catalog.NETWORKS.get(spec.network) if isinstance(spec.network, str) else None
    if network is not None and network.hidden is None and spec.hidden is not None:
        others = [name for name, entry in catalog.NETWORKS.items() if entry.hidden]
        faults.append(f"hidden={shown(spec.hidden)} is for the network {' or '.join(map(repr, others))}, got {spec.network!r}")
    schedule = spec.learning_rate_schedule if isinstance(spec.learning_rate_schedule, str) and right("learning_rate_decay") else ""
    if schedule == "constant" and spec.learning_rate_decay != 1:
        faults.append(f"learning_rate_decay={spec.learning_rate_decay!r} is for a schedule that falls, got 'constant'")
    if schedule == "cosine" and spec.learning_rate_decay == 1:
        faults.append("the schedule 'cosine' falls to learning_rate_decay times the first rate: give it below 1, such as 0.01")
    objective = catalog.OBJECTIVES.get(spec.objective) if isinstance(spec.objective, str) else None
    if objective is not None and not objective.weighs_kl:
        weighing = " or ".join(repr(name) for name, entry in catalog.OBJECTIVES.items() if entry.weighs_kl)
        for name, neutral in {"beta": 1, "kl_warmup": 0, "free_bits": 0}.items():
            if right(name) and getattr(spec, name) != neutral:
                faults.append(f"{name}={getattr(spec, name)!r} is for the objective {weighing}, got {spec.objective!r}")
    if right("kl_cycle", "kl_warmup") and spec.kl_cycle > 0 and not 0 < spec.kl_warmup <= spec.kl_cycle:
        faults.append(f"kl_cycle={spec.kl_cycle!r} takes a kl_warmup above 0 and no longer than itself, got {spec.kl_warmup!r}")
    return faults


def unfinished(spec: "TrialSpec") -> list[str]:
    """Return a message for every rise of a trial that takes more epochs than it trains, so that it never gets to its end.

    It is no fault of a spec alone: a budget for trying a study out may well be shorter than the rises of its arms.
    """
    lengths = {name: getattr(spec, name) for name in ("kl_warmup", "kl_cycle", "learning_rate_warmup")}
    epochs = f"{spec.epochs} epoch{'s' * (spec.epochs != 1)}"
    return [f"{name}={n:g} takes longer than the {epochs} of training" for name, n in lengths.items() if n > spec.epochs]


def arguments_of(spec: "TrialSpec", name: str) -> tuple[Arguments, list[str]]:
    """Return the arguments in a field with the defaults filled in and in one form, and what is wrong with them."""
    given, of = getattr(spec, name), catalog.ARGUMENTS[name]
    thing = getattr(spec, of)
    if not isinstance(given, Mapping):
        return Arguments({}), [f"{name} must be a mapping of names to values, such as {{'df': 3}}, got {shown(given)}"]
    entry = catalog.entry(of, thing) if isinstance(thing, str) else None
    if not _is_plain(given, finite=entry is None):
        return Arguments({}), [f"{name} must be numbers, words, lists and mappings of these by name, got {shown(given)}"]
    if entry is None:  # code of the user's own, which is asked before anything trains
        return Arguments(given), []
    known = entry.arguments
    faults = [
        f"{of} {shown(references.label(thing))} takes no argument {shown(key)}" + f"; it takes: {', '.join(known) or 'none'}"
        for key in given
        if key not in known
    ]
    values: dict[str, Any] = {key: given.get(key, argument.default) for key, argument in known.items()}
    values = {key: value for key, value in values.items() if value is not None}
    faults += filter(None, (known[key].fault(f"{name}.{key}", value) for key, value in values.items()))
    return Arguments({key: known[key].one_form(value) for key, value in values.items()}), faults


def _is_plain(value: object, *, finite: bool, depth: int = DEEPEST) -> bool:
    """Return whether a value is made of (finite) numbers, words, lists and mappings by name, which JSON gives back as they are."""
    if depth == 0:
        return False
    if isinstance(value, Mapping):
        return all(_is_text(key) and _is_plain(item, finite=finite, depth=depth - 1) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item, finite=finite, depth=depth - 1) for item in value)
    if isinstance(value, int):
        return value.bit_length() <= MOST_BITS
    return value is None or _is_text(value) or (isinstance(value, float) and not (finite and not math.isfinite(value)))


def _is_text(value: object) -> bool:
    """Return whether this is a text that files and stores can hold: without halves of characters."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_number(value: object) -> bool:
    """Return whether this is a finite number."""
    return isinstance(value, float) and math.isfinite(value)


def _are_widths(hidden: object) -> bool:
    """Return whether this is a tuple of one or more whole numbers of at least 1."""
    return isinstance(hidden, tuple) and len(hidden) > 0 and all(type(w) is int and 1 <= w < 2**31 for w in hidden)
