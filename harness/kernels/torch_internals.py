"""The only module of training that uses private names of torch: its compiler's back end and its fused Adam.

They were tried with torch 2.13 (docs/log.md). The counts of a step (bench/counts.py) use others.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import GraphModule

from harness.kernels.matmul import AdamSettings


def compile_graph(graph: GraphModule, tensors: Sequence[Tensor]) -> Callable[..., Any]:
    """Return the graph as compiled code for these tensors or others of their shapes and strides.

    On a CPU torch keeps the compiled code on disk. There the graph is passed to torch.compile's back end directly, with the calls
    between its pieces in C++ and without checks of shapes, which are fixed by construction: otherwise Python takes 0.13 ms of a
    step of 4 ms, and the checks 0.5 ms. On a GPU the step runs as a captured graph, which has none of these costs.

    Args:
        graph: Operations on tensors, without branches on their values.
        tensors: Examples of the graph's inputs, in order.
    """
    if tensors[0].device.type != "cpu":
        return torch.compile(graph, fullgraph=True, dynamic=False)
    from torch import _inductor as inductor  # imported here because it takes a second
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    options = {"cpp_wrapper": True, "size_asserts": False, "alignment_asserts": False}
    with tracing(TracingContext(FakeTensorMode(shape_env=ShapeEnv()))):  # without it the compiled code is not kept on disk
        return cast(Callable[..., Any], inductor.compile(graph, list(tensors), options=options))


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
    """Take a step of Adam or AdamW by the kernel behind torch.optim.Adam(fused=True), in place.

    In a direct call all parameters share one step counter: torch.optim counts once per parameter, which takes 0.4 ms of a step of 9
    ms.

    Args:
        params: Parameters.
        grads: Their gradients, in the same order.
        mean: Their first moments.
        square: Their second moments.
        step: The number of this step, counted from 1, a scalar tensor.
        settings: The constants of the update.
        learning_rate: One for all parameters.
        weight_decay: One for all parameters.
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
