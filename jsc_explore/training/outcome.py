"""The parts of an outcome other than the curve: test metrics, device, memory and versions."""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import sys
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from jsc_explore import __version__
from jsc_explore.data.jets import CLASSES
from jsc_explore.training.metrics import Metrics, roc_summary, silent_classes, zero_output_share


def metric_fields(
    last: Metrics, best: Metrics, row: int, last_logits: Tensor, best_logits: Tensor, labels: Tensor, final_relu: bool
) -> dict[str, Any]:
    """Return the test fields of an Outcome for one row, from the metrics and logits of its last and best weights."""
    # Transposed and contiguous, so that the scores of a class can be sorted in place in memory.
    scores, truth = best_logits.float().softmax(1).T.contiguous().cpu().numpy(), labels.cpu().numpy()
    roc = [roc_summary(scores[c], truth == c) for c in range(len(CLASSES))]
    return {
        "test_loss": float(last.loss[row]),
        "test_acc": float(last.accuracy[row]),
        "best_test_loss": float(best.loss[row]),
        "best_test_acc": float(best.accuracy[row]),
        "auc": [one.area for one in roc],
        "rejection": [one.rejection for one in roc],
        "roc": [efficiency for one in roc for efficiency in one.background],
        "confusion": best.confusion[row].flatten().tolist(),
        "silent_classes": silent_classes(last_logits, labels) if final_relu else [],
        "zero_output_share": zero_output_share(last_logits),
    }


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory of the GPU, or of this process, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the CPU's name and number of cores: times of runs with another one differ."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({_processor()}, {os.cpu_count()} cores)"


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return {
        "jsc_explore": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a subclass of str that msgpack refuses
        "lightning": version("lightning"),
        "numpy": np.__version__,
        "numba": numba.__version__,
    } | ({"numba-cuda": version("numba-cuda")} if importlib.util.find_spec("numba_cuda") else {})
