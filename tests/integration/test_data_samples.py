"""Samples of one's own: made from what is there, never taken for another's, offered wherever data are chosen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jsc_explore import data
from jsc_explore.cli.main import main
from jsc_explore.config import RunConfig
from jsc_explore.data import CLASSES, cache
from jsc_explore.data.simulation import Block, assembly, blocks, extra, production, sample
from jsc_explore.data.sources import SHIPPED
from jsc_explore.errors import DataError, FieldError

SIZE = 30
RECIPE = json.loads((SHIPPED / "simulated-recipe.json").read_text())
VERSIONS = {key.removeprefix("version."): value for key, value in RECIPE.items() if key.startswith("version.")}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Blocks of 30 made-up jets, and a shipped sample of the first two of each class; the cache is the folder below."""

    def make(block: Block) -> np.ndarray:
        rng = np.random.default_rng([block.number, CLASSES.index(block.label)])
        return rng.uniform(1, 100, (block.jets, 16)).astype(np.float32)

    for module in (assembly, blocks, production):
        monkeypatch.setattr(module, "JETS_PER_BLOCK", SIZE)
    monkeypatch.setattr(blocks, "simulate_block", make)
    for module in (blocks, production, sample):
        monkeypatch.setattr(module, "versions", lambda: VERSIONS)
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path / "cache"))
    files = production.simulate(2 * 5 * SIZE, "cernbox", 2018, 1, tmp_path / "first", progress=False)
    assembly.assemble(files, tmp_path / "shipped")
    monkeypatch.setattr(sample, "SHIPPED", tmp_path / "shipped")
    return tmp_path


def make(folder: Path, name: str, jets: int, preset: str = "cernbox", seed: int = 2018, **options: object) -> Path:
    return sample.make_sample(name, jets, preset, seed, 1, folder / "blocks", **options)  # type: ignore[arg-type]


def test_the_shipped_sample_is_split_into_its_blocks_and_assembled_again(tmp_path: Path) -> None:
    parts = assembly.split_into_blocks(SHIPPED, "simulated")
    assert len(parts) == RECIPE["blocks"]
    again = assembly.assemble([], tmp_path, "simulated", list(parts.values()))
    assert cache.read_manifest(again.parent, "simulated").digest == data.digest("simulated")
    assert json.loads((tmp_path / "simulated-recipe.json").read_text()) == RECIPE


def test_shipped_and_new_blocks_make_what_new_blocks_alone_make(small_blocks: Path) -> None:
    said: list[str] = []
    make(small_blocks, "mixed", 4 * 5 * SIZE, log=said.append)
    assert said == ["10 of 20 blocks are shipped with jsc-explore"]
    assert len(list((small_blocks / "blocks").glob("*.parquet"))) == 10
    files = production.simulate(4 * 5 * SIZE, "cernbox", 2018, 1, small_blocks / "all", progress=False)
    alone = assembly.assemble(files, small_blocks / "alone", "simulated-mixed")
    assert data.digest("simulated-mixed") == cache.read_manifest(alone.parent, "simulated-mixed").digest
    jets = data.load("simulated-mixed")
    assert np.bincount(jets.labels).tolist() == [4 * SIZE] * 5


