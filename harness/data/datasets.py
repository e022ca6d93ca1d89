"""The data sets by name."""

from collections.abc import Callable, Mapping

from harness.data.digits import digits
from harness.data.mnist import mnist_family
from harness.data.splits import Data, Say
from harness.errors import look_up

DATASETS: Mapping[str, Callable[[Say], Data]] = {
    "mnist": lambda say: mnist_family("MNIST", say),
    "fashion_mnist": lambda say: mnist_family("FashionMNIST", say),
    "kmnist": lambda say: mnist_family("KMNIST", say),
    "digits": digits,
}


def load_dataset(name: str, say: Say = print) -> Data:
    """Return the data set of this name on the CPU, fetching its files first if they are missing.

    The MNIST family is split into the first 50,000 training images for training, the last 10,000 for validation and the published
    10,000 test images.

    Args:
        name: A key of `DATASETS`.
        say: Takes messages about progress.

    Raises:
        UserError: There is no data set of this name.
        DataError: Files are missing and cannot be fetched, or their bytes are not the published ones.
    """
    return look_up(DATASETS, name, "dataset")(say)
