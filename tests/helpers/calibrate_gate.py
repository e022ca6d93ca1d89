"""How often the gate against slower code is wrong on this machine.

    python tests/helpers/calibrate_gate.py --verdicts 20 [--as-studied]

A verdict of the step by operations takes about a minute and a half on a quiet machine.
"""

import argparse
import itertools
from collections import Counter
from contextlib import closing

from rich.console import Console

from harness import paths
from harness.bench import gate, gate_rule


def calibrate(
    console: Console,
    *,
    verdicts: int = 20,
    pairs: int = gate.PAIRS,
    rounds: int = gate.ROUNDS,
    plant: float = 0.1,
    as_studied: bool = False,
    time_groups: gate.Timing = gate.time_groups,
) -> dict[str, Counter[str]]:
    """Count how often the gate is wrong on this machine.

    It gives verdicts on equal code, and on a head that trains `plant` more steps per round. Each verdict has groups of its own; the
    two kinds share the base.
    """
    steps = gate.STEPS[as_studied]
    head, slow = (paths.PROJECT, steps), (paths.PROJECT, round(steps * (1 + plant)))
    outcomes: dict[str, Counter[str]] = {"equal": Counter(), "planted": Counter()}
    with closing(time_groups([head, head, head, slow, slow], rounds, "cpu", as_studied)) as groups:
        for n in range(verdicts):
            seconds_of_groups = list(itertools.islice(groups, pairs))
            for kind, heads in (("equal", (1, 2)), ("planted", (3, 4))):
                ratios, control = zip(*(gate.pair(seconds, heads) for seconds in seconds_of_groups), strict=True)
                result = gate_rule.verdict(ratios, control)
                outcomes[kind][result.outcome] += 1
                console.print(f"{n + 1}/{verdicts} {kind}: {result}", highlight=False, soft_wrap=True)
    return outcomes


def main() -> None:
    """Calibrate, and say what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--verdicts", type=int, default=20)
    parser.add_argument("--as-studied", action="store_true")
    chosen = parser.parse_args()
    for kind, outcomes in calibrate(Console(), verdicts=chosen.verdicts, as_studied=chosen.as_studied).items():
        print(f"{kind}: {', '.join(f'{count} {outcome}' for outcome, count in outcomes.items())}")


if __name__ == "__main__":
    main()
