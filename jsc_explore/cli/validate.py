"""Command ``data validate``: compare a sample of jets with real ones, as a table, plots and a verdict."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jsc_explore import data
from jsc_explore.cli.options import add_command
from jsc_explore.data.external import ExternalJets, read_jets
from jsc_explore.data.jets import CLASSES, FEATURES, Jets
from jsc_explore.data.sources import find_source, is_user_sample
from jsc_explore.errors import DataError, FieldError

if TYPE_CHECKING:
    from jsc_explore.validation.report import Report

KINDS = ("real", "simulated")
# For samples of one distribution, the largest Kolmogorov statistic of all 96 comparisons is below this in 99% of cases.
MAX_CHANCE_STATISTIC = 2.2


def add_commands(actions: Any) -> None:
    """Add ``data validate``."""
    parser = add_command(actions, "validate", validate)
    parser.add_argument("source", metavar="SOURCE", help=", ".join(data.names()))
    parser.add_argument(
        "--against", metavar="FILE", help="a Parquet file of jets in original units or on levels, or another source"
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        help="whether the jets of FILE are real (default) or simulated, which sets the bound on the AUC",
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write plots (SVG), features.csv and report.json")


def validate(options: argparse.Namespace) -> int:
    """Compare a sample with published statistics, and with other jets; exit 1 if a figure is outside our bounds."""
    find_source(options.source)
    other, against, kind = _reference(options)
    if options.out is not None:
        _check_writable(options.out)
    jets = data.load(options.source)

    from jsc_explore.validation.report import check_sample, preset_of

    report = check_sample(jets, preset_of(options.source), other, against=against, kind=kind, log=_log)
    if options.out is not None:
        _write(options.out, report, jets, other)
    print(json.dumps(report.to_dict()) if options.json else "\n".join(_lines(report)))
    return 1 if report.passed is False else 0


def _log(line: str) -> None:
    print(f"{line} …", file=sys.stderr)


def _reference(options: argparse.Namespace) -> tuple[ExternalJets | None, str | None, str | None]:
    if options.against is None:
        if options.kind is not None:
            raise FieldError("kind", options.kind, "describes the jets of --against", "add --against FILE")
        return None, None, None
    if options.against in data.SOURCES or is_user_sample(options.against):
        jets = data.load(options.against)
        simulated = options.against.startswith("simulated")
        return ExternalJets(jets.features, jets.labels, False), jets.name, KINDS[simulated]
    path = Path(options.against)
    return read_jets(path), path.name, options.kind or KINDS[0]


# ---- text


def _lines(report: Report) -> Iterator[str]:
    preset = f", preset {report.preset}" if report.preset else ""
    yield f"{report.source}: {report.jets:,} jets{preset}, digest {report.digest[:12]}"
    yield ""
    yield from _table(report)
    yield from _discriminator(report)
    yield from _accuracies(report)
    yield from _verdict(report)


def _table(report: Report) -> Iterator[str]:
    """Yield a row per feature: mean and standard deviation of all jets, and the distances by class."""
    from jsc_explore.data.reference import reference

    compared = {(row["feature"], row["class"]): row for row in report.features}
    if compared:
        kinds = ("all", *CLASSES)
        yield f"Kolmogorov-Smirnov distances to {report.against} ({report.kind}), all classes and each"
        yield _header("reference", *kinds)
        for name in FEATURES:
            figures = [compared[name, kind]["ks"] for kind in kinds]
            yield _row(name, compared[name, "all"], figures)
        yield ""
    variation = {(row["feature"], row["class"]): row["total_variation"] for row in report.levels}
    yield "KS: Kolmogorov-Smirnov distance to the quantiles of OpenML; g to t: total variation to the levels of CERNBox"
    yield _header("OpenML", "KS", *CLASSES)
    for row in report.quantiles:
        name = row["feature"]
        yield _row(name, row, [row["ks"], *(variation[name, kind] for kind in CLASSES)])
    columns = [[variation[name, kind] for name in FEATURES] for kind in CLASSES]
    means = [float(np.mean(column)) for column in ([row["ks"] for row in report.quantiles], *columns)]
    yield f"{'mean':58}" + "".join(f"{value:7.3f}" for value in means)
    yield from (f"{name}: {text}" for name, text in reference().sources.items())
    yield ""


def _header(reference: str, *columns: str) -> str:
    moments = "".join(f" {name:>10}" for name in ("mean", reference, "sd", reference))
    return f"{'':14}{moments}" + "".join(f"{name:>7}" for name in columns)


def _row(name: str, row: dict[str, Any], figures: list[float]) -> str:
    moments = "".join(f" {row[key]:10.4g}" for key in ("mean", "reference_mean", "sd", "reference_sd"))
    return f"{name:14}{moments}" + "".join(f"{figure:7.3f}" for figure in figures)


def _discriminator(report: Report) -> Iterator[str]:
    found = report.discriminator
    if found is None:
        return
    if report.is_recorded:
        yield f"recorded when these jets were made, against {report.against} ({report.kind})"
    yield f"discriminator (gradient boosting, five folds, {found.jets:,} jets of the smaller set): AUC given the class"
    pairs = zip(CLASSES, found.auc, found.error, strict=True)
    yield "  " + "   ".join(f"{name} {auc:.3f} ± {error:.3f}" for name, auc, error in pairs)
    yield f"  mean {found.mean:.3f} ± {found.mean_error:.3f}  (standard error after DeLong)"
    ranked = sorted(found.importance.items(), key=lambda item: -item[1])[:3]
    if found.mean > 0.5 + 2 * found.mean_error:
        yield "  most important features: " + ", ".join(
            f"{name} (AUC falls by {fall:.3f} when permuted)" for name, fall in ranked
        )
    yield ""


def _accuracies(report: Report) -> Iterator[str]:
    if not report.accuracy:
        return
    yield "accuracy of a 16-64-32-32-5 network (three seeds, no final ReLU; binomial error)"
    for row in report.accuracy:
        figure = f"{100 * row['accuracy']:.1f} ± {100 * row['error']:.1f}%"
        yield f"  trained on {row['trained_on']:9}  tested on {row['tested_on']:9}  {figure}  ({row['jets']:,} jets)"
    yield ""


def _verdict(report: Report) -> Iterator[str]:
    for one in report.criteria:
        error = f" ± {one.error:.3f}" if one.error is not None else ""
        worst = f" ({one.worst})" if one.worst else ""
        figure = f"{one.description}{worst}: {one.value:.3f}{error} ({one.relation} {one.bound})"
        if one.passed is None:
            yield f"----  {figure}: no verdict with fewer than {one.min_jets:,} jets"
        else:
            yield f"{'PASS' if one.passed else 'FAIL'}  {figure}"
    if report.passed is None:
        yield f"{report.source} has no verdict: no bound applies; compare it with other jets, --against FILE"
    elif report.passed:
        yield f"{report.source} is within our bounds"
    else:
        yield f"{report.source} is outside our bounds; largest difference: {_worst(report)}"


def _worst(report: Report) -> str:
    """Return the feature that differs most, or, if none does significantly, the discriminator's most important one."""
    if not report.features:
        level = max(report.levels, key=lambda row: row["total_variation"])
        quantile = max(report.quantiles, key=lambda row: row["ks"])
        if report.preset == "openml":
            return f"{quantile['feature']} (KS {quantile['ks']:.3f})"
        return f"{level['feature']} of class {level['class']} (total variation {level['total_variation']:.3f})"
    row = max(report.features, key=_kolmogorov_statistic)
    found = report.discriminator
    if _kolmogorov_statistic(row) < MAX_CHANCE_STATISTIC and found is not None:
        return f"{max(found.importance, key=lambda name: found.importance[name])} in its relation to other features"
    which = "all classes" if row["class"] == "all" else f"class {row['class']}"
    return f"{row['feature']} of {which} (KS {row['ks']:.3f})"


def _kolmogorov_statistic(row: dict[str, Any]) -> float:
    """Return the distance in units of its chance value: below 1.6 in 99% of comparisons of equal distributions."""
    n, m = row["jets"], row["reference_jets"]
    return float(row["ks"] * np.sqrt(n * m / (n + m)))


# ---- files


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}; choose another directory with --out") from error


def _write(folder: Path, report: Report, jets: Jets, other: ExternalJets | None) -> None:
    from jsc_explore.charts.distributions import distance_chart
    from jsc_explore.validation.plots import feature_charts

    _log(f"drawing into {folder}")
    (folder / "report.json").write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    rows = report.features or report.quantiles
    with (folder / "features.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    if report.features:
        distance_chart(report.features, "ks", "Kolmogorov-Smirnov distance").save(folder / "distances.svg")
    distance_chart(report.levels, "total_variation", "total variation to CERNBox's levels").save(folder / "levels.svg")
    for name, chart in feature_charts(jets, other, report.source, report.against):
        chart.save(folder / f"{name}.svg")
