"""Which pictures of training are kept, and after which epochs. Neither torch nor matplotlib is imported here."""

FOLDER = "images"  # of a run's files, where MLflow looks for its logged images
KEYS = ("reconstructions", "samples", "latent space")  # in the order in which they are shown
MOST = 5  # epochs after which a trial is pictured


def epochs_pictured(epochs: int) -> list[int]:
    """Return the epochs after which a trial of so many is pictured: the first, the last, and between them at even ratios.

    >>> epochs_pictured(6), epochs_pictured(50)
    ([1, 2, 4, 6], [1, 3, 7, 19, 50])
    """
    return sorted({round(epochs ** (i / (MOST - 1))) for i in range(MOST)})
