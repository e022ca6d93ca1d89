"""The only module that imports torchvision."""

from functools import cache
from types import ModuleType
from typing import cast

import torch


@cache
def torchvision() -> ModuleType:
    """Import torchvision on the first call and return it.

    PyPI's torchvision is built for CUDA. Beside a CPU build of torch its compiled part does not load, and its Python part then
    fails at import with `operator torchvision::nms does not exist`, because it registers shape rules for two operators that only
    the compiled part defines. It suffices to define their signatures before the import; the harness never calls these operators.
    """
    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)  # its definitions last as long as the library
    import torchvision.datasets
    import torchvision.transforms

    return cast(ModuleType, torchvision)


_LIBRARIES: list[torch.library.Library] = []
