"""The JAX peer at its best: an epoch in one jitted scan, replicas under vmap, the gather inside, state donated.

XLA sees one host device per core (``--xla_force_host_platform_device_count``). Replicas are spread over all devices, or
kept on one with XLA's own threads, whichever is faster for the task.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.peers import task
from bench.peers.task import RATE, AbsentError, Task

_TRIALS = 3
_UNROLLED = 4


class Loop(task.Loop):
    """See ``task.Loop``. Raises AbsentError without JAX."""

    tried_steps = 500

    def __init__(self, work: Task) -> None:
        if importlib.util.find_spec("jax") is None:
            raise AbsentError("JAX is not installed; pip install -r bench/requirements.txt")
        import jax

        super().__init__(work)
        devices = len(jax.devices())
        counts = [count for count in (1, devices) if work.replicas % count == 0]
        self.placements = {count: _Placement(work, count) for count in dict.fromkeys(counts)}
        self.count = counts[0]
        if len(self.placements) > 1:
            steps = min(self.tried_steps, work.steps_per_epoch)
            for count in counts:
                self._run(count, steps)
            self.is_warm = True
            self.count = min(counts, key=lambda count: min(self._run(count, steps) for _ in range(_TRIALS)))

    def train(self, steps: int) -> float:
        """Train the replicas side by side for ``steps`` steps; return the seconds without compiling."""
        placement = self.placements[self.count]
        if steps not in placement.compiled:
            self._run(self.count, steps)
        return self._run(self.count, steps)

    def _run(self, count: int, steps: int) -> float:
        import jax

        placement = self.placements[count]
        self.modules = self.task.modules()
        state = placement.place(_state(self.modules))
        placement.prepare(steps, state)
        order = placement.place(self.task.orders(steps).numpy().astype(np.int32))
        jax.block_until_ready((state, order))
        begin = time.perf_counter()
        state, figures = placement.compiled[steps](state, order, placement.x, placement.y)
        jax.block_until_ready((state, figures))
        seconds = time.perf_counter() - begin
        _restore(self.modules, state)
        return seconds


class _Placement:
    """The program of an epoch with replicas spread over ``count`` devices, compiled once per number of steps."""

    def __init__(self, work: Task, count: int) -> None:
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        self.batch_size = work.batch_size
        mesh = Mesh(np.array(jax.devices()[:count]), ("replica",))
        self.spread, self.same = NamedSharding(mesh, PartitionSpec("replica")), NamedSharding(mesh, PartitionSpec())
        x, y = work.jets
        self.x = jax.device_put(x.numpy(), self.same)
        self.y = jax.device_put(y.numpy().astype(np.int32), self.same)
        epoch = jax.vmap(partial(_epoch, _layers(work.modules()[0])), in_axes=(0, 0, None, None))
        self.program = jax.jit(epoch, donate_argnums=(0,))
        self.compiled: dict[int, Callable[..., Any]] = {}

    def place(self, tree: Any) -> Any:
        """Put the replicas, the first axis of every array, on their devices."""
        import jax

        return jax.device_put(tree, self.spread)

    def prepare(self, steps: int, state: Any) -> None:
        """Compile for this number of steps, if not done yet."""
        import jax

        if steps not in self.compiled:
            replicas = len(state["t"])
            batch = jax.ShapeDtypeStruct((replicas, steps, self.batch_size), np.int32, sharding=self.spread)
            self.compiled[steps] = self.program.lower(state, batch, self.x, self.y).compile()


def _layers(module: nn.Sequential) -> list[str]:
    kinds = {"Linear": "linear", "BatchNorm": "norm", "ReLU": "relu"}
    return [kinds[type(layer).__name__] for layer in module]


def _forward(layers: list[str], trained: Any, fixed: Any, running: Any, x: Any) -> tuple[Any, Any]:
    """Return logits ``(batch, 5)`` and the new running statistics; parameters are lists by layer."""
    import jax.numpy as jnp

    after: list[Any] = []
    for kind, p, f, stats in zip(layers, trained, fixed, running, strict=True):
        new = stats
        if kind == "linear":
            x = x @ p["weight"].T + (p["bias"] if "bias" in p else f["bias"])
        elif kind == "norm":
            rows = x.shape[0]
            mean, var = x.mean(0), x.var(0)
            new = {
                "running_mean": 0.9 * stats["running_mean"] + 0.1 * mean,
                "running_var": 0.9 * stats["running_var"] + 0.1 * var * (rows / (rows - 1)),
            }
            x = (x - mean) / jnp.sqrt(var + 1e-5) * p["weight"] + p["bias"]
        else:
            x = jnp.maximum(x, 0)
        after.append(new)
    return x, after


def _epoch(layers: list[str], state: Any, order: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Take the steps of one replica: ``order (steps, batch) int32``; return its state, losses and hits."""
    import jax
    import jax.numpy as jnp

    def loss_of(trained: Any, running: Any, rows: Any) -> Any:
        logits, after = _forward(layers, trained, state["fixed"], running, x[rows])
        labels = y[rows]
        chosen = jax.nn.log_softmax(logits)
        loss = -(chosen * (labels[:, None] == jnp.arange(5))).sum(1).mean()
        return loss, (after, (logits.argmax(1) == labels).mean())

    def step(carry: Any, rows: Any) -> tuple[Any, Any]:
        trained, running, m, v, t = carry
        (loss, (running, hits)), grad = jax.value_and_grad(loss_of, has_aux=True)(trained, running, rows)
        t = t + 1
        m = jax.tree.map(lambda a, g: 0.9 * a + 0.1 * g, m, grad)
        v = jax.tree.map(lambda a, g: 0.999 * a + 0.001 * g * g, v, grad)
        scale, root = RATE / (1 - 0.9**t), 1 / jnp.sqrt(-jnp.expm1(t * np.float32(np.log(0.999))))
        trained = jax.tree.map(lambda p, a, b: p - scale * a / (jnp.sqrt(b) * root + 1e-8), trained, m, v)
        return (trained, running, m, v, t), (loss, hits)

    carry = (state["trained"], state["running"], state["m"], state["v"], state["t"])
    (trained, running, m, v, t), figures = jax.lax.scan(step, carry, order, unroll=_UNROLLED)
    return {"trained": trained, "fixed": state["fixed"], "running": running, "m": m, "v": v, "t": t}, figures


