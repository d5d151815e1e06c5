"""The plain torch peer: a hand-written loop, jets in memory, fused Adam, one thread; replicas one after another."""

from __future__ import annotations

import time

import torch
from torch.nn import functional

from bench.peers import task
from bench.peers.task import RATE, Task


class Loop(task.Loop):
    """See ``task.Loop``."""

    def __init__(self, work: Task) -> None:
        torch.set_num_threads(1)
        super().__init__(work)

    def train(self, steps: int) -> float:
        """Train each replica for ``steps`` steps; return the seconds."""
        self.modules = self.task.modules()
        x, y = self.task.jets
        orders = self.task.orders(steps)
        begin = time.perf_counter()
        for module, order in zip(self.modules, orders, strict=True):
            trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
            optimizer = torch.optim.Adam(trained, RATE, fused=True)
            for rows in order:
                loss = functional.cross_entropy(module(x.index_select(0, rows)), y.index_select(0, rows))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return time.perf_counter() - begin
