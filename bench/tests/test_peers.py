"""The bench's peers train the same network as a plain torch loop does, and their times are reported as measured."""

import importlib
import json
import shutil

import pytest
import torch
from torch import nn
from torch.nn import functional

from bench import training
from bench.__main__ import write_figures, write_tables
from bench.frame import Bound, Report
from bench.peers.host import Host
from bench.peers.task import RATE, AbsentError, Task, freeze
from bench.training import JobTimes, Measured

# In this order: the lab's loader forks, which JAX's threads do not take kindly.
PEERS = ("lightning_loop", "torch_loop", "cpp_loop", "ours", "jax_loop")
STEPS, REPLICAS = 200, 2


def task_of(model, batch_size, steps=STEPS):
    return Task(model, batch_size, REPLICAS, steps * batch_size)


def trained_by(way, task):
    if way == "cpp_loop" and shutil.which("g++") is None:
        pytest.skip("g++ is not there, so the C++ yardstick cannot be compiled")
    if way == "jax_loop":
        pytest.importorskip("jax", reason="JAX is not installed: pip install -r bench/requirements.txt")
    loop = importlib.import_module(f"bench.peers.{way}").Loop(task)
    seconds = loop.train(task.steps_per_epoch)
    assert seconds > 0
    return loop.weights()