def test_other_versions_or_seeds_take_nothing_from_the_shipped_sample(
    small_blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    make(small_blocks, "other", 300, seed=1, log=said.append)
    assert said == []
    for module in (blocks, production, sample):
        monkeypatch.setattr(module, "versions", lambda: VERSIONS | {"fastjet": "4"})
    make(small_blocks, "newer", 4 * 5 * SIZE, log=said.append)
    assert said == [
        f"simulating all blocks: those shipped with jsc-explore were made with fastjet {VERSIONS['fastjet']}"
    ]


def test_a_sample_within_the_shipped_one_needs_no_simulation(
    small_blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (blocks, production, sample):
        monkeypatch.setattr(module, "versions", extra.pythia)
    monkeypatch.setattr(extra, "pythia", lambda: pytest.fail("the extra is not needed"))
    make(small_blocks, "small", 5 * SIZE)
    assert len(data.load("simulated-small")) == 5 * SIZE


def test_samples_do_not_disturb_one_another(small_blocks: Path) -> None:
    make(small_blocks, "a", 5 * SIZE)
    make(small_blocks, "a_b", 10 * SIZE)
    first = data.digest("simulated-a")
    make(small_blocks, "a", 15 * SIZE)
    assert len({first, data.digest("simulated-a"), data.digest("simulated-a_b"), data.digest("simulated")}) == 4
    assert len(data.load("simulated-a_b")) == 10 * SIZE, "its file begins like the other's, which was replaced"
    assert data.names() == ("simulated", "openml", "cernbox", "simulated-a", "simulated-a_b")
    run = RunConfig(dataset="simulated-a")
    assert run.run_id(data.digest("simulated-a")) != RunConfig(dataset="simulated-a_b").run_id(first)
    assert data.fetch("simulated-a").name.startswith("simulated-a-")
    assert data.split(data.load("simulated-a"), "train").train_x.shape == (12 * SIZE, 16)


def test_a_name_stays_with_its_preset_and_seed(small_blocks: Path) -> None:
    make(small_blocks, "mine", 5 * SIZE, seed=1)
    with pytest.raises(FieldError, match="is already a sample of preset cernbox, seed 1; choose another name"):
        make(small_blocks, "mine", 5 * SIZE)
    with pytest.raises(FieldError, match="contains the name of another preset than cernbox; add --preset openml"):
        make(small_blocks, "openml_1M", 5 * SIZE)


@pytest.mark.parametrize("name", ["", "a b", "a-b", "../x", "recipe", "x" * 33, "é"])
def test_a_name_that_cannot_be_one_is_refused_everywhere(small_blocks: Path, name: str) -> None:
    with pytest.raises(FieldError, match="name = "):
        make(small_blocks, name, 5 * SIZE)
    for act in (lambda: RunConfig(dataset=f"simulated-{name}"), lambda: data.digest(f"simulated-{name}")):
        with pytest.raises(FieldError, match="simulated, openml, cernbox or simulated-NAME"):
            act()


def test_a_sample_that_is_not_there_names_the_command_that_makes_it(small_blocks: Path) -> None:
    assert RunConfig(dataset="simulated-1M").dataset == "simulated-1M"
    for act in (data.digest, data.load, data.fetch):
        with pytest.raises(DataError, match=r"run: jsc-explore data simulate --name 1M --jets 1000000$"):
            act("simulated-1M")
    with pytest.raises(DataError, match=r"--name openml_2 --jets 1000000 --preset openml$"):
        data.digest("simulated-openml_2")


def test_a_damaged_sample_is_not_used(small_blocks: Path) -> None:
    path = make(small_blocks, "a", 5 * SIZE)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="run: jsc-explore data simulate --name a"):
        data.load("simulated-a")


def test_the_command_makes_a_source_that_help_and_check_know(
    small_blocks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["data", *arguments])
        return int(ended.value.code or 0), *capsys.readouterr()

    out_dir = str(small_blocks / "blocks")
    code, out, err = call("simulate", "--name", "tiny", "--jets", str(5 * SIZE), "--out", out_dir)
    assert (code, err) == (0, "5 of 5 blocks are shipped with jsc-explore\n")
    assert out.startswith(f"simulated-tiny: {5 * SIZE} jets in ")
    assert "simulated-tiny" in call("fetch", "--help")[1]
    assert "simulated-tiny" in call("validate", "--help")[1]
    assert call("fetch", "simulated-tiny")[0] == 0
    for stray in (("--share", "1/2"), ("--assemble", "x")):
        code, _, err = call("simulate", "--name", "tiny", *stray)
        assert (code, "cannot be combined with --name" in err, err.count("\n")) == (2, True, 1)
