"""The commands that README and docs show run: on a small store, with the files that they name."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from jsc_explore.cli.main import main

ROOT = Path(__file__).parents[2]
# Servers that run until they are stopped (browser tests start them), downloads, and what takes minutes.
NOT_RUN = ("app", "engine", "data fetch", "data simulate", "data validate", "data example-jets", "precompile",
           "train --dataset simulated-openml")  # fmt: skip
EXAMPLE_ID = "4f1c"


def shown_commands():
    """Return every `jsc-explore` line of a shell block, once, in the order in which a reader meets it."""
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
            found += [line for line in block.splitlines() if line.startswith("jsc-explore ")]
    return list(dict.fromkeys(re.sub(r"\s+#.*", "", line) for line in found))


COMMANDS = [line for line in shown_commands() if not line.startswith(tuple(f"jsc-explore {one}" for one in NOT_RUN))]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a store of one trained run, and every file that the shown commands name."""
    from tensorboardX import SummaryWriter

    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JSC_EXPLORE_STORE", str(folder / "store"))
        patch.chdir(folder)
        with pytest.raises(SystemExit, match="0"):
            main(["train", "--max-epochs", "1", "--batch-size", "4096", "--seed", "77"])
    shutil.copytree(ROOT / "grids", folder / "grids")
    shutil.copytree(folder / "store", folder / "other-store", ignore=shutil.ignore_patterns("*.lock", "queue*"))
    shutil.copy(ROOT / "results.parquet", folder / "their-results.parquet")
    (folder / "log.csv").write_text("step,val/top1\n10,0.5\n20,0.6\n")
    (folder / "runs.csv").write_text("run,step,val_acc\nmine,10,0.5\nmine,20,0.6\n")
    for version in ("version_0", "version_1"):
        writer = SummaryWriter(str(folder / "mase_output" / "lightning_logs" / version))
        for step in (10, 20):
            writer.add_scalar("val_acc", 0.5 + int(version[-1]) / 10 + step / 1000, step)
        writer.close()
    return folder


def run(line, folder, monkeypatch, capsys):
    """Run a shown command in the folder, with the id of the trained run for that of the example; return its code."""
    monkeypatch.setenv("JSC_EXPLORE_STORE", str(folder / "store"))
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit):
        main(["list", "--batch-size", "4096", "--seed", "77"])
    run_id = capsys.readouterr().out.splitlines()[1].split()[0]
    words = [run_id if word == EXAMPLE_ID else word for word in shlex.split(line)[1:]]
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code, capsys.readouterr()


def test_there_are_commands_of_every_kind():
    assert {line.split()[1] for line in COMMANDS} == {
        "train", "sweep", "list", "curve", "export", "import", "publish", "verify", "compact", "merge",
    }  # fmt: skip


@pytest.mark.parametrize("line", COMMANDS)
def test_a_shown_command_runs(line, project, monkeypatch, capsys):
    code, output = run(line, project, monkeypatch, capsys)
    assert code == 0, output.err
    assert output.out or output.err
