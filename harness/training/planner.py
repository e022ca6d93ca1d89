"""The plan of a study's training: which trials share a program, how many train at a time, whether their step is compiled."""

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
    """A plan for the training of a study's trials.

    Attributes:
        workers: the number of programs that train at a time.
        lanes: the most trials of one group that a program trains together.
        compiled: the cohorts (`TrialSpec.cohort`) whose step is compiled.
        mixed: the groups (`TrialSpec.mixed`) in which trials of several likelihoods or activations share a program.
        why: the choice in words, for people.
    """

    workers: int
    lanes: int
    compiled: frozenset[TrialSpec]
    mixed: frozenset[TrialSpec]
    why: str

    def group(self, spec: TrialSpec) -> TrialSpec:
        """Return the group of a trial: trials of equal groups may train together."""
        return spec.mixed if spec.mixed in self.mixed else spec.cohort


def plan(specs: Sequence[TrialSpec], data: Data, device: torch.device, workers: int) -> Plan:
    """Return the plan for these trials on this device.

    On a CPU it depends on the specs and the number of workers alone. Every worker has one thread and one lane: more lanes would
    only save dispatch there, and the state of several does not fit the cache (docs/performance.md has measurements of both). On a
    GPU it follows a probe of a minute at most.

    Raises:
        UserError: a precision that is no faster on this device.
    """
    for precision in sorted({s.precision for s in specs}):
        devices.check_precision(precision, device)
    if devices.compiler(device) is None:
        lanes = 1 if device.type == "cpu" else devices.memory_holds(device, Cohort(specs[:1], data, device).bytes_per_lane)
        lanes = min(lanes, MOST_LANES)
        return Plan(
            workers, lanes, frozenset(), frozenset(), f"{workers} at a time, {lanes} a program, not compiled: no C compiler here"
        )
    if device.type == "cpu":
        compiled = frozenset(
            c for c, n in Counter(s.cohort for s in specs).items() if _steps(c, data, n, workers) >= BREAK_EVEN_STEPS
        )
        programs = len({s.cohort for s in specs})
        compilation = f"{len(compiled)} of {programs} programs compiled" if compiled else "not compiled, too short to pay for it"
        return Plan(workers, 1, compiled, frozenset(), f"{workers} at a time, one thread and one trial each; {compilation}")
    lanes, mixed = _probe(specs, data, device)
    sharing = f"{len(mixed)} groups share a program across arms" if mixed else "a program per arm"
    return Plan(workers, lanes, frozenset(s.cohort for s in specs), mixed, f"{lanes} trials a program, {sharing}, compiled")


def _steps(cohort: TrialSpec, data: Data, trials: int, workers: int) -> int:
    """Return how many steps one worker takes with the program of a cohort that `trials` trials are to train with."""
    per_epoch = -(-len(data.fit_on(cohort.fit_on).levels) // cohort.batch_size)
    return -(-trials // workers) * cohort.epochs * per_epoch


def _probe(specs: Sequence[TrialSpec], data: Data, device: torch.device) -> tuple[int, frozenset[TrialSpec]]:
    """Measure and return the lanes of a program, and the groups whose arms are worth mixing in one.

    The lanes are doubled as long as memory lasts and a trial's step gets cheaper by more than the factor KNEE.
    """
    largest = max(Counter(s.mixed for s in specs).values())
    seeds = [specs[0].derive(seed=i) for i in range(MOST_LANES)]
    fits = devices.memory_holds(device, Cohort(seeds[:1], data, device).bytes_per_lane)
    lanes, cost = 1, trial_step(seeds[:1], data, device)
    while 2 * lanes <= min(fits, MOST_LANES, devices.bucket(largest)):
        twice = trial_step(seeds[: 2 * lanes], data, device)
        if twice > KNEE * cost:
            break
        lanes, cost = 2 * lanes, twice
    return lanes, frozenset(
        g for g in {s.mixed for s in specs} if _worth_mixing([s for s in specs if s.mixed == g], lanes, data, device)
    )


def _worth_mixing(specs: Sequence[TrialSpec], lanes: int, data: Data, device: torch.device) -> bool:
    """Measure and return whether one program for all arms of a group is faster than a program for each arm."""
    arms = sorted({s.cohort for s in specs}, key=lambda c: c.id)
    if len(arms) < 2 or not mixable(specs):
        return False
    per_arm = max(1, lanes // len(arms))
    together = [arm.derive(seed=seed) for arm in arms for seed in range(per_arm)][:lanes]
    separate = [trial_step([arm.derive(seed=seed) for seed in range(per_arm)], data, device) for arm in arms]
    return trial_step(together, data, device) < sum(separate) / len(separate)


def trial_step(specs: Sequence[TrialSpec], data: Data, device: torch.device) -> float:
    """Return the seconds of one step of one trial when these trials train together.

    Measured on their graph, captured but not compiled, which is ready in a second.
    """
    cohort = Cohort(specs, data, device, compiled=True, fuse=False)
    steps = min(CHUNK, cohort.steps_per_epoch)
    cohort.run_steps(steps)
    devices.wait(device)
    started = time.perf_counter()
    cohort.run_steps(steps)
    devices.wait(device)
    return (time.perf_counter() - started) / (steps * len(specs))
