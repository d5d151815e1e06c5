"""Importers: event files and tables, valid, truncated, damaged and hostile; and the store of imported runs."""

import csv
import io
import struct
import warnings
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import ROOT

from jsc_explore.cli import main
from jsc_explore.errors import FieldError, JscError
from jsc_explore.export.chart_files import table_bytes
from jsc_explore.importers.checked_series import LoggedValue, checked_curve
from jsc_explore.importers.csv_table import read_table
from jsc_explore.importers.hparams import read_hparams
from jsc_explore.importers.imported_run import hyperparameters
from jsc_explore.importers.tensorboard import find_runs, read_run
from jsc_explore.store import Store
from jsc_explore.store.imported_runs import ImportedRuns
from jsc_explore.view_model.tables import points_table

TAGS = {"train_acc_step": 0.5, "train_loss_step": 1.25}


def write_events(folder, epochs=3, steps=20, every=5, test=True, hparams="batch_size: 50\nlearning_rate: 0.01\n"):
    """Write what the lab's harness leaves behind, with a real writer: Lightning's tags, steps and epochs from zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboardX import SummaryWriter
    writer = SummaryWriter(str(folder), write_to_disk=True)
    for step in range(epochs * steps):
        epoch = step // steps
        if (step + 1) % every == 0:
            for tag, value in TAGS.items():
                writer.add_scalar(tag, value + step / 1000, step, walltime=1e9 + step)
            writer.add_scalar("epoch", epoch, step, walltime=1e9 + step)
        if (step + 1) % steps == 0:
            writer.add_scalar("val_acc_epoch", 0.5 + epoch / 10, step, walltime=1e9 + step)
            writer.add_scalar("val_loss_epoch", 1.0, step, walltime=1e9 + step)
            writer.add_scalar("epoch", epoch, step, walltime=1e9 + step)
    if test:
        writer.add_scalar("test_acc_epoch", 0.6875, epochs * steps, walltime=2e9)
    writer.close()
    if hparams is not None:
        (folder / "hparams.yaml").write_text(hparams)
    return next(folder.glob("*tfevents*"))


def only(directory):
    (found,) = find_runs(directory)[0].items()
    return read_run(*found)


# ---- event files


def test_the_labs_event_files_become_a_curve(tmp_path):
    write_events(tmp_path / "lightning_logs" / "version_0")
    run = only(tmp_path)
    assert run.name == "lightning_logs/version_0"
    assert run.fields == {"batch_size": 50, "learning_rate": 0.01}
    assert run.notes == []
    assert run.test_acc == 0.6875
    assert [point["step"] for point in run.points] == list(range(5, 61, 5))
    assert [point["epoch"] for point in run.points] == [step / 20 for step in range(5, 61, 5)]
    assert [point["samples"] for point in run.points[:2]] == [250, 500]
    assert [point["val_acc"] for point in run.points if point["val_acc"]] == pytest.approx([0.5, 0.6, 0.7])
    assert run.points[0]["train_acc"] == pytest.approx(0.504)
    assert run.points[-1]["time_s"] == 55


def test_lightnings_own_logger_is_read_alike(tmp_path):
    """The real thing: Lightning's Trainer, its TensorBoard logger and its CSV logger, one after the other."""
    torch = pytest.importorskip("torch")
    warnings.simplefilter("ignore")
    import lightning
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    class Module(lightning.LightningModule):
        def __init__(self, learning_rate=1e-2, batch_size=50, epochs=2, optimizer="adam"):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(4, 2)

        def training_step(self, batch, batch_idx):
            loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
            self.log("train_loss_step", loss)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val_acc_epoch", (self.layer(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)

    x = torch.randn(500, 4)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long()), batch_size=50)
    trainer = lightning.Trainer(
        max_epochs=2, logger=[TensorBoardLogger(tmp_path / "events"), CSVLogger(tmp_path / "table")],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False, log_every_n_steps=5,
        accelerator="cpu",
    )  # fmt: skip
    trainer.fit(Module(), loader, loader)
    run = only(tmp_path / "events")
    assert run.fields == {"batch_size": 50, "learning_rate": 0.01, "max_epochs": 2, "optimizer": "adam"}
    assert [(point["step"], point["epoch"]) for point in run.points] == [(5, 0.5), (10, 1.0), (15, 1.5), (20, 2.0)]
    (read,) = read_table(next((tmp_path / "table").rglob("metrics.csv")))
    table = read()
    assert table.fields == run.fields
    names = ("step", "epoch", "train_loss", "val_acc", "samples")
    for ours, theirs in zip(table.points, run.points, strict=True):
        assert [ours[name] for name in names] == pytest.approx([theirs[name] for name in names])


