"""Time of getting at the data: a data set from its files, and a batch from the data set."""

import torch

from harness import data
from harness.spec import TrialSpec


def test_load(benchmark):
    """Read and verify all four files."""
    benchmark.group = "data set"
    benchmark.pedantic(data.load_dataset, args=("mnist",), rounds=5, warmup_rounds=1)


def test_gather(benchmark, mnist, where):
    """A batch of random images, from uint8 to float."""
    benchmark.group = "batch"
    levels = mnist.train.levels.to(where)
    batches = torch.randperm(len(levels))[: 100 * TrialSpec().batch_size].to(where).view(100, -1)
    benchmark.extra_info.update(units=len(batches), unit="batch")
    benchmark.pedantic(lambda: [levels.index_select(0, batch).float() for batch in batches], rounds=10, warmup_rounds=1)
