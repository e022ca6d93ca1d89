"""Four drivers that ask at the same time never get the same point, nor more points than there are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from asker import store

PROGRAM = Path(__file__).parents[1] / "helpers" / "asker.py"
DRIVERS, POINTS = 4, 24


@pytest.mark.slow
def test_four_drivers_and_24_asked_points_are_24_distinct_points(home: Path) -> None:
    samplers = ("random", "tpe")
    books = [store(sampler) for sampler in samplers]  # made once, so that the four race for points only
    program = [sys.executable, str(PROGRAM), str(DRIVERS), str(POINTS), *samplers]
    done = subprocess.run(
        program, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    for book in books:
        trials = book.trials()
        book.close()
        assert len(trials) == POINTS
        assert {t.state.name for t in trials} == {"COMPLETE"}
        assert len({tuple(sorted(t.params.items())) for t in trials}) == POINTS
        assert len({t.user_attrs["owner"] for t in trials}) > 1
