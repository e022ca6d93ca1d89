"""What all contracts share: the error of one that is broken, and rules of any function of tensors."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

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
            self.broken(
                f"{call} must work", f"{type(fault).__name__}: {first}{_place(fault)}", "docs/extending.md says what it is given"
            )

    def traceable(self, call: str, function: Callable[..., Any], *inputs: Any) -> None:
        """Raise an error if a function looks at the values of tensors, which a step that is traced cannot."""
        try:
            make_fx(lambda tensors: function(*tensors))(list(inputs))
        except Exception as fault:  # it is the user's code, which may raise anything
            if "_local_scalar_dense" not in str(fault):
                raise
            found = f"a read of a tensor's value{_place(fault)}"
            self.broken(f"{call} must be traceable", found, "no .item() and no `if` on values: use torch.where")

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


def _place(fault: BaseException) -> str:
    """Return in words where the user's code raised an error; empty if it did not."""
    ours = Path(__file__).parent.parent
    frames = [
        Path(f.filename).name + f":{f.lineno}"
        for f in traceback.extract_tb(fault.__traceback__)
        if _is_theirs(Path(f.filename), ours)
    ]
    return f" ({frames[-1]})" if frames else ""


def _is_theirs(file: Path, ours: Path) -> bool:
    """Return whether a file is neither this package's nor an installed one's."""
    return file.suffix == ".py" and not file.is_relative_to(ours) and not {"site-packages", "dist-packages"} & set(file.parts)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return draws from N(0, 1) of a fixed seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
