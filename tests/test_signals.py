"""Ten SIGTERM and ten SIGINT at random moments: each ends a driver in time, in good order, and nothing is lost or done twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.slow
def test_ten_of_each_signal_at_random_moments() -> None:
    program = [sys.executable, str(TESTS / "signals.py"), "--each", "10", "--seed", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 x SIGTERM and SIGINT, seed 0: nothing wrong" in done.stdout
