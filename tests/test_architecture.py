"""The lines of the house: who may import whom, where SQL lives, how long things may grow, what must be said."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jsc_explore"
SOURCES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "app.py"]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
MODULES = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
# torch prescribes the name and says what it does.
# Methods that a base class documents.
SAID_ELSEWHERE = {
    "forward", "said", "ready", "begin_epoch", "draw_orders", "advance", "evaluate", "logits", "select",
}  # fmt: skip
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60


def room(path):
    """Name the room a file belongs to: a folder of the package, or a file that is one by itself."""
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
    """Return the rooms in which any of these modules, or one below, is imported."""
    return {room(path) for path in SOURCES if any(_within(found, names) for found in imports(path))}


def _within(found, names):
    return any(found == name or found.startswith(f"{name}.") for name in names)


def test_the_house_is_looked_at_whole():
    rooms = {room(path) for path in SOURCES}
    assert {"config", "layers", "record", "data", "training", "store", "jobs", "charts", "views", "cli", "app"} <= rooms


def test_only_views_and_the_page_know_streamlit():
    assert importers("streamlit") == {"views", "app"}


def test_sql_lives_in_store_and_jobs_alone():
    assert importers("sqlite3", "duckdb") == {"store", "jobs"}


def test_no_room_imports_views_or_the_command_line():
    assert importers("jsc_explore.views") <= {"views", "app"}
    assert importers("jsc_explore.cli") <= {"cli", "__main__"}


def test_training_knows_neither_store_nor_jobs_nor_views():
    for name in ("store", "jobs", "views", "cli", "charts"):
        assert "training" not in importers(f"jsc_explore.{name}"), f"training imports {name}"


def test_config_store_charts_and_analysis_never_import_torch():
    assert not importers("torch", "lightning", "jsc_explore.training", "jsc_explore.models") & {
        "config", "layers", "record", "errors", "paths", "store", "charts", "analysis", "seen", "intake",
        "handout", "views", "app",
    }  # fmt: skip


LIGHT = [
    module
    for path, module in MODULES.items()
    if room(path) in ("config", "layers", "record", "store", "charts", "analysis", "seen", "intake", "handout", "views")
    or module in ("jsc_explore.jobs.queue", "jsc_explore.jobs.ask", "jsc_explore.jobs.supervise", "jsc_explore.cli")
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
    assert "jsc_explore.views.explore" in LIGHT


@pytest.mark.parametrize("path", SOURCES, ids=MODULES.get)
def test_a_file_is_one_idea(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{path.relative_to(ROOT)} has {lines} lines: two ideas"


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
                or node.name in SAID_ELSEWHERE
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
