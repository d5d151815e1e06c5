"""The charts of the Data page: their tables, and that they are valid Vega-Lite."""

import json

import altair as alt
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
import vl_convert

from jsc_explore import data
from jsc_explore.charts import features as charts
from jsc_explore.charts.jets import KEPT, RADIUS, REMOVED, constituent_table, jet_chart, mass_chart
from jsc_explore.data import CLASSES, FEATURES
from jsc_explore.data.examples import example_jets, example_recipe
from jsc_explore.data.glossary import CLASS_NAMES
from jsc_explore.data.simulation.examples import example_jets as simulate_examples
from jsc_explore.data.sources import SHIPPED
from jsc_explore.errors import FieldError


def histogram(features=("mass_mmdt",), counts=(0, 6, 2)):
    total = sum(counts)
    return pa.Table.from_pylist(
        [
            {"feature": f, "label": k, "low": 10.0 * (i + 1), "high": 10.0 * (i + 2), "n": n, "share": n / total}
            for f in features
            for k in CLASSES
            for i, n in enumerate(counts)
        ]
    )


def drawn(chart: alt.LayerChart) -> str:
    """Compile and draw a chart, as the browser would; an invalid one raises."""
    return vl_convert.vegalite_to_svg(chart.properties(width=400).to_dict())


def test_the_overview_gives_each_feature_a_cell_of_its_own():
    rows = charts.overview_table(histogram(FEATURES)).to_pylist()
    cells = {}
    for row in rows:
        cells.setdefault(row["feature"], set()).add((int(row["x"]), int(-row["y"] // 1)))
        assert row["x"] % 1 < 0.95
    places = [min(found) for found in cells.values()]
    assert len(set(places)) == len(FEATURES)
    top = max(row["y"] for row in rows if row["feature"] == "zlogz")
    assert top == pytest.approx(-1 + 0.66)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_overview_is_drawn_with_every_name(theme):
    svg = drawn(charts.overview_chart(charts.overview_table(histogram(FEATURES)), "mass_mmdt", theme))
    assert all(f">{name.removesuffix('_mmdt')}<" in svg for name in FEATURES)
    assert all(f">{name}<" in svg for name in CLASS_NAMES.values())


def test_an_empty_bin_is_not_drawn_on_a_logarithmic_axis():
    linear = charts.histogram_table(histogram(), log_y=False)["height"].to_pylist()
    log = charts.histogram_table(histogram(), log_y=True)["height"].to_pylist()
    assert linear[:4] == [0, 0.75, 0.25, 0.25]
    assert log[:4] == [None, 0.75, 0.25, 0.25]


def test_the_line_of_each_class_ends_where_its_last_bin_does():
    table = charts.histogram_table(histogram(), log_y=False)
    closing = [row for row in table.to_pylist() if row["low"] == row["high"]]
    assert [row["class"] for row in closing] == list(CLASS_NAMES.values())
    assert {(row["low"], row["n"]) for row in closing} == {(40.0, 0)}


@pytest.mark.parametrize("log_x", [False, True])
@pytest.mark.parametrize("log_y", [False, True])
def test_a_histogram_is_drawn_on_either_axis(log_x, log_y):
    table = charts.histogram_table(histogram(), log_y=log_y)
    svg = drawn(charts.histogram_chart(table, "mass_mmdt", log_x=log_x, log_y=log_y))
    assert "mass_mmdt (GeV)" in svg
    # The tooltip shows the share also where no line is drawn.
    assert "gluon: 0%" in svg
    assert "NaN" not in svg


def test_an_absent_class_has_no_tooltip():
    table = charts.histogram_table(histogram(), log_y=False)
    svg = drawn(charts.histogram_chart(table.filter(pa.compute.not_equal(table["class"], "top")), "zlogz"))
    assert "gluon: 75%" in svg
    assert "NaN" not in svg


def test_the_correlations_are_drawn_with_every_name():
    rows = [{"x": a, "y": b, "r": 1.0 if a == b else None} for a in FEATURES for b in FEATURES]
    svg = drawn(charts.correlation_chart(pa.Table.from_pylist(rows), "dark"))
    assert all(svg.count(f">{name.removesuffix('_mmdt')}<") == 2 for name in FEATURES)


@pytest.mark.parametrize("label", CLASSES)
def test_the_example_jets_are_jets_within_the_cone_and_are_drawn(label):
    for jet in example_jets()[label].values():
        rows = constituent_table(jet).to_pylist()
        assert [row["grooming"] for row in rows].count(KEPT) == jet.kept >= 3
        assert {row["grooming"] for row in rows} <= {KEPT, REMOVED}
        assert max(row["dy"] ** 2 + row["dphi"] ** 2 for row in rows) ** 0.5 < RADIUS + 0.02
        assert jet.mass_mmdt_gev <= jet.mass_gev
        assert jet.pt_gev > 800
        drawn(jet_chart(constituent_table(jet), label))
        svg = drawn(mass_chart(histogram(), label, jet))
        assert "ungroomed" in svg


def test_the_masses_of_the_example_jets_are_no_less_than_their_directions_give():
    """Particles of no mass at these angles give most of a jet's mass; those of the soft hadrons add the rest."""
    for places in example_jets().values():
        for jet in places.values():
            pt, y, phi, kept = np.array(jet.constituents).T
            momenta = np.stack([pt * np.cosh(y), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(y)])
            for chosen, mass in ((kept >= 0, jet.mass_gev), (kept == 1, jet.mass_mmdt_gev)):
                energy, *momentum = momenta[:, chosen].sum(axis=1)
                found = np.sqrt(energy**2 - np.square(momentum).sum())
                assert 0.7 * mass < found < 1.01 * mass


def test_the_shipped_examples_are_those_that_the_command_makes():
    pytest.importorskip("pythia8mc")
    pytest.importorskip("fastjet")
    made = json.loads(json.dumps(simulate_examples("cernbox", 2018, ["z"])))["jets"]["z"]
    shipped = json.loads((SHIPPED / "example-jets.json").read_bytes())["jets"]["z"]
    assert made == shipped


def test_what_cannot_be_simulated_is_named(tmp_path):
    with pytest.raises(FieldError, match="seed = -1: must not be negative"):
        simulate_examples("cernbox", -1)
    with pytest.raises(FieldError, match="preset = 'atlas'"):
        simulate_examples("atlas", 1)


def test_the_recipe_of_the_examples_is_that_of_the_shipped_jets():
    made, shipped = example_recipe(), data.recipe("simulated")
    assert (made["preset"], str(made["seed"]), str(made["recipe"])) == tuple(
        shipped[key] for key in ("preset", "seed", "recipe")
    )
