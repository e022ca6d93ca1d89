"""The only module that imports torchvision."""

from functools import cache
from types import ModuleType
from typing import cast

import torch

from harness import provenance
from harness.errors import MachineError


@cache
def torchvision() -> ModuleType:
    """Import torchvision on the first call and return it.

    PyPI's torchvision is built for CUDA. Beside a CPU build of torch its compiled part does not load, and its Python part then
    fails at import with `operator torchvision::nms does not exist`, because it registers shape rules for two operators that only
    the compiled part defines. It suffices to define their signatures before the import; the harness never calls these operators.

    Raises:
        MachineError: The two are not of builds that fit together.
    """
    if torch.version.cuda is None:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)  # its definitions last as long as the library
    try:
        import torchvision.datasets
        import torchvision.transforms
    except (ImportError, RuntimeError, OSError) as fault:  # of their compiled parts, each in its own way
        versions = " and ".join(f"{name} {provenance.version(name)}" for name in ("torch", "torchvision"))
        raise MachineError(
            f"{versions} do not fit together: {str(fault).splitlines()[0]}\n"
            "install both from one place, at the versions of locks/torch.txt or as https://pytorch.org says"
        ) from fault

    return cast(ModuleType, torchvision)


_LIBRARIES: list[torch.library.Library] = []
