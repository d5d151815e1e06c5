"""Architecture: which package may import which, where SQL lives, how long files and functions may be, docstrings."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest
from servers import ROOT

PACKAGE = ROOT / "jsc_explore"
SOURCES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "app.py"]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
MODULES = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
# Methods that a base class documents.
DOCUMENTED_BY_BASE = {
    "forward", "backend_name", "prepare", "begin_epoch", "draw_batch_orders", "train_chunk", "evaluate",
    "compute_logits", "select", "on_point", "on_progress", "on_finished", "cancelled_keys",
}  # fmt: skip
MAX_FILE_LINES, MAX_FUNCTION_LINES = 600, 60


# From the top down: a package imports packages below its own line only. Those of one line do not know each other.
LAYERS = (
    {"app", "__main__"},
    {"web", "cli"},
    {"export"},
    {"view_model", "validation"},
    {"charts"},
    {"analysis"},
    {"jobs"},
    {"store"},
    {"training", "importers"},
    {"results"},
    {"data"},
    {"grids"},
    {"config"},
    {"network", "processes"},
    {"errors", "files", "paths", "__init__"},
)
LEVELS = {package: level for level, packages in enumerate(LAYERS) for package in packages}
NO_TORCH = LEVELS.keys() - {"training", "jobs", "validation", "cli", "__main__"}


def package(path):
    """Name the package a file belongs to: a folder of jsc_explore, or a file that is one by itself."""
    relative = path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imports(path):
    """Return every module a file imports anywhere, as dotted names; `from a import b` counts as a and a.b."""
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: imports are absolute here"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def importers(*names):
    """Return the packages in which any of these modules, or one below, is imported."""
    return {package(path) for path in SOURCES if any(_within(found, names) for found in imports(path))}


def _within(found, names):
    return any(found == name or found.startswith(f"{name}.") for name in names)


def test_every_package_has_its_place_in_the_order():
    assert {package(path) for path in SOURCES} == LEVELS.keys()


def test_packages_import_only_what_stands_below_them():
    known = set(MODULES.values())
    upwards = [
        f"{MODULES[path]} -> {found}"
        for path in SOURCES
        for found in sorted(imports(path) & known)
        if found.count(".")
        and package(path) != found.split(".")[1]
        and LEVELS[package(path)] >= LEVELS[found.split(".")[1]]
    ]
    assert upwards == []


def test_no_modules_import_each_other_in_a_circle():
    known = set(MODULES.values())
    graph = {MODULES[path]: imports(path) & known - {MODULES[path]} for path in SOURCES}
    # `from package import module` imports the module; that it runs the package's __init__ first is no circle of ours.
    for name, found in graph.items():
        graph[name] = {other for other in found if not name.startswith(f"{other}.")}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_the_web_package_and_the_app_know_streamlit():
    assert importers("streamlit") == {"web", "app"}


def test_sql_lives_in_store_and_jobs_alone():
    assert importers("sqlite3", "duckdb") == {"store", "jobs"}


def test_the_app_and_what_it_draws_from_never_import_torch():
    assert not importers("torch", "lightning", "jsc_explore.training") & NO_TORCH
    assert importers("torch") >= {"training"}, "the test looks at nothing"


LIGHT = [
    module
    for path, module in MODULES.items()
    if package(path) in NO_TORCH - {"app", "data"}
    or module in ("jsc_explore.jobs.queue.queue", "jsc_explore.jobs.submit", "jsc_explore.jobs.engine.supervisor")
    or module == "jsc_explore.cli.main"
]


def test_what_the_page_and_the_command_line_import_leaves_torch_alone():
    """Each light module in a process of its own would take a minute; one process says which was the first to blame."""
    code = f"""
import importlib, sys
for name in {LIGHT}:
    importlib.import_module(name)
    heavy = {{"torch", "lightning", "distributed"}} & set(sys.modules)
    if heavy:
        sys.exit(f"importing {{name}} pulls in {{heavy}}")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    assert {"jsc_explore.web.pages.explore", "jsc_explore.cli.main", "jsc_explore.store.store"} <= set(LIGHT)


def test_hashed_sources_cover_what_is_compiled_and_what_trains():
    """A digest that misses a file lets a stale kernel, or a worker with other code, go unnoticed."""
    from jsc_explore.jobs.cluster import code_version
    from jsc_explore.training.backends.cpu import kernel

    folder = PACKAGE / "training" / "backends" / "cpu"
    reached, left = set(), [folder / "kernel.py"]
    while left:
        path = left.pop()
        reached.add(path.name)
        prefix = "jsc_explore.training.backends.cpu."
        names = {found.removeprefix(prefix).split(".")[0] for found in imports(path) if found.startswith(prefix)}
        left += [folder / f"{name}.py" for name in names if f"{name}.py" not in reached]
    assert set(kernel.SOURCES) == reached
    hashed = {path.relative_to(PACKAGE).as_posix() for path in code_version.source_files()}
    training = {path.relative_to(PACKAGE).as_posix() for path in SOURCES if package(path) in ("training", "data")}
    assert training | {"config.py", "network.py", "results.py", "jobs/worker.py", "jobs/cluster/worker.py"} <= hashed


@pytest.mark.parametrize("path", SOURCES, ids=MODULES.get)
def test_no_file_is_too_long(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{path.relative_to(ROOT)} has {lines} lines"


def test_functions_fit_a_screen():
    long = [
        f"{MODULES[path]}.{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in SOURCES
        for node in ast.walk(TREES[path])
        if isinstance(node, FUNCTIONS) and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert long == []


def test_no_module_is_a_drawer_for_everything():
    parts = {part for module in MODULES.values() for part in module.split(".")}
    assert not parts & {"utils", "util", "helpers", "common", "misc", "manager", "managers"}


def undocumented(path):
    """Return what is public in a file and says nothing of itself, methods of public classes included."""

    def visit(body, prefix):
        for node in body:
            if (
                not isinstance(node, FUNCTIONS | ast.ClassDef)
                or node.name.startswith("_")
                or node.name in DOCUMENTED_BY_BASE
            ):
                continue
            name = f"{prefix}.{node.name}"
            if ast.get_docstring(node) is None:
                yield name
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, name)

    return list(visit(TREES[path].body, MODULES[path]))


def test_whatever_is_public_says_what_it_does():
    assert [name for path in SOURCES for name in undocumented(path)] == []


def test_each_file_says_in_its_first_line_what_it_is_for():
    assert [MODULES[path] for path in SOURCES if not ast.get_docstring(TREES[path])] == []
