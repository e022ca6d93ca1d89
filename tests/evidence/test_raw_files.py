"""A manifest names the files that a data set is read from."""

from pathlib import Path

import pytest
from tiny_sets import write

from harness.data.published import DIGESTS, folder_of
from harness.evidence.facts import located, raw_files


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("kmnist", "KMNIST"), ("cifar10", "CIFAR10"), ("svhn", "SVHN")])
def test_published_files_and_no_others(name: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert raw_files(name) == {}
    write(folder_of(folder), dict.fromkeys([*DIGESTS[folder], "SHA256SUMS", "more-ubyte"], b""))
    assert raw_files(name) == {f"{folder}/raw/{file}": tmp_path / folder / "raw" / file for file in DIGESTS[folder]}
    assert all(located(file) == path for file, path in raw_files(name).items())


def test_files_of_packages_and_none_of_what_is_drawn() -> None:
    assert [path.is_file() for path in raw_files("digits").values()] == [True]
    assert raw_files("shapes") == {}
    assert raw_files("own.py:images") == {}
