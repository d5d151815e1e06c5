"""Packing for GPUs: stacks as large as memory allows, without importing torch."""

import os
import stat

import pytest
from runs import waiting

from jsc_explore.config import RunConfig
from jsc_explore.jobs.cluster.client import Cluster
from jsc_explore.jobs.cluster.connection import SchedulerConnection
from jsc_explore.jobs.engine.engine import Engine
from jsc_explore.jobs.engine.gpu_memory import gpu_bytes
from jsc_explore.jobs.local.pool import LocalPool
from jsc_explore.jobs.packing import pack
from jsc_explore.training.backends.select import max_gpu_replicas, why_not_gpu_kernel

GIB = 1 << 30


def grid(model="jsc-tiny", configs=300, seeds=10, batch_size=256):
    runs = [
        RunConfig(model=model, batch_size=batch_size, learning_rate=1e-5 * (config + 1), seed=seed, max_epochs=epochs)
        for config in range(configs)
        for seed in range(seeds)
        for epochs in (1 + config % 10,)
    ]
    return [waiting(run, number) for number, run in enumerate(runs)]


def test_a_grid_of_three_thousand_runs_is_a_few_stacks_of_hundreds():
    jobs = grid()
    plans = pack(jobs, 3, None, 80 * GIB)
    assert sorted(job.run_id for plan in plans for job in plan.jobs) == sorted(job.run_id for job in jobs)
    assert len(plans) == 6
    assert {len(plan.jobs) for plan in plans} == {500}
    # The runs of a seed share one batch order on the device.
    assert max(len({job.config.seed for job in plan.jobs}) for plan in plans) <= 3
    assert len(pack(jobs, 3)) > 300


@pytest.mark.parametrize("model", ["jsc-tiny", "jsc-s", "jsc-conv", "16-1024-2048-5"])
@pytest.mark.parametrize("batch_size", [16, 256, 8192])
def test_a_stack_fits_its_share_of_memory(model, batch_size):
    run = RunConfig(model=model, batch_size=batch_size)
    few, many = max_gpu_replicas(run, 2 * GIB), max_gpu_replicas(run, 80 * GIB)
    assert 1 <= few <= many
    assert max_gpu_replicas(run, 0) == 1
    # Weights, gradient, moments and activations alone.
    assert many == 1 or many * 4 * (4 * run.network.parameters + 16 * batch_size) < 80 * GIB
    if few > 1:
        assert few * 4 * (4 * run.network.parameters + 16 * batch_size) < 2 * GIB


def test_activations_that_torch_keeps_for_the_backward_pass_count():
    run = RunConfig(model="jsc-s", batch_size=2048)
    assert max_gpu_replicas(run.with_(precision="16-mixed"), 2 * GIB) < max_gpu_replicas(run, 2 * GIB)


def test_a_network_too_wide_for_a_thread_block_is_trained_by_torch():
    assert why_not_gpu_kernel(RunConfig(model="jsc-s", batch_size=1024)) is None
    wide = why_not_gpu_kernel(RunConfig(model="16-256-256-5", batch_size=512))
    assert wide == "71,429 parameters at batch 512 are much for a thread block"
    assert why_not_gpu_kernel(RunConfig(precision="bf16-mixed")) == "precision bf16-mixed"
    assert why_not_gpu_kernel(RunConfig(model="jsc-conv")) == "layer conv1d"


def test_stacks_for_cpus_do_not_depend_on_gpu_memory():
    jobs = grid(configs=3)
    assert pack(jobs, 3, None, None) == pack(jobs, 3)
    assert max(len(plan.jobs) for plan in pack(jobs, 3)) < 10


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Replace nvidia-smi by a script; return a function that sets its text."""

    def answers(script):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        gpu_bytes.cache_clear()

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("jsc_explore.jobs.engine.gpu_memory.version", lambda name: "2.13.0")
    yield answers
    gpu_bytes.cache_clear()


def test_the_driver_reports_the_memory_of_the_gpu(driver):
    driver('case "$*" in *--id=1*) echo 40960;; *) echo 81559;; esac')
    assert gpu_bytes("cuda") == gpu_bytes("auto") == 81559 << 20
    assert gpu_bytes("cuda:1") == 40960 << 20
    assert gpu_bytes("cpu") is None


@pytest.mark.parametrize("script", ["exit 9", "echo '[N/A]'", "echo No devices were found"])
def test_a_driver_without_an_answer_means_no_gpu(driver, script):
    driver(script)
    assert gpu_bytes("auto") is None


def test_a_cpu_build_of_torch_does_not_use_a_gpu(driver, monkeypatch):
    driver("echo 81559")
    monkeypatch.setattr("jsc_explore.jobs.engine.gpu_memory.version", lambda name: "2.13.0+cpu")
    assert gpu_bytes("auto") is None


def test_local_workers_share_the_gpu_and_remote_workers_are_not_considered(driver, tmp_path):
    driver("echo 40000")
    here = Engine(tmp_path / "here", None, LocalPool(workers=3, extra=1), device="cuda")
    elsewhere = Cluster(SchedulerConnection("tcp://127.0.0.1:1", is_insecure=True))
    there = Engine(tmp_path / "there", None, elsewhere, device="cuda")
    try:
        assert here._gpu_bytes() == (40000 << 20) // 4
        assert there._gpu_bytes() is None
    finally:
        for engine in (here, there):
            engine._shut_down()
