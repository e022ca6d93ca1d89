"""What people may write or hand over, as strategies of Hypothesis, and what must hold of each: the targets of `make fuzz`.

A target is a strategy and a property. The property of all of them: either it works, or it is refused as it should be, within a
number of calls; never another exception, never something written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Target:
    """Something that takes what people write.

    Attributes:
        inputs: what is tried.
        holds: raises if what must hold does not hold of an input.
    """

    inputs: SearchStrategy[Any]
    holds: Callable[[Any], None]


def targets() -> Mapping[str, Target]:
    """Return all targets by name. They are imported here: torch takes seconds, and a helper's usage should not."""
    from fuzzing import commands, datafiles, names, overrides, records, sources, specs, studies

    rooms = (specs, studies, overrides, sources, commands, datafiles, records, names)
    return {name: target for room in rooms for name, target in room.TARGETS.items()}


def try_out(target: Target, examples: int, number: int) -> int:
    """Try inputs, the same ones for the same seed `number`,
    and return how many; raise what the smallest one that fails raises."""
    tried = 0

    # No health checks: a property may take long on a machine that others use. No deadline: it counts calls instead.
    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(target.inputs)
    def holds(given: Any) -> None:
        nonlocal tried
        tried += 1
        target.holds(given)

    holds()
    return tried