def test_a_truncated_file_is_read_up_to_the_end_with_a_note(tmp_path):
    path = write_events(tmp_path / "version_0", test=False)
    whole = len(only(tmp_path).points)
    content = path.read_bytes()
    for cut in (len(content) - 1, len(content) - 30, len(content) // 2):
        path.write_bytes(content[:cut])
        run = only(tmp_path)
        assert 0 < len(run.points) <= whole
        assert "is truncated: read up to there" in run.notes[0]
    assert len(run.points) < whole


def test_a_damaged_record_ends_the_reading_with_a_note(tmp_path):
    path = write_events(tmp_path / "version_0")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "is damaged: read up to there" in only(tmp_path).notes[0]


@settings(deadline=None)  # the first example imports protobuf
@given(st.binary(max_size=300), st.integers(0, 2000))
def test_no_file_content_raises_an_unexpected_error(content, place):
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_events(folder / "version_0", epochs=1)
        whole = path.read_bytes()
        place = min(place, len(whole))
        path.write_bytes(whole[:place] + content + whole[place:])
        try:
            run = only(folder)
        except JscError:
            return
        assert run.points or run.notes


def test_a_record_length_above_the_limit_is_refused(tmp_path):
    import google_crc32c

    path = write_events(tmp_path / "version_0")
    head = struct.pack("<Q", 2**62)
    checksum = google_crc32c.value(head)
    masked = (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    path.write_bytes(path.read_bytes() + head + struct.pack("<I", masked))
    assert "has a record of more than 64 MB" in only(tmp_path).notes[0]


def test_a_folder_without_known_tags_says_which_it_has(tmp_path):
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(tmp_path / "run"), write_to_disk=True) as writer:
        writer.add_scalar("reward", 1.0, 1)
    with pytest.raises(FieldError, match="its tags: reward"):
        only(tmp_path)


def test_a_directory_without_event_files_is_refused(tmp_path):
    with pytest.raises(FieldError, match="contains no event file"):
        find_runs(tmp_path)
    with pytest.raises(FieldError, match="is not a directory"):
        find_runs(tmp_path / "nowhere")


def test_links_are_not_followed(tmp_path):
    real = write_events(tmp_path / "elsewhere" / "version_0")
    (tmp_path / "logs" / "version_1").mkdir(parents=True)
    (tmp_path / "logs" / "version_1" / real.name).symlink_to(real)
    with pytest.raises(FieldError, match="contains no event file"):
        find_runs(tmp_path / "logs")


# ---- hyperparameters


def test_objects_in_hparams_are_never_made(tmp_path):
    trap = tmp_path / "trap"
    path = tmp_path / "hparams.yaml"
    path.write_text(
        f"learning_rate: 0.001\nmodel: !!python/object:torch.nn.Linear\n  weight: 3\n"
        f"trap: !!python/object/apply:os.system ['touch {trap}']\nkind: !!python/name:os.system ''\n"
        "optimizer: {name: Adam, lr: 1e-3}\nlayers: [16, 5]\n"
    )
    found, note = read_hparams(path)
    assert not trap.exists()
    assert note == ""
    assert found["learning_rate"] == 0.001
    assert found["model"] == "torch.nn.Linear"
    assert found["trap"] == "os.system"
    assert found["optimizer.name"] == "Adam"
    assert found["layers"] == "16, 5"


def test_hparams_that_refer_to_themselves_without_end_are_cut(tmp_path):
    path = tmp_path / "hparams.yaml"
    lines = ["a0: &a0 {x: 1}"] + [
        f"a{i}: &a{i} {{{', '.join(f'k{j}: *a{i - 1}' for j in range(20))}}}" for i in range(1, 12)
    ]
    path.write_text("\n".join(lines))
    found, note = read_hparams(path)
    assert len(found) <= 400
    assert "the rest is skipped" in note
    path.write_text("[" * 100_000)
    assert "cannot be read" in read_hparams(path)[1]
    path.write_text("- a\n- b\n")
    assert "does not contain names" in read_hparams(path)[1]


def test_aliases_of_hyperparameters_are_known_and_others_are_kept_as_text():
    fields, other, notes = hyperparameters(
        {"lr": "1e-3", "optimizer.name": "x", "Optim": "Adam", "bs": 64, "seed": "many", "gpu": "a100", "epochs": 5}
    )
    assert fields == {"learning_rate": 1e-3, "optimizer": "adam", "batch_size": 64, "max_epochs": 5}
    assert other == {"optimizer.name": "x", "seed": "many", "gpu": "a100"}
    assert notes == []


def test_values_that_are_not_finite_are_left_out_and_counted():
    nan, inf = float("nan"), float("inf")
    curve = checked_curve(
        "a", {"val_loss": [LoggedValue(1, 0.0, 1.0), LoggedValue(2, 0.0, nan), LoggedValue(3, 0.0, inf)]}
    )
    assert [point["step"] for point in curve.points] == [1]
    assert curve.notes == ["2 values are not finite and are left out"]


# ---- tables


def table(tmp_path, text, name="runs.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return [read() for read in read_table(path)]


def test_a_table_is_read_by_the_names_of_this_project(tmp_path):
    first, second = table(
        tmp_path,
        "run;epoch;val_acc;learning_rate;batch_size;gpu;test_acc\nA;1;0.5;1e-3;64;a100;\nA;2;0.6;1e-3;64;a100;0.55\n"
        "B;1;0.4;1e-2;64;h100;\n",
    )
    assert (first.name, second.name) == ("A", "B")
    assert first.fields == {"learning_rate": 1e-3, "batch_size": 64}
    assert first.other == {"gpu": "a100"}
    assert first.test_acc == 0.55
    assert [(point["epoch"], point["val_acc"]) for point in first.points] == [(1, 0.5), (2, 0.6)]
    assert first.sha256 != second.sha256


def test_a_rate_that_changes_is_a_curve_and_no_hyperparameter(tmp_path):
    (run,) = table(tmp_path, "step,val_loss,learning_rate\n1,0.5,1e-3\n2,0.4,1e-4\n")
    assert run.fields == {}
    assert [point["learning_rate"] for point in run.points] == [1e-3, 1e-4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "contain neither step nor epoch"),
        ("step,b\n1,2\n", "contain no quantity of a curve"),
        ("step,val_acc\n1,0.5\n2,x\n", "line 3, column val_acc = 'x': must be a number"),
        ("step;val_acc\n1;0,5\n", "use a decimal point: 0.713"),
        ("step,val_acc\n1,71.3\n", "line 2, column val_acc = '71.3': must be a share in [0, 1]"),
        ("step,val_acc\n1.5,0.5\n", "line 2, column step = '1.5': must be a whole number"),
        ("step,val_acc\n-1,0.5\n", "must not be negative"),
        ("step,val_acc\n1\n", "line 2 = '1': has 1 values for 2 columns"),
        ("step,epoch,val_acc\n,,0.5\n", "line 2 = '': has neither step nor epoch"),
        ("step,val_acc,batch_size\n1,0.5,64\n2,0.6,32\n", "line 3, column batch_size = '32': changes within a run"),
        ("step,val_acc,batch_size\n1,0.5,many\n", "line 2, column batch_size = 'many': must be a whole number"),
        ("step,val_acc,val_acc\n1,0.5,0.5\n", "appears twice"),
        ("step,val_acc\n", "has no row"),
        ('step,val_acc\n1,"0.5\n', "is not a valid CSV line"),
        ("", "contain neither step nor epoch"),
    ],
)
def test_an_error_in_a_table_names_line_and_column(tmp_path, text, said):
    with pytest.raises(FieldError) as refused:
        table(tmp_path, text)
    assert said in str(refused.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"step,val_acc\n1,\xff\xfe")
    with pytest.raises(FieldError, match="is not UTF-8 text"):
        read_table(tmp_path / "x.csv")
    with pytest.raises(FieldError, match="is not a file"):
        read_table(tmp_path)


