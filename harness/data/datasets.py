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
    """The data set `name`, fetched first if it is not here.

    Splits: the first 50,000 training images train, the last 10,000 validate, the published 10,000 test.

    Raises:
        DataError: files missing with no way to get them, or bytes that are not the published ones.
    """
    return look_up(DATASETS, name, "dataset")(say)
