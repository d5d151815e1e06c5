"""The C++ peer, compiled for one network and batch size; replicas one after another on one core."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import shutil
import subprocess
import tempfile
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.peers import task
from bench.peers.task import RATE, AbsentError, Task
from jsc_explore.training.models import biases_before_batch_norm

SOURCE = Path(__file__).parent / "yardstick.cpp"
FLAGS = ("-O3", "-march=native", "-ffast-math", "-mprefer-vector-width=512", "-std=c++17", "-fPIC", "-Wno-psabi")


class Loop(task.Loop):
    """See ``task.Loop``. Raises AbsentError without g++."""

    def __init__(self, work: Task) -> None:
        super().__init__(work)
        self.library = _compiled(_program(self.modules[0]), work.batch_size)
        x, y = work.jets
        self.x, self.y = _aligned(x.numpy()), y.numpy().astype(np.uint8)
        self.figures = np.zeros(2)

    def train(self, steps: int) -> float:
        """Train each replica for ``steps`` steps; return the seconds."""
        self.modules = self.task.modules()
        states = [_flat(module) for module in self.modules]
        orders = self.task.orders(steps)
        begin = time.perf_counter()
        for (parameters, running), order in zip(states, orders, strict=True):
            m, v = np.zeros_like(parameters), np.zeros_like(parameters)
            self.figures[:] = 0
            self.library.train(
                *map(_address, (self.x, self.y, order.numpy())), ctypes.c_int64(steps), ctypes.c_int64(0),
                ctypes.c_float(RATE), *map(_address, (parameters, m, v, running, self.figures)),
            )  # fmt: skip
        seconds = time.perf_counter() - begin
        for module, (parameters, running) in zip(self.modules, states, strict=True):
            _restore(module, parameters, running)
        return seconds


def _program(module: nn.Sequential) -> str:
    """Write the network as C++ types; each ReLU belongs to the layer before it."""
    frozen, layers = biases_before_batch_norm(module), list(module.named_children())
    followed = {name for (name, _), (_, after) in itertools.pairwise(layers) if isinstance(after, nn.ReLU)}
    parts = []
    for name, layer in layers:
        if isinstance(layer, nn.Linear):
            bias, relu = f"{name}.bias" not in frozen, name in followed
            parts.append(f"Linear<{layer.in_features},{layer.out_features},{_word(bias)},{_word(relu)}>")
        elif isinstance(layer, nn.BatchNorm1d) and name in followed:
            parts.append(f"Norm<{layer.num_features}>")
        elif not isinstance(layer, nn.ReLU):
            raise ValueError(f"layer {name} = {layer}: the C++ peer supports only Linear and batch norm with ReLU")
    return ",".join(parts)


def _word(value: bool) -> str:
    return "true" if value else "false"


@lru_cache
def _compiled(program: str, batch_size: int) -> ctypes.CDLL:
    if shutil.which("g++") is None:
        raise AbsentError("g++ is not installed; apt-get install g++")
    name = hashlib.sha256(f"{program} {batch_size}".encode()).hexdigest()[:12]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"yardstick-{name}.so"
        part = path.with_suffix(".o")
        compile_ = ["g++", *FLAGS, f"-DBATCH={batch_size}", f"-DNET={program}", "-c", str(SOURCE), "-o", str(part)]
        subprocess.run(compile_, check=True)
        # Linked without -ffast-math, which would switch subnormal numbers off in the whole process that loads it.
        subprocess.run(["g++", "-shared", str(part), "-o", str(path)], check=True)
        return ctypes.CDLL(str(path))


def _aligned(array: np.ndarray) -> np.ndarray:
    """Copy to an address divisible by 64, so that a jet is one cache line."""
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


def _address(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _flat(module: nn.Sequential) -> tuple[np.ndarray, np.ndarray]:
    parameters = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    running = torch.cat([buffer.flatten() for buffer in module.buffers() if buffer.is_floating_point()])
    return parameters.numpy(), running.numpy()


def _restore(module: nn.Sequential, parameters: np.ndarray, running: np.ndarray) -> None:
    for tensors, flat in (
        (list(module.parameters()), parameters),
        ([buffer for buffer in module.buffers() if buffer.is_floating_point()], running),
    ):
        pieces = torch.split(torch.from_numpy(flat), [tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.data.copy_(piece.view(tensor.shape))