def test_an_exported_table_is_imported_unchanged(tmp_path):
    store = Store(tmp_path / "store", ROOT / "results.parquet")
    ids = store.runs({"batch_size": [256], "model": ["jsc-tiny"]}, ("run_id",))["run_id"].to_pylist()[:3]
    (tmp_path / "curve_points.csv").write_bytes(table_bytes(points_table(store, ids), "csv"))
    runs = {run.name: run for run in (read() for read in read_table(tmp_path / "curve_points.csv"))}
    assert sorted(runs) == sorted(ids)
    for run_id, run in runs.items():
        record = store.record(run_id)
        assert run.points == record.outcome.points
        assert run.fields == record.config
        assert run.test_acc == record.outcome.test_acc
    store.close()


@given(st.lists(st.lists(st.text(max_size=8), max_size=4), max_size=6))
def test_no_table_raises_an_unexpected_error(rows):
    import tempfile

    text = io.StringIO()
    csv.writer(text).writerows([["step", "val_acc", "batch_size", "x"], *rows])
    with tempfile.TemporaryDirectory() as name:
        try:
            table(Path(name), text.getvalue().encode("utf-8", "replace").decode())
        except FieldError:
            return


# ---- the store of imported runs


def test_a_run_is_stored_once_and_under_a_unique_name(tmp_path):
    write_events(tmp_path / "a" / "version_0")
    write_events(tmp_path / "b" / "version_0", epochs=2)
    kept = ImportedRuns(tmp_path / "store")
    first = kept.add(only(tmp_path / "a"))
    assert kept.add(only(tmp_path / "a")) == first
    second = kept.add(only(tmp_path / "b"))
    assert (first.name, second.name) == ("version_0", "version_0 (2)")
    assert [run.name for run in ImportedRuns(tmp_path / "store").all()] == ["version_0", "version_0 (2)"]
    assert ImportedRuns(tmp_path / "store").all()[0] == first
    kept.remove("version_0")
    assert [run.name for run in kept.all()] == ["version_0 (2)"]
    with pytest.raises(FieldError, match="is no imported run"):
        kept.remove("version_0")


