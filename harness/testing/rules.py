"""What all contracts share: the error of one that is broken, and rules of any function of tensors."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import torch
from torch import Tensor

from harness import references
from harness.errors import HarnessError, UserError


class ContractError(UserError):
    """Raised when something of the user's own breaks the contract of its kind."""


class Contract:
    """The contract of one thing: what it is called and of what kind, for messages.

    Attributes:
        what: the thing, in words.
        kind: of thing, such as `likelihood`.
    """

    def __init__(self, given: object, kind: str) -> None:
        name = given if isinstance(given, str) else getattr(given, "__qualname__", type(given).__qualname__)
        self.what, self.kind = references.label(name), kind

    def broken(self, rule: str, found: object, fix: str) -> NoReturn:
        """Raise the error for a rule that is broken: what must be, what was found instead, and what would mend it."""
        raise ContractError(f"{self.kind} {self.what}: {rule}, got {found}\n{fix}")

    @contextmanager
    def calling(self, call: str) -> Iterator[None]:
        """Turn whatever the user's code raises in this block into the error of this contract."""
        try:
            yield
        except HarnessError:
            raise
        except Exception as fault:  # it is the user's code, which may raise anything
            first = next(iter(str(fault).splitlines()), "")
            self.broken(f"{call} must work", f"{type(fault).__name__}: {first}", "call it by hand with tensors of these shapes")

    def shape(self, call: str, value: object, expected: Sequence[int], names: str) -> Tensor:
        """Return a tensor of this shape, given in letters by `names`, or raise an error."""
        if not isinstance(value, Tensor):
            self.broken(f"{call} must return a tensor {names} = {tuple(expected)}", type(value).__name__, "return a tensor")
        if tuple(value.shape) != tuple(expected):
            self.broken(f"{call} must have the shape {names} = {tuple(expected)}", tuple(value.shape), f"return {names}")
        return value

    def finite(self, call: str, value: Tensor, fix: str) -> None:
        """Raise an error if a value is not finite."""
        bad = int((~value.isfinite()).sum())
        if bad:
            self.broken(f"{call} must be finite", f"{bad} of {value.numel()} values that are not", fix)

    def equal(self, rule: str, one: Tensor, other: Tensor, fix: str, tolerance: float = 1e-4) -> None:
        """Raise an error if two tensors differ by more than `tolerance`, absolute and relative."""
        if not torch.allclose(one, other, rtol=tolerance, atol=tolerance):
            self.broken(rule, f"a difference of {(one - other).abs().max():.3g}", fix)

    def same_twice(self, call: str, function: Callable[[], Tensor], fix: str) -> None:
        """Raise an error if two calls give different values."""
        one, other = function(), function()
        if not torch.equal(one, other):
            self.broken(f"{call} must give the same twice", f"a difference of {(one - other).abs().max():.3g}", fix)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return draws from N(0, 1) of a fixed seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
