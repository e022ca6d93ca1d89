"""First starts on empty stores, by processes that were forked where everything is imported: raced against each other, or cut off.

A program: reads what to do as JSON from standard input, writes what became of it. `home` is a folder, `tracking` and `trials`
name databases on a server, or nothing for the files in the home folder. An undisturbed start in the first home shows what
to import.
"""

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna

from harness import queue, tracking
from harness.tracking import library

Home = dict[str, str]


def cold_starts(**asked: Any) -> dict[str, Any]:
    """What this program answers when it is asked to do something."""
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(asked), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def use(home: Home, name: str) -> None:
    """Open both stores as a driver does, and write one run and one trial of its own."""
    os.environ["HARNESS_HOME"] = home["home"]
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if home["tracking"]:
        os.environ["MLFLOW_TRACKING_URI"] = home["tracking"]
    tracking.ensure_store()
    client = library.client()
    run = client.create_run(client.create_experiment(name, tracking.artifact_location(name))).info.run_id
    client.log_metric(run, "value", 1.0)
    client.set_terminated(run, "FINISHED")
    study = optuna.create_study(study_name=name, storage=queue.database(home["trials"]))
    study.tell(study.ask(), 1.0)


def fork(work: Callable[[], int | None], errors: Path) -> int:
    """The id of a child that does some work and ends with its exit code; why it failed is put into a file."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = work() or 0
    except BaseException:
        errors.write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(code)  # the parent's open files and exit handlers are not this child's


def load_for(work: Callable[[], int | None], folder: Path) -> None:
    """Import here what a child comes to import when it does some work, so that children to come begin with the work itself."""
    names, errors = folder / "modules", folder / "error_in_first"

    def noted() -> None:
        work()
        names.write_text("\n".join(sys.modules), encoding="utf-8")

    os.waitpid(fork(noted, errors), 0)
    if errors.exists():
        raise RuntimeError(errors.read_text(encoding="utf-8"))
    for name in names.read_text(encoding="utf-8").splitlines():
        with suppress(ModuleNotFoundError):  # what was not found by its name but made from a file, such as a study or a migration
            importlib.import_module(name)


def race(homes: Iterable[Home], processes: int) -> list[str]:
    """What went wrong where several processes meet at empty stores."""
    failures = []
    for home in homes:
        errors = [Path(home["home"]) / f"error{n}" for n in range(processes)]
        start = time.monotonic() + 0.1

        def work(name: str, home: Home = home, start: float = start) -> None:
            time.sleep(max(0.0, start - time.monotonic()))
            use(home, name)

        children = [fork(lambda n=n: work(f"racer{n}"), errors[n]) for n in range(processes)]
        for child in children:
            os.waitpid(child, 0)
        failures += [e.read_text(encoding="utf-8") for e in errors if e.exists()]
    return failures


def cut_off(home: Home, wait_s: float, how: int) -> float:
    """End a first start with a signal after a while. Returns 0, or the seconds after which it had ended by itself."""
    began = time.monotonic()
    child = fork(lambda: use(home, "cut_off"), Path(home["home"]) / "error_cut_off")
    while time.monotonic() < began + wait_s:
        if os.waitpid(child, os.WNOHANG)[0]:
            return time.monotonic() - began
        time.sleep(0.01)
    os.kill(child, how)  # not reaped yet, so the id is still its own
    os.waitpid(child, 0)
    return 0.0


def start(home: Home) -> str:
    """An undisturbed start. Empty where it went well."""
    errors = Path(home["home"]) / "error"
    os.waitpid(fork(lambda: use(home, "second"), errors), 0)
    return errors.read_text(encoding="utf-8") if errors.exists() else ""


def main() -> None:
    """Do what standard input asks for."""
    asked = json.load(sys.stdin)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    first = asked["homes"].pop(0)
    load_for(lambda: use(first, "first"), Path(first["home"]))
    if asked["what"] == "race":
        answer: dict = {"failures": race(asked["homes"], asked["processes"])}
    else:
        draw = random.Random(asked["seed"])
        calm, *homes = asked["homes"]
        began = time.monotonic()
        failures = [start(calm)]
        span = time.monotonic() - began
        landed = 0
        for home, how in zip(homes, asked["signals"], strict=True):
            took = cut_off(home, draw.uniform(0, span), signal.Signals[how])
            landed += not took
            span = min(span, took or span)  # the calm start may have been slow, on a machine that was busy then
            failures.append(start(home))
        answer = {"failures": [f for f in failures if f], "landed": landed}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
