"""The one door to private names of torch: its compiler's back end, and its fused Adam. Tried with torch 2.13 (docs/log.md)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from harness.kernels.matmul import AdamSettings


def compile_graph(graph: GraphModule, tensors: Sequence[Tensor]) -> Callable[..., Any]:
    """Return a graph of operations on these tensors, or others of their shapes and strides, as compiled code kept on disk by torch.

    On a CPU the graph goes to torch.compile's back end as it is, with the calls between its pieces in C++ and without checks of
    shapes, which are fixed by construction: else Python takes 0.13 ms of a step of 4, and checks 0.5. On a GPU a captured graph
    leaves all that out.
    """
    if tensors[0].device.type != "cpu":
        return torch.compile(graph, fullgraph=True, dynamic=False)
    from torch import _inductor as inductor  # here, for it takes a second to import
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    fixed = {"cpp_wrapper": True, "size_asserts": False, "alignment_asserts": False}
    with tracing(TracingContext(FakeTensorMode(shape_env=ShapeEnv()))):  # without one the compiled code is not kept on disk
        return inductor.compile(graph, list(tensors), options=fixed)


def fused_adam(
    params: list[Tensor],
    grads: list[Tensor],
    mean: list[Tensor],
    square: list[Tensor],
    *,
    step: Tensor,
    settings: AdamSettings,
    learning_rate: float,
    weight_decay: float,
) -> None:
    """Take a step by the kernel behind torch.optim.Adam(fused=True), in place.

    Called directly, all parameters share one step counter: torch.optim counts once per parameter, 0.4 ms of a step of 9.
    """
    (torch._fused_adamw_ if settings.decoupled else torch._fused_adam_)(
        params,
        grads,
        mean,
        square,
        [],
        [step] * len(params),
        lr=learning_rate,
        beta1=settings.beta1,
        beta2=settings.beta2,
        weight_decay=weight_decay,
        eps=settings.eps,
        amsgrad=False,
        maximize=False,
    )
