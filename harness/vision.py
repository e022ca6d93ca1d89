"""The one door to torchvision.

PyPI's torchvision is built for CUDA. Beside a CPU build of torch its compiled part does not load, and its Python part then
fails at import with `operator torchvision::nms does not exist`, because it registers shape rules for two operators that only
the compiled part defines. Defining their signatures first is all it needs; nothing here ever calls them.
"""

import torch

if torch.version.cuda is None:
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision import datasets, transforms

__all__ = ["datasets", "transforms"]
