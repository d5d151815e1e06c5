"""Docs: links, names, options, URL parameters and figures that they mention exist, and nothing of those is missing."""

import argparse
import re
from pathlib import Path

import pytest

from jsc_explore.cli.main import _parser
from jsc_explore.view_model import url_params

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path: path.read_text(encoding="utf-8") for path in DOCS}
IDS = [path.relative_to(ROOT).as_posix() for path in DOCS]
MAX_PICTURE_BYTES = 300_000
# How one process of the project tells another one; not for people.
INTERNAL_VARIABLES = {
    "JSC_EXPLORE_ALLOW", "JSC_EXPLORE_LAUNCH_PASSWORD_FILE", "JSC_EXPLORE_LIMITS", "JSC_EXPLORE_PRELOAD",
    "JSC_EXPLORE_READ_ONLY", "JSC_EXPLORE_STORE_ID",
}  # fmt: skip


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(path):
    """Return the anchors of a file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(path.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def pictures():
    """Return the file names that `make screenshots` writes."""
    text = (ROOT / "docs" / "screenshots.py").read_text(encoding="utf-8")
    return set(re.findall(r'"(\w+\.png)"', text))


@pytest.mark.parametrize("path", DOCS, ids=IDS)
def test_links_and_anchors_resolve(path):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(TEXTS[path])):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        is_picture = target.parent == ROOT / "docs" / "images" and target.name in pictures()
        if not (target.exists() or is_picture) or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_pictures_are_those_of_the_script_and_small():
    found = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").glob("*")}
    assert not found or found.keys() == pictures()
    assert [name for name, size in found.items() if size > MAX_PICTURE_BYTES] == []
    assert set(re.findall(r"docs/images/([\w.]+)", TEXTS[ROOT / "README.md"])) == pictures()


@pytest.mark.parametrize("path", DOCS, ids=IDS)
def test_files_and_functions_that_are_named_exist(path):
    places = (ROOT, ROOT / "jsc_explore", ROOT / "tests", ROOT / "jsc_explore" / "training", path.parent)
    missing = []
    for name, _, symbol in re.findall(r"`([\w/.-]+\.(?:py|css|toml|cpp))(::([\w.]+))?`", TEXTS[path]):
        if "NAME" in name or "/" not in name or name == ".streamlit/secrets.toml":
            continue
        files = [place / name for place in places if (place / name).exists()]
        text = files[0].read_text(encoding="utf-8") if files else ""
        parts = symbol.split(".") if symbol else []
        if not files or any(not re.search(rf"(def|class) {part}\b", text) for part in parts):
            missing.append(f"{name}::{symbol}" if symbol else name)
    assert missing == []


def commands(parser, prefix=()):
    """Yield every command as a tuple of words, with its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield (*prefix, name), sub
                yield from commands(sub, (*prefix, name))


def test_every_command_and_option_is_documented():
    everything = "\n".join(TEXTS.values())
    missing = []
    for words, parser in commands(_parser()):
        if f"`{' '.join(words)}`" not in everything and f"jsc-explore {' '.join(words)}" not in everything:
            missing.append(" ".join(words))
        for action in parser._actions:
            names = [name for name in action.option_strings if name.startswith("--") and name != "--help"]
            if action.help is not argparse.SUPPRESS:
                missing += [f"{' '.join(words)} {name}" for name in names if not re.search(rf"{name}\b", everything)]
    assert missing == []


PAGES = [name.title() for name, value in vars(url_params).items() if isinstance(value, url_params.PageParams)]


@pytest.mark.parametrize("page", PAGES)
def test_every_url_parameter_is_documented(page):
    rows = re.findall(r"^\| ([\w, ]+) \| (`.+?`) \|", TEXTS[ROOT / "docs" / "app.md"], re.M)
    documented = {name for pages, names in rows if page in pages for name in re.findall(r"`(\w+)`", names)}
    params = getattr(url_params, page.upper()).params
    cells = {url_params.CELLS} if page == "Explore" else set()
    assert documented == params.keys() | cells


def test_every_environment_variable_is_documented():
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "jsc_explore").rglob("*.py"))
    found = set(re.findall(r"JSC_EXPLORE_[A-Z_]*[A-Z]", sources)) - INTERNAL_VARIABLES
    assert found == set(re.findall(r"JSC_EXPLORE_[A-Z_]+", TEXTS[ROOT / "docs" / "command-line.md"]))


def test_the_readme_is_short_and_begins_with_a_command():
    lines = TEXTS[ROOT / "README.md"].splitlines()
    assert len(lines) <= 150
    assert any(line.startswith("make app") for line in lines[:15])


def test_figures_of_the_readme_are_those_of_the_benchmarks():
    tables = TEXTS[ROOT / "docs" / "benchmarks.md"]
    cited = re.findall(r"\| ([\d.,]+) \| \[`(\w+)`\]\(docs/benchmarks\.md#(\w+)\)", TEXTS[ROOT / "README.md"])
    assert len(cited) == 6
    for value, key, name in cited:
        table = tables.partition(f"<!-- bench {name} -->")[2].partition(f"<!-- end of bench {name} -->")[0]
        assert f"| `{key}` | {value} |" in table
