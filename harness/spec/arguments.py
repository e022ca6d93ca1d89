"""Arguments of what a trial names, and a trial's fields as flat parameters. Torch is not imported here."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


class Arguments(Mapping[str, Any]):
    """Arguments by name that do not change, so that a spec can be hashed. Lists become tuples."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {name: _frozen(values[name]) for name in sorted(values)}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Arguments):  # 3 and 3.0 are equal, but may be other code's business, and have other ids
            return self.text == other.text
        return isinstance(other, Mapping) and self._values == dict(other)

    def __hash__(self) -> int:
        return hash(self.text)

    @property
    def text(self) -> str:
        """The arguments as JSON, with their names in order."""
        return json.dumps(self._values, sort_keys=True, default=dict)

    def __repr__(self) -> str:
        return repr(self._values)


NO_ARGUMENTS = Arguments({})


def _frozen(value: Any) -> Any:
    """Return a value that can be hashed: lists as tuples, mappings as `Arguments`."""
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return Arguments(value) if isinstance(value, Mapping) and not isinstance(value, Arguments) else value


def flattened(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the fields of a trial as parameters: those of nested mappings by dotted names, without those that are None.

    >>> flattened({"latent": 2, "hidden": None, "likelihood_args": {"sigma": 0.5}})
    {'latent': 2, 'likelihood_args.sigma': 0.5}
    """
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        elif value is not None:
            flat[prefix + name] = value
    return flat
