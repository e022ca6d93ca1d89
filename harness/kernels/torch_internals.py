"""The only module of training that uses private names of torch: its compiler's back end, and Adam fused or over lists.

They were tried with torch 2.13 (docs/log.md). The counts of a step (bench/counts.py) use others.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import GraphModule

from harness.kernels.matmul import AdamSettings

VECTOR_BITS = {"AVX512": 512, "AVX2": 256}  # by the instructions that torch uses; torch chooses for others


def compile_graph(graph: GraphModule, tensors: Sequence[Tensor]) -> Callable[..., Any]:
    """Return the graph as compiled code for these tensors or others of their shapes and strides.

    Torch keeps the compiled code on disk, under a name that does not tell vectors of one width from those of another, and code
    for one that is compiled for the other leaves numbers out. They are told apart by saying the width.

    The graph is passed to torch.compile's back end directly, without checks of shapes, which are fixed by construction, and without
    a front end that would compile it anew for parameters in the place of plain tensors. On a CPU the calls between its pieces are
    in C++ too: otherwise Python takes 0.13 ms of a step of 4 ms, and the checks 0.5 ms. On a GPU the step is captured, which leaves
    Python out.

    Args:
        graph: Operations on tensors, without branches on their values.
        tensors: Examples of the graph's inputs, in order.
    """
    from torch import _inductor as inductor  # imported here because it takes a second
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    on_cpu = tensors[0].device.type == "cpu"
    bits = VECTOR_BITS.get(torch.backends.cpu.get_cpu_capability())
    options = {"cpp_wrapper": on_cpu, "cpp.simdlen": bits, "size_asserts": False, "alignment_asserts": False}
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


def adam_of_many(
    params: list[Tensor],
    grads: list[Tensor],
    mean: list[Tensor],
    square: list[Tensor],
    *,
    settings: AdamSettings,
    learning_rate: Tensor,
    weight_decay: Tensor,
    rate: Tensor,
    spread: Tensor,
) -> None:
    """Take a step of Adam or AdamW of many parameters in place, by operations on lists.

    A GPU's compiler makes one kernel of all of it: 55 kernels of a step of one lane became 48 (docs/log.md). Lanes have factors of
    their own, as tensors that broadcast to every parameter, (S, 1, 1).

    Args:
        params: Parameters, (S, ...).
        grads: Their gradients, in the same order.
        mean: Their first moments.
        square: Their second moments.
        settings: The constants of the update.
        learning_rate: Of every lane.
        weight_decay: Of every lane.
        rate: The learning rate that corrects the bias of the first moment.
        spread: The factor that corrects the root of the second moment.
    """

    def each(factor: Tensor) -> list[Tensor]:
        """Return the factor once per parameter."""
        return [factor] * len(params)

    if settings.decoupled:
        torch._foreach_mul_(params, each(1 - learning_rate * weight_decay))
    else:
        grads = list(torch._foreach_add(grads, torch._foreach_mul(params, each(weight_decay))))
    torch._foreach_lerp_(mean, grads, 1 - settings.beta1)
    torch._foreach_mul_(square, settings.beta2)
    torch._foreach_addcmul_(square, grads, grads, value=1 - settings.beta2)
    roots = torch._foreach_mul(torch._foreach_sqrt(square), each(spread))
    steps = torch._foreach_div(torch._foreach_mul(mean, each(rate)), torch._foreach_add(roots, settings.eps))
    torch._foreach_sub_(params, steps)
