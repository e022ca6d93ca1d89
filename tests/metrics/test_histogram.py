"""What is to beat without a latent: a histogram of levels for each value, held to the one that is counted image by image."""

from collections import Counter
from math import log2

import pytest
import torch

from harness.data import Data, Split, load_dataset
from harness.metrics import bits_per_dim, histogram


def split(images: int, name: str = "train", values: int = 6) -> Split:
    generator = torch.Generator().manual_seed(len(name))
    levels = torch.randint(256, (images, values), generator=generator) // (1 + torch.arange(values))
    return Split(name, levels.to(torch.uint8), None)


def counted(train: list[list[int]], test: list[list[int]]) -> float:
    """Bits per value, value by value and image by image."""
    counters = [Counter(column) for column in zip(*train, strict=True)]
    total = len(train) + 25.6
    bits = [-log2((counter[v] + 0.1) / total) for image in test for counter, v in zip(counters, image, strict=True)]
    return sum(bits) / len(bits)


def test_a_histogram_for_each_value_is_the_counted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = split(40), split(15, "test")
    want = counted(train.levels.tolist(), test.levels.tolist())
    assert histogram.value_bits(train, test) == pytest.approx(want, rel=1e-12)
    monkeypatch.setattr(histogram, "INDICES", 6 * 7)  # seven images at a time
    assert histogram.value_bits(train, test) == pytest.approx(want, rel=1e-12)
    monkeypatch.setattr(histogram, "VALUES", 4)  # four values of an image at a time, then what is left
    assert histogram.value_bits(train, test) == pytest.approx(want, rel=1e-12)


def test_one_histogram_of_all_values_is_the_counted_one() -> None:
    train, test = split(40).levels, split(15, "test").levels
    want = counted([[v] for v in train.flatten().tolist()], [[v] for v in test.flatten().tolist()])
    assert histogram.level_bits(train, test) == pytest.approx(want, rel=1e-12)


def test_mnist_is_to_beat_at_what_the_page_on_scores_says() -> None:
    mnist = load_dataset("mnist")
    assert histogram.value_bits(mnist.fit_on("train+validation"), mnist.test) == pytest.approx(1.689, abs=6e-4)
    assert histogram.value_bits(mnist.train, mnist.test) == pytest.approx(1.689, abs=6e-4)
    assert bits_per_dim.BINS * 4 == bits_per_dim.LEVELS


def test_a_common_head_of_few_counts_is_told() -> None:
    few = {name: split(100, name, values=64) for name in ("train", "validation", "test")}
    words = list(histogram.notes(Data(name="few", image_shape=(1, 8, 8), digest="few", **few)))
    assert len(words) == 2
    assert "to beat without a latent" in words[0]
    assert "16,384 cells on 6,400 training values" in words[1]
    assert len(list(histogram.notes(load_dataset("digits")))) == 1
