"""The digests of published files: they stand here, and what lies beside the files does not count."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from harness import catalog, paths
from harness.errors import DataError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

# By folder: each file that is read, in this order, and its published digest.
DIGESTS: dict[str, Mapping[str, str]] = {
    "MNIST": {
        FILES[0]: "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        FILES[1]: "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        FILES[2]: "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        FILES[3]: "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "FashionMNIST": {
        FILES[0]: "sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        FILES[1]: "sha256:bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        FILES[2]: "sha256:5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        FILES[3]: "sha256:0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    # Published packed, and read as they are: no digest of the raw files is published.
    "KMNIST": {
        f"{FILES[0]}.gz": "sha256:51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        f"{FILES[1]}.gz": "sha256:e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        f"{FILES[2]}.gz": "sha256:edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        f"{FILES[3]}.gz": "sha256:20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    },
    # Of what is in the archive only md5 is published, which suffices: other bytes of a given md5 cannot be made.
    "CIFAR10": {
        "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
        "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
        "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "md5:40351d587109b95175f43aff81a1287e",
    },
    "SVHN": {
        "train_32x32.mat": "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        "test_32x32.mat": "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
    },
}


def folder_of(folder: str) -> Path:
    """Return where the files of a folder of `DIGESTS` lie."""
    return paths.data() / folder / "raw"


def name_of(folder: str) -> str:
    """Return the name in the catalog of the data set whose files lie in this folder."""
    return next(name for name, entry in catalog.DATASETS.items() if entry.fixed.get("folder") == folder)


def digest_as(published: str, content: bytes) -> str:
    """Return the digest of some bytes by the algorithm of a published one, written like it: `sha256:...`."""
    algorithm = published.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()}"


def checked(folder: str, file: Path) -> bytes:
    """Return the bytes of a published file of this folder.

    Raises:
        DataError: They are others; the message gives both digests.
    """
    published = DIGESTS[folder][file.name]
    try:
        content = file.read_bytes()
    except OSError as fault:
        raise DataError(f"{file} cannot be read: {fault.strerror}\nmake it readable, or {_again(folder)}") from None
    actual = digest_as(published, content)
    if actual != published:
        raise DataError(
            f"{file} is not the published file\nexpected {published}\ngot      {actual} ({len(content):,} bytes)\n{_again(folder)}"
        )
    return content


def _again(folder: str) -> str:
    """Return in words how to fetch a file of this folder again."""
    return f"delete it and run `{paths.command('data', dataset=name_of(folder))}` to fetch it again"
