"""Uniform noise of the native kernel is torch's, number by number, and leaves the generator where torch does."""

import pytest
import torch

from harness.kernels import uniform
from harness.kernels.library import Library


@pytest.mark.parametrize("seed", [0, 2**56 - 3])
def test_it_draws_what_torch_draws(native: Library, seed: int) -> None:
    """In pieces that end at, before and behind the end of a block of 624 numbers."""
    ours, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
    for count in (1, 622, 1, 624, 5, 1_300, 3, 611, 10_000):
        u, state = torch.full((count,), torch.nan), ours.get_state()
        native.uniform(state.data_ptr(), u.data_ptr(), count)
        ours.set_state(state)
        assert u.equal(torch.rand(count, generator=theirs)), count
        assert torch.randn(3, generator=ours).equal(torch.randn(3, generator=theirs))


def test_it_is_used_wherever_there_is_a_library(native: Library) -> None:
    assert uniform._same_as_torch()


def test_without_a_library_torch_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (torch.Generator().manual_seed(3) for _ in range(2))
    with_it = uniform.uniform(ours, 5, 7)
    monkeypatch.setattr(uniform, "_same_as_torch", lambda: False)
    assert uniform.uniform(theirs, 5, 7).equal(with_it)
    assert uniform.uniform(ours, 2).equal(uniform.uniform(theirs, 2))


def test_a_generator_with_a_smaller_state_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would write beyond it."""
    monkeypatch.setattr(uniform, "STATE_BYTES", torch.Generator().get_state().numel() + 1)
    monkeypatch.setattr(uniform, "_native", lambda *_: pytest.fail("written to"))
    uniform._same_as_torch.cache_clear()
    try:
        assert not uniform._same_as_torch()
    finally:
        uniform._same_as_torch.cache_clear()