def _state(modules: list[nn.Sequential]) -> dict[str, Any]:
    def gather(wanted: Callable[[nn.Module], dict[str, Tensor]]) -> list[dict[str, np.ndarray]]:
        by_layer = zip(*modules, strict=True)
        return [
            {name: torch.stack([wanted(one)[name] for one in layer]).numpy() for name in wanted(layer[0])}
            for layer in by_layer
        ]

    def parameters(trained: bool) -> Callable[[nn.Module], dict[str, Tensor]]:
        return lambda one: {name: p.detach() for name, p in one.named_parameters() if p.requires_grad == trained}

    trained = gather(parameters(True))
    return {
        "trained": trained,
        "fixed": gather(parameters(False)),
        "running": gather(lambda one: {name: b for name, b in one.named_buffers() if b.is_floating_point()}),
        "m": [{name: np.zeros_like(a) for name, a in layer.items()} for layer in trained],
        "v": [{name: np.zeros_like(a) for name, a in layer.items()} for layer in trained],
        "t": np.zeros(len(modules), np.float32),
    }


def _restore(modules: list[nn.Sequential], state: dict[str, Any]) -> None:
    for part in ("trained", "running"):
        for index, layer in enumerate(state[part]):
            for name, value in layer.items():
                for module, row in zip(modules, np.asarray(value), strict=True):
                    getattr(module[index], name).data.copy_(torch.from_numpy(row.copy()))
