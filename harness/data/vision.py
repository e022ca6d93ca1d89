"""The one door to torchvision."""

from functools import cache
from types import ModuleType

import torch


@cache
def torchvision() -> ModuleType:
    """Return torchvision, imported.

    PyPI's torchvision is built for CUDA. Beside a CPU build of torch its compiled part does not load, and its Python part then
    fails at import with `operator torchvision::nms does not exist`, because it registers shape rules for two operators that only
    the compiled part defines. Defining their signatures first is all it needs; nothing here ever calls them. So it is imported on
    first use, and what is defined for it is kept with it.
    """
    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # its definitions end with it
    import torchvision.datasets
    import torchvision.transforms

    return torchvision


_KEPT: list[torch.library.Library] = []
