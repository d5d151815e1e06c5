"""The benchmark of the GPU's kernel measures what it says, in Numba's simulator where there is no GPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench import gpu
from jsc_explore.config import RunConfig
from jsc_explore.training import trainer as training
from jsc_explore.training.backends.cuda.backend import CudaBackend
from jsc_explore.training.backends.cuda.jit import SIMULATED

ROOT = Path(__file__).parents[2]
ON_GPU = torch.cuda.is_available() and importlib.util.find_spec("numba_cuda") is not None


def python(*arguments, simulate=False):
    """Run a fresh interpreter: whether Numba simulates is decided when it is first imported."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1" if simulate else "0"},
    )  # fmt: skip


@pytest.mark.skipif(ON_GPU, reason="is about machines without a GPU")
def test_without_a_gpu_the_bench_reports_so_and_ends_well(tmp_path):
    ended = python("-m", "bench", "gpu", "--json", tmp_path / "gpu.json")
    assert ended.returncode == 0, ended.stderr
    assert "Skipped: no GPU" in ended.stdout
    assert json.loads((tmp_path / "gpu.json").read_text())["figures"] == {}


def test_the_most_that_a_gpu_could_do_follows_from_the_network(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(multi_processor_count=100))
    # 16 inputs, 5 outputs, forward and both ways back, 5 loads for 4 warps of 32 multiply-adds.
    assert gpu._limit_s(RunConfig(), 3200, 1e9) == pytest.approx(3200 * 80 * 3 * 1.25 / 32 / 100 / 1e9)
    # The first layer of one without batch norm passes no gradient on.
    first = gpu._limit_s(RunConfig(model="16/linear-5"), 3200, 1e9)
    assert first == pytest.approx(3200 * 80 * 2 * 1.25 / 32 / 100 / 1e9)


def test_the_bench_measures_its_figures_in_the_simulator():
    case = f"{__file__}::test_small_sizes_are_measured"
    ended = python("-m", "pytest", "-p", "no:cacheprovider", case, simulate=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " skipped" not in ended.stdout, ended.stdout


@pytest.mark.skipif(not SIMULATED, reason="runs in Numba's simulator, in a process of its own")
def test_small_sizes_are_measured(monkeypatch):
    def few(runs, data):
        return CudaBackend(list(runs), data, threads=4)

    monkeypatch.setattr(gpu, "create_cuda_backend", few)
    monkeypatch.setattr(training, "create_backend", few)
    size = gpu.Size(40, (("jsc-tiny", 8),), (1, 2), (2, 1, 1), budget_s=0.01, n=1)
    report = gpu.measure_gpu(size, torch.device("cpu"), None)
    assert set(report.figures) == {
        "tiny_b8_loss_difference", "tiny_b8_r1_epoch_ms", "tiny_b8_r1_speedup_vs_stack", "tiny_b8_r2_epoch_ms",
        "tiny_b8_r2_speedup_vs_stack", "grid_2x1x1_s",
    }  # fmt: skip
    assert 0 <= report.figures.pop("tiny_b8_loss_difference") < 1e-5
    assert [(row["backend"], row["replicas"]) for row in report.rows] == [
        ("kernel", 1), ("stack", 1), ("kernel", 2), ("stack", 2),
    ]  # fmt: skip
    assert min(report.figures.values()) > 0