def plain(task, dtype=torch.float32):
    """Train with nothing but torch; return modules, and the smallest gradient that each parameter ever had."""
    modules, smallest = task.modules(), []
    x, y = task.jets
    for module, order in zip(modules, task.orders(task.steps_per_epoch), strict=True):
        for layer in module:
            if isinstance(layer, nn.BatchNorm1d):
                layer.__class__ = nn.BatchNorm1d  # the project's own computes in float32 always
        module.to(dtype)
        trained = dict(named for named in module.named_parameters() if named[1].requires_grad)
        seen = {name: torch.full_like(p, torch.inf) for name, p in trained.items()}
        optimizer = torch.optim.Adam(trained.values(), RATE)
        for rows in order:
            loss = functional.cross_entropy(module(x[rows].to(dtype)), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen = {name: torch.minimum(seen[name], p.grad.abs()) for name, p in trained.items()}
        smallest.append(seen)
    return modules, smallest


def outputs(task, weights, dtype=torch.float32):
    """Return what networks with these weights say of jets, in evaluation mode."""
    x = task.jets[0][:2000].to(dtype)
    logits = []
    for module, state in zip(task.modules(), weights, strict=True):
        for layer in module:
            if isinstance(layer, nn.BatchNorm1d):
                layer.__class__ = nn.BatchNorm1d
        module.to(dtype).eval().load_state_dict(state)
        with torch.no_grad():
            logits.append(module(x))
    return torch.stack(logits).double()


@pytest.mark.parametrize("batch_size", [16, 64])
@pytest.mark.parametrize("model", ["jsc-tiny", "jsc-toy"])
@pytest.mark.parametrize("way", PEERS)
def test_a_peer_agrees_with_plain_torch_after_200_steps(way, model, batch_size):
    task = task_of(model, batch_size)
    expected = outputs(task, [module.state_dict() for module in plain(task)[0]])
    assert expected.std() > 0.01
    torch.testing.assert_close(outputs(task, trained_by(way, task)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("way", PEERS)
def test_a_peer_takes_the_same_first_steps_of_the_widest_network(way):
    """All parameters but those whose gradient vanished at a step: what rounding leaves of it Adam scales up."""
    task = task_of("jsc-s", 64, steps=5)
    modules, smallest = plain(task, torch.float64)
    compared = total = 0
    for module, seen, state in zip(modules, smallest, trained_by(way, task), strict=True):
        for name, parameter in module.named_parameters():
            if name not in seen:
                continue
            moved = seen[name] > 1e-5
            difference = (state[name].double() - parameter.detach())[moved]
            assert difference.abs().max() < 1e-4, name
            compared, total = compared + int(moved.sum()), total + moved.numel()
    assert compared > 0.7 * total


@pytest.mark.parametrize("way", PEERS)
def test_a_peer_is_as_near_the_truth_as_plain_torch_after_200_steps_of_the_widest_network(way):
    """No two float32 loops agree to 1e-4 here, torch's own in float64 included: units that are never off feed a batch
    norm, so that their bias has no gradient. None may be further from float64 than torch is, but for luck."""
    task = task_of("jsc-s", 64)
    truth = outputs(task, [module.state_dict() for module in plain(task, torch.float64)[0]], torch.float64)
    torchs = outputs(task, [module.state_dict() for module in plain(task)[0]])
    peers = outputs(task, trained_by(way, task))
    assert (peers - truth).abs().mean() < 3 * (torchs - truth).abs().mean() < 0.3 * truth.std()


def test_biases_that_feed_a_batch_norm_are_frozen_and_no_other():
    module = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
    freeze(task_of("jsc-toy", 16).modules()[0])
    frozen = {name for name, p in task_of("jsc-toy", 16).modules()[0].named_parameters() if not p.requires_grad}
    assert frozen == {"2.bias", "5.bias", "8.bias"}
    freeze(module)
    assert module[3].bias.requires_grad


def test_a_peer_that_is_not_there_says_what_to_do(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AbsentError, match="requirements"):
        importlib.import_module("bench.peers.jax_loop").Loop(task_of("jsc-tiny", 16))


def test_a_compiler_that_is_not_there_says_what_to_do(monkeypatch):
    module = importlib.import_module("bench.peers.cpp_loop")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(AbsentError, match=r"g\+\+"):
        module.Loop(Task("jsc-tiny", 48, 1, 4800))


def test_the_project_is_timed_in_part_of_an_epoch_or_in_whole_ones():
    host = Host("ours")
    try:
        for rows in (64_000, 6_400_000 // 10):
            steps = host.prepare(Task("jsc-tiny", 512, 2, rows), 0.3)
            seconds = host.epoch_s(2)
            assert 1e-4 < seconds < 60
            assert steps >= 100 or steps % (rows // 512) == 0
    finally:
        host.close()


# ---- what is told


def measured(**medians):
    return {
        ("tiny", 256, name.rstrip("0123456789"), int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))): Measured(
            (0.9 * seconds, seconds, 2 * seconds), 1.0
        )
        for name, seconds in medians.items()
    }


def test_ratios_are_the_peers_time_over_ours_and_ours_over_the_yardsticks():
    table = measured(lab1=4.0, jax10=0.1, cpp1=0.05, ours1=0.1, ours10=0.05)
    assert training._ratios(table) == pytest.approx(
        {
            "tiny_b256_r1_speedup_vs_lab": 40.0,
            "tiny_b256_r10_speedup_vs_lab": 80.0,
            "tiny_b256_r10_speedup_vs_jax": 2.0,
            "tiny_b256_r1_time_vs_cpp": 2.0,
        }
    )


def test_a_peer_that_was_skipped_leaves_its_ratios_out():
    assert set(training._ratios(measured(lab1=4.0, ours1=0.1))) == {"tiny_b256_r1_speedup_vs_lab"}


def test_every_figure_of_the_issue_has_its_bound():
    keys = {
        "tiny_b256_r1_speedup_vs_lab", "tiny_b256_r10_speedup_vs_lab", "tiny_b16_r10_speedup_vs_lab",
        "tiny_b256_r1_time_vs_cpp", "tiny_b16_r1_time_vs_cpp", "s_b256_r1_time_vs_cpp", "first_point_s",
        "five_seeds_ten_epochs_warm_s", "five_seeds_ten_epochs_cold_s", "worker_peak_mb",
        *(f"{m}_b{b}_r10_speedup_vs_jax" for m in ("tiny", "toy", "s") for b in (16, 64, 256, 512)),
    }  # fmt: skip
    assert set(training.bounds()) == keys


def test_the_summary_has_one_row_a_cell_with_median_and_spread():
    assert training._summary(measured(lab1=4.0, ours10=0.05)) == [
        {"seconds an epoch": "jsc-tiny, batch 256", "lab ×1": "4 (3.6–8)", "ours ×10": "0.05 (0.045–0.1)"}
    ]


def test_job_figures_are_medians():
    cold = [JobTimes(3.0, 6.0)]
    warm = [JobTimes(0.1, 1.0), JobTimes(0.4, 2.0), JobTimes(0.2, 9.0)]
    assert training._job_figures(cold, warm, 700.0) == {
        "first_point_s": 0.2,
        "five_seeds_ten_epochs_warm_s": 2.0,
        "five_seeds_ten_epochs_cold_s": 6.0,
        "worker_peak_mb": 700.0,
    }


def test_a_report_says_of_each_bound_whether_it_holds(tmp_path):
    bounds = {"a_vs_b": Bound(2.0, True), "c_s": Bound(2.0, False)}
    report = Report("x", {"a_vs_b": 1.5, "c_s": 1.5, "free": 1.0}, [{"way": "lab"}], bounds, ["a note"])
    a, c, free = report.show().splitlines()[1:4]
    assert a.endswith("≥ 2  NOT MET")
    assert c.endswith("≤ 2  ok")
    assert free.split() == ["free", "1"]
    report.write(tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["figures"] == {"a_vs_b": 1.5, "c_s": 1.5, "free": 1.0}
    assert "| `a_vs_b` | 1.5 | ≥ 2  NOT MET |" in report.markdown()


def test_tables_are_written_between_their_markers_alone(tmp_path):
    path = tmp_path / "benchmarks.md"
    path.write_text("above\n<!-- bench x -->\nold\n<!-- end of bench x -->\nbelow\n")
    write_tables(path, "x", "new")
    write_tables(path, "y", "of another")
    assert path.read_text() == "above\n<!-- bench x -->\n\nnew\n\n<!-- end of bench x -->\nbelow\n"


def test_figures_of_the_readme_are_replaced_where_they_cite_this_benchmark(tmp_path):
    path = tmp_path / "README.md"
    row = "| Seconds | {} | [`a_s`](docs/benchmarks.md#{}) |\n"
    path.write_text(row.format("1.5", "x") + row.format("2,500", "y") + "| 3 | `a_s` |\n")
    write_figures(path, "x", {"a_s": 1234.5, "b_s": 7.0})
    assert path.read_text() == row.format("1,234", "x") + row.format("2,500", "y") + "| 3 | `a_s` |\n"
