"""The MLflow server of `harness ui` for tests."""

import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from harness import tracking
from harness.tracking import server

START_S = 90


def status(port: int, host: str) -> int:
    """The code of the server's answer to a request that names this host."""
    request = urllib.request.Request(f"http://{server.HOST}:{port}/", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


@contextmanager
def serving(port: int) -> Iterator[str]:
    """Start the server, wait until it answers, and yield its address."""
    environment = server.environment(tracking.store_uri())
    process = subprocess.Popen(server.command(port), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(START_S * 4):
            try:
                if status(port, f"{server.HOST}:{port}") == 200:
                    break
            except OSError:
                assert process.poll() is None, "the server ended before it answered"
            try:
                process.wait(0.25)
            except subprocess.TimeoutExpired:
                continue
        yield f"http://{server.HOST}:{port}"
    finally:
        process.terminate()
        process.wait(20)
