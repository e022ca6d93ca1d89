"""The native library for each set of instructions that this processor has."""

import pytest

from harness import resources
from harness.kernels import library
from harness.kernels.library import INSTRUCTIONS, Library


def here() -> list[str]:
    """The sets of instructions that this processor has, the widest first."""
    names = list(INSTRUCTIONS)
    return names[names.index(library.instructions()) :] if library.load() else names[:1]


# The widest is what runs here; the others take seconds to compile.
SETS = [pytest.param(name, marks=() if n == 0 else pytest.mark.slow) for n, name in enumerate(here())]


@pytest.fixture(scope="session", params=SETS)
def native(request: pytest.FixtureRequest) -> Library:
    """The library of one set of instructions."""
    if library.load() is None:
        pytest.skip(library.fault())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(resources.KERNELS, request.param)
        library._load.cache_clear()
        found = library.load()
        library._load.cache_clear()
    assert found is not None
    assert found.instructions == request.param
    return found
