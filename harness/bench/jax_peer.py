"""The same model and steps in JAX: one jitted scan per chunk, of one model or of several side by side."""

import json
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from harness.bench.peers import Peer
from harness.errors import MachineError

PACKAGES = ("jax", "optax")
HEADER = 16  # bytes in front of the images in their file


def peer(device: str, threads: int, **job: Any) -> Peer:
    """Return the process that trains with JAX.

    Args:
        device: torch's name of the kind of device.
        threads: of a CPU.
        job: file, images, layers, batch, steps (of a chunk), rate and lanes.

    Raises:
        MachineError: jax or optax is not installed, sees no GPU although one is asked for, or the child ended.
    """
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if device == "cpu":
        # The flag alone leaves XLA's own pool as large as the machine (measured: 1.8 cores busy); PJRT_NPROC sets its size.
        flag = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen={str(threads > 1).lower()}"
        if limit := os.environ.get("ATEN_CPU_CAPABILITY"):  # a class of instructions that torch is held to holds for all
            flag += f" --xla_cpu_max_isa={limit.upper()}"
        environment |= {"JAX_PLATFORMS": "cpu", "PJRT_NPROC": str(threads), "XLA_FLAGS": flag.strip()}
    child = Peer("jax", "jax_peer", PACKAGES, environment, job)
    if device != "cpu" and child.started["backend"] == "cpu":
        child.end()
        raise MachineError("jax sees no GPU here")
    return child


def _chunk(job: dict[str, Any]) -> Any:
    """Return the jitted function that trains a chunk, and the function that makes its first state.

    The first takes (weights, optimizer state, key, images, index (T, B)), trains T steps and returns the first three and the loss
    of each step. The second takes a key and returns (weights, optimizer state, key). With several lanes S all but the images have a
    first axis of S, of the index the second: (T, S, B).
    """
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adam(job["rate"])
    middle, last = len(job["layers"]) // 2, len(job["layers"]) - 1

    def loss(weights: Any, x: Any, key: Any) -> Any:
        h = x
        for i, (w, b) in enumerate(weights):
            h = h @ w + b
            if i == middle - 1:
                mean, log_var = jnp.split(h, 2, axis=-1)
                h = mean + jnp.exp(log_var / 2) * jax.random.normal(key, mean.shape)
            elif i not in (middle, last):
                h = jax.nn.elu(h)
        kl = -0.5 * jnp.sum(1 + log_var - mean**2 - jnp.exp(log_var))
        return optax.sigmoid_binary_cross_entropy(h, x).sum() + kl

    def step(images: Any, carry: Any, index: Any) -> Any:
        weights, state, key = carry
        key, noise_key = jax.random.split(key)
        value, gradient = jax.value_and_grad(loss)(weights, images[index], noise_key)
        change, state = optimizer.update(gradient, state, weights)
        return (optax.apply_updates(weights, change), state, key), value

    one = job["lanes"] == 1
    lanes_step = step if one else jax.vmap(step, in_axes=(None, 0, 0))

    def chunk(weights: Any, state: Any, key: Any, images: Any, index: Any) -> Any:
        return jax.lax.scan(partial(lanes_step, images), (weights, state, key), index)

    def start(key: Any) -> Any:
        weights = []
        for inputs, outputs in job["layers"]:
            key, a, b = jax.random.split(key, 3)
            uniform = partial(jax.random.uniform, minval=-(inputs**-0.5), maxval=inputs**-0.5)
            weights.append((uniform(a, (inputs, outputs)), uniform(b, (outputs,))))
        return weights, optimizer.init(weights), key

    return jax.jit(chunk, donate_argnums=(0, 1, 2)), start if one else jax.vmap(start)


def main() -> None:
    """Run the child: read a job, then train a chunk per line until the parent ends the process."""
    job = json.loads(sys.stdin.readline())
    import jax
    import jax.numpy as jnp
    import numpy as np

    jax.config.update("jax_default_matmul_precision", "float32")  # like torch's default; JAX's own is TF32 on a GPU
    pixels = np.fromfile(job["file"], np.uint8, offset=HEADER).reshape(-1, job["layers"][0][0])[: job["images"]]
    images = jnp.asarray(pixels, jnp.float32) / 255
    steps, batch, lanes, random = job["steps"], job["batch"], job["lanes"], np.random.default_rng(0)

    def orders() -> Iterator[Any]:
        """Yield the index of each chunk; every model has an order of its own, drawn once per epoch."""
        whole = len(pixels) // (steps * batch) * steps * batch
        while True:
            epoch = [random.permutation(len(pixels))[:whole].reshape(-1, steps, batch) for _ in range(lanes)]
            yield from map(jnp.asarray, epoch[0] if lanes == 1 else np.stack(epoch, 2))

    order = orders()
    chunk, start = _chunk(job)
    key = jax.random.key(0)
    carry = start(key if lanes == 1 else jax.random.split(key, lanes))
    started = time.perf_counter()
    compiled = chunk.lower(*carry, images, next(order)).compile()
    compile_s = time.perf_counter() - started
    print(json.dumps({"compile_s": compile_s, "backend": jax.default_backend()}), flush=True)
    while sys.stdin.readline():
        wall, cpu = time.perf_counter(), time.process_time()
        carry, losses = compiled(*carry, images, next(order))
        loss = float(losses[-1].mean()) / batch
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "loss": loss}
        print(json.dumps(spent), flush=True)


if __name__ == "__main__":
    main()
