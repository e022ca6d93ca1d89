"""A term that is infinite is as little a number as NaN: the trial stops, with the first bad step."""

import torch

from harness.training.batches import not_finite


def test_infinite_terms_are_found_with_their_first_step_and_values() -> None:
    terms = torch.zeros(4, 3, 5)
    terms[2:, 1, 1] = torch.inf
    terms[1, 0, 2] = -torch.inf
    terms[3, 2, 4] = torch.nan
    terms[:, :, 3] = torch.finfo(torch.float32).max
    found = not_finite(terms)
    assert {lane: row for lane, (row, _) in found.items()} == {1: 2, 2: 1, 4: 3}
    assert found[1][1] == "log p(x|z) = 0, KL = inf, objective = 0"
    assert found[2][1] == "log p(x|z) = -inf, KL = 0, objective = 0"