def test_names_never_become_paths(tmp_path):
    (run,) = table(tmp_path, 'run,step,val_acc\n"../../etc/passwd~\x00",1,0.5\n')
    kept = ImportedRuns(tmp_path / "store")
    name = kept.add(run).name
    assert name == "../../etc/passwd__"
    assert {path.parent for path in tmp_path.rglob("*.parquet")} == {tmp_path / "store" / "imported"}
    kept.remove(name)
    assert list(tmp_path.rglob("*.parquet")) == []


def test_no_path_of_the_machine_is_stored(tmp_path):
    path = write_events(tmp_path / "very secret folder" / "version_0")
    kept = ImportedRuns(tmp_path / "store")
    run = kept.add(only(tmp_path / "very secret folder"))
    assert run.source == path.name
    (file,) = (tmp_path / "store").rglob("*.parquet")
    assert "secret" not in str(pq.read_table(file).to_pylist())


def test_an_unreadable_file_is_skipped_and_reported(tmp_path):
    kept = ImportedRuns(tmp_path / "store")
    write_events(tmp_path / "a" / "version_0")
    kept.add(only(tmp_path / "a"))
    (tmp_path / "store" / "imported" / f"{7:064x}.parquet").write_bytes(b"no parquet")
    again = ImportedRuns(tmp_path / "store")
    assert len(again.all()) == 1
    assert f"{7:064x}.parquet: cannot be read" in again.problems[0]


def test_imported_runs_are_no_runs_of_the_store(tmp_path):
    write_events(tmp_path / "a" / "version_0")
    ImportedRuns(tmp_path / "store").add(only(tmp_path / "a"))
    store = Store(tmp_path / "store")
    assert store.runs().num_rows == 0
    store.close()


# ---- the command line


def command(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main.main(["import", *map(str, arguments)])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_the_command_imports_lists_and_removes(tmp_path, capsys):
    for i in range(2):
        write_events(tmp_path / "logs" / f"version_{i}", epochs=i + 1)
    (tmp_path / "logs" / "version_2").mkdir()
    (tmp_path / "logs" / "version_2" / "events.out.tfevents.1").write_bytes(b"")
    store = ("--store", tmp_path / "store")
    code, out, err = command(capsys, "tensorboard", tmp_path / "logs", *store)
    assert code == 1
    assert out.splitlines()[0] == "version_0: imported, 4 points, val 50.0%, test 68.8%"
    assert "version_2" in err
    assert "has no tag" in err
    code, out, _ = command(capsys, "tensorboard", tmp_path / "logs", *store)
    assert "version_1: was imported already" in out
    code, out, _ = command(capsys, *store)
    assert code == 0
    assert out.splitlines()[1] == "version_1  8 points, val 60.0%, test 68.8%  batch_size=50 learning_rate=1e-2"
    with pytest.raises(SystemExit):
        main.main(["list", "--json", *map(str, store)])
    listed = capsys.readouterr()
    assert "imported runs: 2" in listed.err
    assert "version_" not in listed.out
    assert command(capsys, "--remove", "version_1", *store)[:2] == (0, "version_1 removed\n")
    assert len(command(capsys, *store)[1].splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["excel", "x"], "must be one of tensorboard, csv"),
        (["csv"], "source = '': is missing"),
        (["csv", "nowhere.csv"], "is not a file"),
        (["csv", "x.csv", "--remove", "A"], "cannot be combined with"),
        (["--remove", "A"], "is no imported run"),
    ],
)
def test_bad_commands_are_one_line(tmp_path, capsys, arguments, said):
    code, out, err = command(capsys, *arguments, "--store", tmp_path / "store")
    assert code == 2
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
