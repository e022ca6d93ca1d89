"""Steps for the tests of the checks of a GPU: one that works, one that fails until it is mended, one that hangs until it is.

A step is mended by a file `mended` in the folder of the results. Each case notes there that it was taken.
"""

import sys
import time
from collections.abc import Callable, Iterator

from harness.bench.gpu import steps
from harness.bench.gpu.record import Row
from harness.bench.gpu.setting import Case, Setting
from harness.bench.gpu.steps import Step
from harness.errors import MachineError


def case(setting: Setting, name: str, act: Callable[[], None] = lambda: None) -> Case:
    def take() -> list[Row]:
        with (setting.out / "taken").open("a") as file:
            file.write(f"{name}\n")
        if not (setting.out / "mended").exists():
            act()
        return [Row(name, "1 s", ok=name != "slow")]

    return name, take


def fault() -> None:
    raise RuntimeError("out of luck\nand more")


def absent() -> None:
    raise MachineError("needs a thing: not installed\nget one")


def works(setting: Setting) -> Iterator[Case]:
    yield case(setting, "quick")
    yield case(setting, "slow")
    yield case(setting, "absent", absent)


def fails(setting: Setting) -> Iterator[Case]:
    yield case(setting, "before")
    yield case(setting, "broken", fault)
    yield case(setting, "after")


def hangs(setting: Setting) -> Iterator[Case]:
    yield case(setting, "early")
    yield case(setting, "endless", lambda: time.sleep(3600))


STEPS = (
    Step("hangs", "hangs until it is mended", 5, hangs),
    Step("fails", "fails until it is mended", 100, fails),
    Step("works", "works", 100, works),
)

if __name__ == "__main__":
    sys.exit(steps.main(sys.argv[1:], STEPS))
