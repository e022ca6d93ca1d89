"""How trials become programs: which train together, how many at a time, and whether their step is compiled."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from harness import devices
from harness.data import Data
from harness.models.vae import mixable
from harness.spec import TrialSpec
from harness.training.batches import CHUNK
from harness.training.cohort import Cohort

# Measured on the reference model, one thread (docs/log.md): a cold compile takes about 35 s and saves 2.5 ms a step.
BREAK_EVEN_STEPS = 15_000
MOST_LANES = 128
KNEE = 0.9  # twice the lanes must cost at most this much per trial to be worth their memory


@dataclass(frozen=True)
class Plan:
    """workers at a time, each with a program of up to `lanes` trials of one group.

    compiled: the cohorts (`TrialSpec.cohort`) whose step is compiled. mixed: the groups in which trials of several likelihoods or
    activations share a program. why: what was chosen, for people.
    """

    workers: int
    lanes: int
    compiled: frozenset[TrialSpec]
    mixed: frozenset[TrialSpec]
    why: str

    def group(self, spec: TrialSpec) -> TrialSpec:
        """Trials of equal groups may train together."""
        return spec.mixed if spec.mixed in self.mixed else spec.cohort


def plan(specs: Sequence[TrialSpec], data: Data, where: torch.device, workers: int) -> Plan:
    """The plan for these trials: a function of the specs and the workers on a CPU, of a probe of a minute at most on a GPU.

    On a CPU every worker has one thread and one lane: lanes there only save dispatch, and the state of several leaves the cache
    (docs/performance.md has both measured).

    Raises:
        UserError: a precision that does not pay on this device.
    """
    for precision in sorted({s.precision for s in specs}):
        devices.check_precision(precision, where)
    if devices.compiler(where) is None:
        lanes = 1 if where.type == "cpu" else devices.memory_holds(where, Cohort(specs[:1], data, where).bytes_per_lane)
        lanes = min(lanes, MOST_LANES)
        return Plan(
            workers, lanes, frozenset(), frozenset(), f"{workers} at a time, {lanes} a program, not compiled: no C compiler here"
        )
    if where.type == "cpu":
        compiled = frozenset(
            c for c, n in Counter(s.cohort for s in specs).items() if _steps(c, data, n, workers) >= BREAK_EVEN_STEPS
        )
        programs = len({s.cohort for s in specs})
        how = f"{len(compiled)} of {programs} programs compiled" if compiled else "not compiled, too short to pay for it"
        return Plan(workers, 1, compiled, frozenset(), f"{workers} at a time, one thread and one trial each; {how}")
    lanes, mixed = _probe(specs, data, where)
    how = f"{len(mixed)} groups share a program across arms" if mixed else "a program per arm"
    return Plan(workers, lanes, frozenset(s.cohort for s in specs), mixed, f"{lanes} trials a program, {how}, compiled")


def _steps(cohort: TrialSpec, data: Data, trials: int, workers: int) -> int:
    """Steps that one worker takes with this program."""
    per_epoch = -(-len(data.fit_on(cohort.fit_on).levels) // cohort.batch_size)
    return -(-trials // workers) * cohort.epochs * per_epoch


def _probe(specs: Sequence[TrialSpec], data: Data, where: torch.device) -> tuple[int, frozenset[TrialSpec]]:
    """Lanes of a program, and the groups worth mixing. Doubles the lanes while memory lasts and a trial's step gets cheaper."""
    largest = max(Counter(s.mixed for s in specs).values())
    seeds = [specs[0].derive(seed=i) for i in range(MOST_LANES)]
    fits = devices.memory_holds(where, Cohort(seeds[:1], data, where).bytes_per_lane)
    lanes, cost = 1, trial_step(seeds[:1], data, where)
    while 2 * lanes <= min(fits, MOST_LANES, devices.bucket(largest)):
        twice = trial_step(seeds[: 2 * lanes], data, where)
        if twice > KNEE * cost:
            break
        lanes, cost = 2 * lanes, twice
    return lanes, frozenset(
        g for g in {s.mixed for s in specs} if _worth_mixing([s for s in specs if s.mixed == g], lanes, data, where)
    )


def _worth_mixing(specs: Sequence[TrialSpec], lanes: int, data: Data, where: torch.device) -> bool:
    """Whether one program for the arms of a group is faster than a program for each. Both are measured."""
    arms = sorted({s.cohort for s in specs}, key=lambda c: c.id)
    if len(arms) < 2 or not mixable(specs):
        return False
    each = max(1, lanes // len(arms))
    together = [arm.derive(seed=seed) for arm in arms for seed in range(each)][:lanes]
    separate = [trial_step([arm.derive(seed=seed) for seed in range(each)], data, where) for arm in arms]
    return trial_step(together, data, where) < sum(separate) / len(separate)


def trial_step(specs: Sequence[TrialSpec], data: Data, where: torch.device) -> float:
    """Seconds of one step of one trial when these train together: their graph, captured but not compiled, which takes a second."""
    cohort = Cohort(specs, data, where, compiled=True, fuse=False)
    steps = min(CHUNK, cohort.steps_per_epoch)
    cohort.run_steps(steps)
    devices.wait(where)
    started = time.perf_counter()
    cohort.run_steps(steps)
    devices.wait(where)
    return (time.perf_counter() - started) / (steps * len(specs))
