"""The same model's step as others take it on the same card: the usual loop, its best forms, and JAX."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from time import perf_counter

import torch
from torch import Tensor

from harness import devices
from harness.bench import rungs
from harness.bench.gpu.record import Row, digits
from harness.bench.gpu.setting import Case, Setting
from harness.bench.machine import BATCH
from harness.bench.rungs import LOOP_VARIANTS, RATE, REFERENCE, ReferenceModel
from harness.spec import CHUNK

GOOD = "+ logits"  # the best form of the usual loop without compiling
JAX_LANES, TOY_JAX_LANES = (1, 64), (1, 2)
TOY_STEPS = 2


def cases(setting: Setting) -> Iterator[Case]:
    """Yield the peers. All train the reference model on MNIST, at toy size too."""
    for name in (REFERENCE, GOOD):
        yield name, partial(usual, setting, name)
    yield "reduce-overhead", partial(loop, setting, "good loop, torch.compile(mode='reduce-overhead')", compiled)
    yield "captured by hand", partial(loop, setting, "good loop's step as a CUDA graph by hand", captured)
    for lanes in TOY_JAX_LANES if setting.toy else JAX_LANES:
        yield f"JAX, {lanes}", partial(jax, setting, lanes)


def usual(setting: Setting, name: str) -> list[Row]:
    """Return the time of a step of a form of the usual loop."""
    rungs.mnist()  # the reference loop reads the files that this fetches
    rung = rungs.usual_loop(name, setting.device)
    seconds = setting.seconds(rung.call) / rung.steps
    return [_row(name if name == REFERENCE else f"good loop: resident data, fused Adam, logits ({name})", seconds)]


def loop(setting: Setting, name: str, build: Callable[[torch.device], Callable[[Tensor], None]]) -> list[Row]:
    """Return the time of a step that `build` makes for a device: a function of the indices of a batch's images, (B,)."""
    started = perf_counter()
    step, images = build(setting.device), len(rungs.mnist().train)
    order = torch.randperm(images, device=setting.device)
    batches = cycle(order[: images // BATCH * BATCH].split(BATCH))

    def run() -> None:
        for _ in range(TOY_STEPS if setting.toy else CHUNK):
            step(next(batches))

    for _ in range(3):  # torch.compile records its graphs in the first steps
        step(next(batches))
    devices.wait(setting.device)
    ready_s = perf_counter() - started
    return [_row(name, setting.seconds(run) / (TOY_STEPS if setting.toy else CHUNK), f"ready in {ready_s:.1f} s")]


def compiled(device: torch.device) -> Callable[[Tensor], None]:
    """Return the good loop's step with forward and backward passes through torch.compile, as CUDA graphs where there is a GPU."""
    variant, model = LOOP_VARIANTS[GOOD], ReferenceModel(logits=True).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    images = _images(device)
    loss = torch.compile(partial(variant.loss, model), mode="reduce-overhead")  # a graph copies its input: a batch, not all images

    def step(index: Tensor) -> None:
        torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad()
        loss(images[index]).backward()
        optimizer.step()

    return step


def captured(device: torch.device) -> Callable[[Tensor], None]:
    """Return the good loop's step captured once and launched again; on a CPU, where nothing is captured, the step itself."""
    variant, model = LOOP_VARIANTS[GOOD], ReferenceModel(logits=True).to(device)
    can_capture = devices.can_capture(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True, capturable=can_capture)
    images, own_index = _images(device), torch.zeros(BATCH, dtype=torch.long, device=device)

    def train() -> None:
        optimizer.zero_grad()
        variant.loss(model, images.index_select(0, own_index)).backward()
        optimizer.step()

    replay = devices.capture(train, 1, device, devices.memory_pool()) if can_capture else train

    def step(index: Tensor) -> None:
        own_index.copy_(index)
        replay()

    return step


def jax(setting: Setting, lanes: int) -> list[Row]:
    """Return the time of a step of one model when so many train side by side in JAX, in strict fp32."""
    steps = TOY_STEPS if setting.toy else CHUNK
    with rungs.jax_peer(setting.device, devices.cores(), lanes, steps) as peer:

        def walls(least_s: float) -> list[float]:
            """Return the child's own seconds of each chunk, of at least `least_s` and one chunk."""
            spent = [peer.call()[0]]
            while sum(spent) < least_s:
                spent.append(peer.call()[0])
            return spent

        walls(setting.warm_s)
        seconds = statistics.median(walls(setting.work_s)) / steps
    name = f"JAX: jit, scan{f', vmap over {lanes} models' if lanes > 1 else ''}"
    return [_row(name, seconds / lanes, f"compiled in {peer.started['compile_s']:.1f} s")]


def _images(device: torch.device) -> Tensor:
    """Return the images to train on, (N, P), on [0, 1]."""
    return rungs.mnist().train.levels.to(device).float() / 255


def _row(name: str, seconds: float, more: str = "") -> Row:
    """Return the row of a step's time."""
    return Row(name, f"{digits(1e6 * seconds)} us per trial-step{f'; {more}' if more else ''}")
