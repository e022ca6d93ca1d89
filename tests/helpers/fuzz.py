"""`make fuzz SECONDS=60`: tries what people may write, target after target, each round with another seed, and shows what fails.

The exit code is 1 if something does. A round is the same for the same seed: `--only TARGET --seed N --rounds 1` tries it again.
"""

import argparse
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fuzzing import Target, targets, try_out
from fuzzing.bounds import little_memory

WIDEST = 400  # characters of a line of what was found
EXAMPLES = 12  # of a target in a round: few, so that a short time has a turn for each
STORES = Path(__file__).with_name("state_machine.py")  # tries the stores, for half of the time where it is there


def rounds(
    chosen: Mapping[str, Target], first: int, more: Callable[[int], bool]
) -> Iterator[tuple[str, int, int, Exception | None]]:
    """Yield target, seed, number of inputs and what was raised, if anything, target by target for as long as `more` says so."""
    number, waiting = first, dict(chosen)
    while waiting and more(number - first):
        for name, target in list(waiting.items()):
            try:
                with little_memory():
                    tried = try_out(target, EXAMPLES, number)
                yield name, number, tried, None
            except Exception as found:  # whatever a target raises is what is looked for
                yield name, number, 0, found
                del waiting[name]  # the rest of the time is for the others
            if not more(number - first):
                return
        number += 1


def told(name: str, number: int, found: BaseException) -> str:
    """Return what is shown of something found: where it was raised, the smallest input that raises it, and how to try it again."""
    last = traceback.extract_tb(found.__traceback__)
    own = [f for f in last if "/harness/" in f.filename] or list(last)
    where = f"{own[-1].filename}:{own[-1].lineno}" if own else "?"
    notes = "\n".join(line[:WIDEST] for note in getattr(found, "__notes__", ()) for line in note.splitlines())
    return (
        f"FOUND in {name!r}: {type(found).__name__}: {str(found)[:WIDEST]}\n  at {where}\n{notes[:3_000]}\n"
        f"  again: python tests/helpers/fuzz.py --only {name!r} --seed {number} --rounds 1"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, help="so many, whatever time they take")
    parser.add_argument("--seed", type=int, help="of the first round; one that no one had before unless said")
    parser.add_argument("--only", default="", help="the targets with this in their name")
    options = parser.parse_args(arguments)
    chosen = {name: target for name, target in targets().items() if options.only in name}
    first = int(time.time()) if options.seed is None else options.seed
    stores = STORES.exists() and not options.only
    ends = time.monotonic() + options.seconds / (2 if stores else 1)
    tried: Counter[str] = Counter()
    failed = 0
    more = (lambda done: done < options.rounds) if options.rounds else (lambda done: time.monotonic() < ends)
    for name, number, inputs, found in rounds(chosen, first, more):
        tried[name] += inputs
        if found is not None:
            failed += 1
            print(told(name, number, found), flush=True)
    for name in chosen:
        print(f"  {name:<24} {tried[name]:>8,} inputs")
    print(f"{sum(tried.values()):,} inputs of {len(chosen)} targets from seed {first}: {failed or 'nothing'} found")
    if stores:
        command = [sys.executable, str(STORES), "--seconds", str(options.seconds / 2), "--seed", str(first)]
        failed += subprocess.run(command, check=False).returncode != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
