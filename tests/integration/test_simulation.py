"""The simulation's claims: features of jets computed by hand, blocks that follow from their identity."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from jsc_explore.cli.main import main
from jsc_explore.data import cache
from jsc_explore.data.simulation import CLASSES, FEATURES, Block, extra, is_complete, plan, simulate
from jsc_explore.data.simulation import blocks as blocks_module
from jsc_explore.data.simulation.assembly import assemble
from jsc_explore.data.simulation.blocks import round_mantissa, simulate_block, write_block
from jsc_explore.data.simulation.detector import CHARGED, NEUTRAL, PHOTON, PRESETS, Preset, detect, particle_kind
from jsc_explore.data.simulation.events import decay_cosine, derive_seeds, isotropic_decays, make_pythia
from jsc_explore.data.simulation.features import Floats, Jet, energy_correlations, jet_features
from jsc_explore.data.simulation.jets import JetFinder
from jsc_explore.errors import DataError, FieldError


def massless(pt: list[float], rapidity: list[float], phi: list[float]) -> Floats:
    p, y, f = (np.asarray(column, dtype=float) for column in (pt, rapidity, phi))
    return np.stack([p * np.cos(f), p * np.sin(f), p * np.sinh(y), p * np.cosh(y)], axis=1)


def features_of(momenta: Floats) -> dict[str, float]:
    return dict(zip(FEATURES, jet_features([Jet(momenta, momenta)])[0].tolist(), strict=True))


def random_jet(seed: int, size: int) -> Floats:
    rng = np.random.default_rng(seed)
    return massless(
        list(rng.exponential(20, size) + 0.1), list(rng.normal(0.3, 0.15, size)), list(rng.normal(3, 0.15, size))
    )


# ---- features of jets computed by hand


def test_two_particles_have_a_pair_and_no_triple() -> None:
    found = energy_correlations(np.array([[0.25, 0.75]]), np.array([[[0, 0.2], [0.2, 0]]]))
    np.testing.assert_allclose(found.e2, [[0.0375, 0.0075]])
    for triples in (found.e3, found.smallest, found.two_smallest):
        np.testing.assert_array_equal(triples, 0)


def test_three_particles_by_hand() -> None:
    # Sides 0.3, 0.4, 0.5: a right angle in the (rapidity, phi) plane, 1/2, 1/4, 1/4 of the momentum.
    found = features_of(massless([100, 50, 50], [0, 0.3, 0], [0, 0, 0.4]))
    e2_1 = 0.125 * 0.3 + 0.125 * 0.4 + 0.0625 * 0.5
    e2_2 = 0.125 * 0.09 + 0.125 * 0.16 + 0.0625 * 0.25
    weight = 1 / 32
    expected = {
        "c1_b0_mmdt": 0.3125,
        "c1_b1_mmdt": e2_1,
        "c1_b2_mmdt": e2_2,
        "c2_b1_mmdt": weight * 0.06 / e2_1**2,
        "c2_b2_mmdt": weight * 0.0036 / e2_2**2,
        "d2_b1_mmdt": weight * 0.06 / e2_1**3,
        "d2_b2_mmdt": weight * 0.0036 / e2_2**3,
        "d2_a1_b1_mmdt": weight * 0.06 / e2_1**3,
        "d2_a1_b2_mmdt": weight * 0.06 / e2_2**1.5,
        "m2_b1_mmdt": weight * 0.3 / e2_1,
        "m2_b2_mmdt": weight * 0.09 / e2_2,
        "n2_b1_mmdt": weight * 0.12 / e2_1**2,
        "n2_b2_mmdt": weight * 0.0144 / e2_2**2,
        "multiplicity": 3,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
    mass2 = 2 * (100 * 50 * (math.cosh(0.3) - 1) + 100 * 50 * (1 - math.cos(0.4)))
    mass2 += 2 * 50 * 50 * (math.cosh(0.3) - math.cos(0.4))
    assert found["mass_mmdt"] == pytest.approx(math.sqrt(mass2), rel=1e-9)
    energy = np.array([100, 50 * math.cosh(0.3), 50])
    share = energy / energy.sum()
    assert found["zlogz"] == pytest.approx(float(np.sum(share * np.log(share))), rel=1e-12)


def test_four_equal_particles_on_a_square() -> None:
    # Each of the four triples has sides d, d, d * sqrt(2); each particle a quarter of the momentum.
    d = 0.1
    found = energy_correlations(
        np.full((1, 4), 0.25),
        np.array(
            [[[math.dist(a, b) for a in square] for b in square] for square in [[(0, 0), (d, 0), (d, d), (0, d)]]]
        ),
    )
    for k, beta in enumerate((1, 2)):
        long = math.sqrt(2) ** beta
        assert found.e2[0, k] == pytest.approx((4 + 2 * long) * d**beta / 16)
        assert found.e3[0, k] == pytest.approx(4 * long * d ** (3 * beta) / 64)
        assert found.smallest[0, k] == pytest.approx(4 * d**beta / 64)
        assert found.two_smallest[0, k] == pytest.approx(4 * d ** (2 * beta) / 64)


@given(seed=st.integers(0, 10_000), size=st.integers(3, 9), beta=st.sampled_from([1, 2]))
@settings(max_examples=40, deadline=None)
def test_the_blocked_sums_equal_the_sums_over_triples(seed: int, size: int, beta: int) -> None:
    rng = np.random.default_rng(seed)
    z, points = rng.dirichlet(np.ones(size)), rng.normal(size=(size, 2))
    theta = np.linalg.norm(points[:, None] - points[None], axis=-1)
    e3 = smallest = two_smallest = 0.0
    for triple in itertools.combinations(range(size), 3):
        a, b, c = sorted(theta[i, j] ** beta for i, j in itertools.combinations(triple, 2))
        weight = z[list(triple)].prod()
        e3, smallest, two_smallest = (e3 + weight * a * b * c, smallest + weight * a, two_smallest + weight * a * b)
    found = energy_correlations(z[None], theta[None])
    assert found.e3[0, beta - 1] == pytest.approx(e3)
    assert found.smallest[0, beta - 1] == pytest.approx(smallest)
    assert found.two_smallest[0, beta - 1] == pytest.approx(two_smallest)


def test_particles_on_one_spot_divide_nothing_by_zero() -> None:
    assert np.isfinite(list(features_of(massless([9, 9, 9], [0, 0, 0.1], [0, 0, 0.1])).values())).all()


# ---- invariances


@given(seed=st.integers(0, 10_000), size=st.integers(3, 60), angle=st.floats(-7, 7))
@settings(max_examples=25, deadline=None)
def test_turning_a_jet_around_the_beam_changes_nothing(seed: int, size: int, angle: float) -> None:
    jet = random_jet(seed, size)
    turned = jet.copy()
    turned[:, 0] = jet[:, 0] * math.cos(angle) - jet[:, 1] * math.sin(angle)
    turned[:, 1] = jet[:, 0] * math.sin(angle) + jet[:, 1] * math.cos(angle)
    assert features_of(turned) == pytest.approx(features_of(jet), rel=1e-6)


@given(seed=st.integers(0, 10_000), size=st.integers(3, 60), boost=st.floats(-2, 2))
@settings(max_examples=25, deadline=None)
def test_a_boost_along_the_beam_changes_only_energy_shares(seed: int, size: int, boost: float) -> None:
    jet = random_jet(seed, size)
    boosted = jet.copy()
    boosted[:, 2] = math.cosh(boost) * jet[:, 2] + math.sinh(boost) * jet[:, 3]
    boosted[:, 3] = math.cosh(boost) * jet[:, 3] + math.sinh(boost) * jet[:, 2]
    before, after = features_of(jet), features_of(boosted)
    del before["zlogz"], after["zlogz"]  # defined by energy, not by transverse momentum
    assert after == pytest.approx(before, rel=1e-6)


@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(3, 40), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_features_depend_neither_on_particle_order_nor_on_other_jets_of_the_batch(seed: int, sizes: list[int]) -> None:
    jets = [random_jet(seed + k, size) for k, size in enumerate(sizes)]
    alone = np.concatenate([jet_features([Jet(jet, jet)]) for jet in jets])
    shuffled = [np.random.default_rng(seed).permutation(jet) for jet in jets]
    together = jet_features([Jet(jet, jet) for jet in reversed(shuffled)])[::-1]
    np.testing.assert_allclose(together, alone, rtol=1e-9)


# ---- detector


SHARP = Preset("sharp", ecal_cell=0.0175, hcal_cell=0.022, smearing=0.0)


def test_a_track_keeps_its_momentum_and_photons_share_a_cell() -> None:
    momenta = massless([50, 10, 10, 7], [0.1, 0.5, 0.5001, 2.0], [1, 2, 2.0001, 3])
    measured = detect(momenta, np.array([CHARGED, PHOTON, PHOTON, PHOTON]), SHARP, np.random.default_rng(0))
    np.testing.assert_allclose(measured[0], momenta[0])
    assert sorted(measured[1:, 3]) == pytest.approx(sorted([momenta[1:3, 3].sum(), momenta[3, 3]]))
    np.testing.assert_allclose(np.linalg.norm(measured[1:, :3], axis=1), measured[1:, 3])


def test_a_stiff_track_is_seen_by_the_calorimeter_alone() -> None:
    momenta = massless([221, 30], [0.4, 0.4], [1, 1])
    measured = detect(momenta, np.array([CHARGED, NEUTRAL]), SHARP, np.random.default_rng(0))
    assert measured[:, 3] == pytest.approx([momenta[:, 3].sum()])


def test_the_grid_ends_at_its_edges() -> None:
    momenta = massless([10, 10, 10], [3.001, 2.9999, -2.9999], [0, 2 * math.pi - 1e-12, 0])
    assert len(detect(momenta, np.full(3, PHOTON), SHARP, np.random.default_rng(0))) == 2


def test_kinds_follow_the_particle() -> None:
    assert len({particle_kind(pdg, charge) for pdg, charge in [(14, 0), (-11, 1), (22, 0), (211, 1), (2112, 0)]}) == 5


def test_presets_and_classes_are_checked_by_name() -> None:
    with pytest.raises(FieldError, match="cernbox"):
        Block("cern", "g", 0, 0)
    with pytest.raises(FieldError, match="class"):
        Block("openml", "b", 0, 0)


# ---- jets: real clustering


def test_grooming_drops_what_is_soft_and_wide() -> None:
    hard = massless([500, 300, 200], [0, 0.1, 0.1], [0, 0, 0.03])
    soft = massless([1], [0.3], [0.0])
    jet = JetFinder().leading(np.concatenate([hard, soft]), [(0.0, 0.0)])
    assert jet is not None
    assert len(jet.constituents) == 4
    np.testing.assert_array_equal(np.sort(jet.groomed, axis=0), np.sort(hard, axis=0))


@pytest.mark.parametrize(
    ("pt", "partons"), [([500, 290, 5], [(0.0, 0.0)]), ([500, 300, 200], [(2.0, 0.0)]), ([500, 300], [(0.0, 0.0)])]
)
def test_soft_stray_and_thin_jets_are_not_kept(pt: list[float], partons: list[tuple[float, float]]) -> None:
    momenta = massless(pt, [0, 0.1, 0.1][: len(pt)], [0, 0, 0.03][: len(pt)])
    assert JetFinder().leading(momenta, partons) is None


# ---- events


@pytest.mark.parametrize("label", ["w", "z"])
def test_bosons_decay_isotropically(label: str) -> None:
    veto = isotropic_decays(label, np.random.default_rng(0))
    generator = make_pythia(label, 11, veto, ["PartonLevel:all = off"])
    cosines = [
        abs(decay_cosine(generator.process, boson)) for _ in range(5_000) if generator.next() for boson in (5, 6)
    ]
    counts, _ = np.histogram(cosines, 10, (0, 1))
    chi2 = np.square(counts - 1_000).sum() / 1_000
    assert chi2 < 30  # nine degrees of freedom; 271 (w) and 475 (z) without the veto


# ---- blocks: real, tiny simulations


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """Two jets of each class."""
    directory = tmp_path_factory.mktemp("blocks")
    return directory, simulate(10, "cernbox", 3, 1, directory, progress=False)


def test_a_sample_has_every_class_equally_often(sample: tuple[Path, list[Path]]) -> None:
    _, paths = sample
    tables = [pq.read_table(path) for path in paths]
    assert [table.column_names for table in tables] == [[*FEATURES, "jet_type"]] * 5
    labels = [label for table in tables for label in table["jet_type"].to_pylist()]
    assert sorted(labels) == sorted(CLASSES * 2)
    for table in tables:
        rows = np.stack([table[name].to_numpy() for name in FEATURES], axis=1)
        assert np.isfinite(rows).all()
        assert (rows[:, FEATURES.index("multiplicity")] >= 3).all()


def test_a_file_says_what_made_it(sample: tuple[Path, list[Path]]) -> None:
    metadata = pq.read_schema(sample[1][0]).metadata
    assert metadata[b"jsc.preset"] == b"cernbox"
    assert {b"jsc.recipe", b"jsc.class", b"jsc.seed", b"jsc.block", b"jsc.version.pythia8mc"} <= metadata.keys()
    assert b"jsc.version.fastjet" in metadata


def test_other_worker_counts_give_the_same_bytes(sample: tuple[Path, list[Path]], tmp_path: Path) -> None:
    _, paths = sample
    again = simulate(10, "cernbox", 3, 2, tmp_path, progress=False)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_other_seeds_numbers_and_presets_give_other_jets() -> None:
    identities = [("cernbox", "w", 0, 0), ("cernbox", "w", 0, 1), ("cernbox", "w", 1, 0), ("openml", "w", 0, 0)]
    assert len({derive_seeds(*identity)[0] for identity in identities}) == 4
    assert len({tuple(derive_seeds(*identity)[1].generate_state(4)) for identity in identities}) == 4
    assert len({derive_seeds("cernbox", "w", 5, number)[0] for number in range(5_000)}) == 5_000


def test_complete_blocks_are_not_made_again(sample: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    directory, paths = sample
    monkeypatch.setattr(blocks_module, "simulate_block", lambda block: pytest.fail("simulated again"))
    assert simulate(10, "cernbox", 3, 1, directory, progress=False) == paths


@pytest.mark.parametrize("damage", ["torn", "flipped", "foreign"])
def test_a_damaged_file_is_made_again(sample: tuple[Path, list[Path]], tmp_path: Path, damage: str) -> None:
    good = sample[1][0].read_bytes()
    block = Block("cernbox", "g", 3, 0, jets=2)
    path = tmp_path / block.filename
    torn = good[: len(good) // 2]
    flipped = good[:60] + bytes([good[60] ^ 0xFF]) + good[61:]
    path.write_bytes({"torn": torn, "flipped": flipped, "foreign": sample[1][1].read_bytes()}[damage])
    assert not is_complete(path, block)
    blocks_module.ensure_writable(tmp_path)
    assert write_block(block, tmp_path)
    assert path.read_bytes() == good


def test_a_block_locked_by_another_process_is_not_written(tmp_path: Path) -> None:
    blocks_module.ensure_writable(tmp_path)
    block = Block("cernbox", "z", 4, 0, jets=1)
    with FileLock(tmp_path / ".claims" / f"{block.filename}.lock"):
        assert not write_block(block, tmp_path)
    assert not (tmp_path / block.filename).exists()


def test_two_processes_share_a_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jsc_explore", "data", "simulate", "--jets", "10", "--preset", "openml"]
    command += ["--seed", "8", "--out", str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        assert stdout.decode().startswith("5 blocks")
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == sorted(
        block.filename for block in plan(10, "openml", 8)
    )


def test_shares_are_disjoint_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "generate_jets", _hand_made_jets)
    shares = [simulate(35, "openml", 1, 1, tmp_path, progress=False, share=(k, 3)) for k in (1, 2, 3)]
    assert sorted(itertools.chain(*shares)) == sorted(tmp_path / b.filename for b in plan(35, "openml", 1))
    with pytest.raises(FieldError, match="share"):
        simulate(35, "openml", 1, 1, tmp_path, share=(4, 3))


def test_plans_interleave_classes_and_extend_each_other() -> None:
    whole = plan(986_806, "cernbox", 2018)
    assert len(whole) == 990
    assert whole[:500] == plan(500_000, "cernbox", 2018)
    assert [block.label for block in whole[:6]] == [*CLASSES, CLASSES[0]]


def test_no_jet_comes_twice_in_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "generate_jets", _hand_made_jets)
    rows = simulate_block(Block("cernbox", "g", 0, 0, jets=20))
    assert len(rows) == len(np.unique(rows, axis=0)) == 20


def _hand_made_jets(*_: object) -> itertools.chain[Jet]:
    """Yield every jet twice."""
    momenta = (random_jet(k // 2, 4) for k in itertools.count())
    return itertools.chain.from_iterable([Jet(jet, jet)] for jet in momenta)


@given(st.floats(1e-30, 1e30), st.integers(0, 5_000))
def test_rounding_keeps_sixteen_bits_and_whole_numbers(value: float, count: int) -> None:
    assert round_mantissa(np.array([value]), 16)[0] == pytest.approx(value, rel=2**-17)
    assert round_mantissa(np.array([float(count)]), 16)[0] == count


# ---- the sample that is shipped


def blocks_of(directory: Path, counts: dict[str, int], seed: int = 0) -> list[Path]:
    paths = []
    for label, count in counts.items():
        block = Block("cernbox", label, seed, 0, jets=count)
        rows = np.random.default_rng(ord(label)).uniform(1, 100, (count, 16)).astype(np.float32)
        rows[0] = rows[1]
        path = directory / block.filename
        path.write_bytes(blocks_module._encode(block, rows))
        paths.append(path)
    return paths


def test_blocks_become_one_balanced_shuffled_sample_with_its_recipe(tmp_path: Path) -> None:
    blocks = blocks_of(tmp_path, dict.fromkeys(CLASSES, 40) | {"w": 30})
    file = assemble(blocks, tmp_path / "sample")
    manifest, features, labels = cache.read(tmp_path / "sample", "simulated")
    assert np.bincount(labels).tolist() == [29] * 5, "one duplicate left out of the smallest class, the others cut"
    assert len(set(labels[:20])) > 1
    np.testing.assert_array_equal(features, round_mantissa(features, 12))
    recipe = json.loads((tmp_path / "sample" / "simulated-recipe.json").read_text())
    assert (recipe["preset"], recipe["blocks"], recipe["mantissa_bits"]) == ("cernbox", 5, 12)
    again = assemble(list(reversed(blocks)), tmp_path / "again")
    assert again.read_bytes() == file.read_bytes()
    assert manifest.rows == 145


def test_blocks_of_several_seeds_are_no_sample(tmp_path: Path) -> None:
    mixed = blocks_of(tmp_path, {"g": 9, "q": 9, "w": 9}) + blocks_of(tmp_path, {"z": 9, "t": 9}, seed=1)
    with pytest.raises(DataError, match="2 recipes"):
        assemble(mixed, tmp_path / "sample")


# ---- failures in one line


def test_a_missing_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    with pytest.raises(DataError, match=r"pip install 'jsc-explore\[simulate\]'"):
        extra.pythia()
    assert exit_code(_arguments(tmp_path / "out")) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_directory_that_takes_no_files_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jsc_explore.data.simulation.production.versions", dict)
    (tmp_path / "file").touch()
    assert exit_code(_arguments(tmp_path / "file")) == 2
    error = capsys.readouterr().err
    assert error.startswith("jsc-explore: cannot write to")
    assert error.count("\n") == 1


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(blocks_module, "generate_jets", _hand_made_jets)
    monkeypatch.setattr(blocks_module, "versions", dict)
    blocks_module.ensure_writable(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        write_block(Block("cernbox", "g", 0, 0, jets=4), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".claims"]


@pytest.mark.parametrize(("field", "value"), [("--jets", "0"), ("--workers", "0"), ("--seed", "-1"), ("--share", "x")])
def test_values_out_of_range_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: str
) -> None:
    assert exit_code([*_arguments(tmp_path), field, value]) == 2
    assert field[2:] in capsys.readouterr().err


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["data", "simulate", *arguments])
    return int(ended.value.code or 0)


def _arguments(directory: Path) -> list[str]:
    return ["--jets", "5", "--preset", next(iter(PRESETS)), "--seed", "0", "--out", str(directory)]
