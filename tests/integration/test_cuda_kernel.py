"""The CUDA kernel without a GPU: in Numba's simulator, through Numba's compiler, and the selection of its backend."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jsc_explore import network as layers
from jsc_explore.config import RunConfig
from jsc_explore.training import trainer as training
from jsc_explore.training.backends.base import DeviceSplit
from jsc_explore.training.backends.cpu.layer_table import build_layer_table
from jsc_explore.training.backends.cuda import memory_layout as memory
from jsc_explore.training.backends.cuda.memory_layout import SHARED_BYTES, make_layout

HERE = Path(__file__).parent
ON_GPU = torch.cuda.is_available() and training.importlib.util.find_spec("numba_cuda") is not None


def python(*arguments, **environment):
    """Run a new interpreter: Numba decides on import whether it simulates."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=HERE.parents[1],
        env={**os.environ, **environment},
    )  # fmt: skip


def test_the_cuda_cases_pass():
    # The threads of the simulator switch hundreds of thousands of times; Python's default switch interval is 5 ms.
    code = "import sys, pytest; sys.setswitchinterval(1e-5); sys.exit(pytest.main(sys.argv[1:]))"
    options = "-p", "no:cacheprovider", "--durations=5"
    ended = python("-c", code, HERE / "cuda_cases.py", *options, NUMBA_ENABLE_CUDASIM="0" if ON_GPU else "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " passed" in ended.stdout
    assert " skipped" not in ended.stdout or ON_GPU


# The compiler of Numba needs neither driver nor device once the compute capability is given.
COMPILE = """
import types
import numba.cuda.compiler as compiler, numba.cuda.dispatcher as dispatcher
from numba import void
from jsc_explore.training.backends.cuda import kernel
dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=(9, 0))
source, signature = getattr(kernel, "{0}_source"), kernel.{1}_TYPES
result = compiler.compile_cuda(source((True,) * 10), void, signature.args, cc=(9, 0))
print(result.library.get_llvm_str().count("double"))
"""


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_numba_compiles_the_kernels_for_gpus(name):
    ended = python("-c", COMPILE.format(name, name.upper()), NUMBA_ENABLE_CUDASIM="0")
    assert ended.returncode == 0, ended.stderr[-3000:]
    # Consumer GPUs compute float64 at 1/32 of their float32 speed or less; only the sum of losses may use it.
    doubles = int(ended.stdout)
    assert doubles == 0 if name == "train" else 0 < doubles < 100


@pytest.mark.parametrize("model", [name for name in layers.NAMED if name != "jsc-conv"])
@pytest.mark.parametrize("batch", [16, 256, 4096])
@pytest.mark.parametrize("trains", [True, False])
def test_sections_do_not_overlap_and_fill_shared_memory_first(model, batch, trains):
    network = build_layer_table(layers.parse(model))
    layout = make_layout(network, batch, 256, trains=trains)
    for shared, end in ((True, layout.shared_size), (False, layout.global_size)):
        used = np.zeros(end, int)
        for section in range(memory.SECTIONS):
            if layout.shared[section] == shared:
                used[slice(*layout.bounds[section])] += 1
        assert (used == 1).all()
    assert 4 * layout.shared_size <= SHARED_BYTES
    assert layout.stride % 2 == 1
    assert layout.stride >= batch
    sizes = np.diff(layout.bounds)[:, 0]
    assert sizes[memory.ACTIVATIONS] == network.activation_rows * layout.stride
    assert sizes[memory.GRADIENT] == (network.weights if trains else 0)
    # A section is in global memory only if it does not fit in the rest of shared memory.
    left = SHARED_BYTES // 4 - layout.shared_size
    assert all(size > left for size, shared in zip(sizes, layout.shared, strict=True) if not shared)


def test_the_smallest_network_fits_in_shared_memory():
    layout = make_layout(build_layer_table(layers.parse("jsc-tiny")), 64, 128, trains=True)
    assert all(layout.shared)
    assert layout.global_size == 0


@pytest.mark.skipif(ON_GPU, reason="is about machines without a GPU")
def test_the_reason_why_there_is_no_cuda_backend_is_returned(monkeypatch, jets_split, caplog):
    run, data = RunConfig(), DeviceSplit.of(jets_split, torch.device("cpu"))
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    assert training.create_cuda_backend([run], data) == "numba-cuda is not installed"
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: object())
    assert training.create_cuda_backend([run], data) == "CudaSupportError of numba-cuda"
    assert "the kernel for GPUs: " in caplog.text
