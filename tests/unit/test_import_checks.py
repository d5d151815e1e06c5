"""Runs of other programs are read right, or it is said why not: one test for each kind of fault people reported."""

import gzip
import struct
import warnings

import pyarrow as pa
import pytest

from jsc_explore.cli import main
from jsc_explore.errors import FieldError
from jsc_explore.export.chart_files import table_bytes
from jsc_explore.importers.csv_table import read_table
from jsc_explore.importers.hparams import read_hparams
from jsc_explore.importers.imported_run import hyperparameters
from jsc_explore.importers.names import check_mapping, quantity_of
from jsc_explore.importers.tensorboard import find_runs, read_run
from jsc_explore.store.imported_runs import ImportedRuns


def write(folder, *values, name="events.out.tfevents.1700000000.h.1.0"):
    """Write an event file of (step, tag, value), or (step, tag, value, time), one event each."""
    import google_crc32c

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboardX.proto.event_pb2 import Event

    def masked(content):
        checksum = google_crc32c.value(content)
        return struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("wb") as file:
        for step, tag, value, *time in values:
            event = Event(step=step, wall_time=time[0] if time else 1e9 + step)
            one = event.summary.value.add(tag=tag)
            if isinstance(value, (int, float)):
                one.simple_value = value
            else:
                value(one)
            content = event.SerializeToString()
            head = struct.pack("<Q", len(content))
            file.write(head + masked(head) + content + masked(content))
    return folder / name


def read(directory, **options):
    ((name, files),) = find_runs(directory)[0].items()
    return read_run(name, files, **options)


def read_csv(tmp_path, text, name="runs.csv", **options):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    (one,) = read_table(path, **options)
    return one()


def command(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main.main(["import", *map(str, arguments)])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def curve(run, quantity, x="step"):
    return [(point[x], point[quantity]) for point in run.points if point[quantity] is not None]


# ---- steps


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((1_700_000_000_000_000_000, 1_700_000_001_000_000_000), "a time rather than a step"),
        ((-3, 1), "not be negative"),
    ],
)
def test_a_run_with_impossible_steps_is_refused_and_the_others_are_kept(tmp_path, capsys, steps, said):
    write(tmp_path / "logs" / "bad", *((step, "val_acc", 0.5) for step in steps))
    (tmp_path / "logs" / "bad" / "hparams.yaml").write_text("batch_size: 64\n")
    write(tmp_path / "logs" / "good", (1, "val_acc", 0.5))
    code, out, err = command(capsys, "tensorboard", tmp_path / "logs", "--store", tmp_path / "store")
    assert code == 1
    assert out.startswith("good: imported")
    assert said in err
    assert err.count("\n") == 1
    text = "run,step,val_acc\n" + "".join(f"bad,{step},0.5\n" for step in steps) + "fine,1,0.5\n"
    (tmp_path / "a.csv").write_text(text)
    code, out, err = command(capsys, "csv", tmp_path / "a.csv", "--store", tmp_path / "store")
    assert code == 1
    assert out.startswith("fine: imported")
    assert f"line 2, column step = '{steps[0]}'" in err
    assert said in err


def test_what_a_restart_abandoned_is_left_out_with_a_note(tmp_path):
    tags = ("train_loss", "val_acc")
    write(tmp_path / "r", *((step, tag, 0.5) for step in range(10, 81, 10) for tag in tags))
    write(tmp_path / "r", *((step, tag, 0.25, 1e9 + 500 + step) for step in range(55, 96, 10) for tag in tags),
          name="events.out.tfevents.1700000500.h.2.0")  # fmt: skip
    run = read(tmp_path)
    assert [point["step"] for point in run.points] == [10, 20, 30, 40, 50, 55, 65, 75, 85, 95]
    assert run.notes == ["the run was resumed at step 55: 6 values of the abandoned trail are left out"]


def test_a_restart_leaves_out_the_abandoned_values_of_tags_that_it_has_not_logged_yet(tmp_path):
    values = [(10, "train_loss", 1.0), (20, "train_loss", 0.9), (30, "val_acc", 0.5), (40, "train_loss", 0.8)]
    write(tmp_path / "r", *values, (30, "train_loss", 0.7))
    run = read(tmp_path)
    assert curve(run, "val_acc") == []
    assert [step for step, _ in curve(run, "train_loss")] == [10, 20, 30]


def test_a_table_in_another_order_is_sorted_and_a_resumed_one_is_purged(tmp_path):
    run = read_csv(tmp_path, "step,val_acc\n" + "".join(f"{step},0.5\n" for step in (40, 30, 20, 10)))
    assert [point["step"] for point in run.points] == [10, 20, 30, 40]
    assert run.notes == ["the rows are not in the order of their steps: they are sorted"]
    steps = [10, 20, 30, 40, 50, 60, 35, 45, 55]
    run = read_csv(tmp_path, "step,val_acc\n" + "".join(f"{step},0.5\n" for step in steps))
    assert [point["step"] for point in run.points] == [10, 20, 30, 35, 45, 55]
    assert "resumed at step 35" in run.notes[0]


def test_a_clock_that_goes_back_leaves_the_times_out(tmp_path):
    write(tmp_path / "r", (1, "val_acc", 0.5, 1000.0), (2, "val_acc", 0.5, 900.0))
    run = read(tmp_path)
    assert [point["time_s"] for point in run.points] == [None, None]
    assert run.notes == ["the clock goes back at step 2: times are left out"]


# ---- values


def test_accuracies_in_percent_are_refused_and_rounding_passes(tmp_path):
    write(tmp_path / "a" / "p", (1, "val_acc", 51.0))
    with pytest.raises(FieldError, match=r"run p, tag val_acc = '51': must be a share in \[0, 1\]; write 0.713"):
        read(tmp_path / "a")
    write(tmp_path / "b" / "p", (1, "val_acc", 1.0000001))
    assert curve(read(tmp_path / "b"), "val_acc") == [(1, 1.0)]
    assert curve(read_csv(tmp_path, "step,val_acc\n1,1.0000001\n"), "val_acc") == [(1, 1.0)]


def test_values_of_tables_that_are_not_finite_are_counted(tmp_path):
    run = read_csv(tmp_path, "run,step,val_acc,val_loss\nd,1,0.3,1.5\nd,2,0.25,inf\nd,3,0.2,nan\nd,4,0.2,-inf\n")
    assert run.notes == ["3 values are not finite and are left out"]
    assert curve(run, "val_loss") == [(1, 1.5)]


@pytest.mark.parametrize(
    ("dtype", "field", "value"),
    [(1, "float_val", 0.5), (2, "double_val", 0.5), (3, "int_val", 1), (9, "int64_val", 1), (19, "half_val", 0x3800),
     (14, "half_val", 0x3F00), (10, "bool_val", True)],
)  # fmt: skip
def test_tensors_of_one_number_are_scalars(tmp_path, dtype, field, value):
    def fill(one):
        one.tensor.dtype = dtype
        getattr(one.tensor, field).append(value)

    write(tmp_path / "r", (1, "val_acc", fill), (1, "train_loss", 0.5))
    assert curve(read(tmp_path), "val_acc") == [(1, 0.5 if dtype in (1, 2, 14, 19) else 1.0)]


def test_gzipped_files_are_read(tmp_path):
    path = write(tmp_path / "r", (1, "val_acc", 0.5))
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert curve(read(tmp_path), "val_acc") == [(1, 0.5)]
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"step,val_acc\n1,0.5\n"))
    (one,) = read_table(tmp_path / "t.csv.gz")
    assert curve(one(), "val_acc") == [(1, 0.5)]
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"step,val_acc\n1,0.5\n")[:-9])
    with pytest.raises(FieldError, match="is truncated or damaged"):
        read_table(tmp_path / "t.csv.gz")


# ---- epochs


@pytest.mark.parametrize(("last", "epoch"), [(225, 2.25), (300, 3.0), (200, 2.0)])
def test_an_epoch_is_over_when_it_is_as_long_as_those_before(tmp_path, last, epoch):
    values = []
    for step in range(4, last, 5):
        values += [(step, "train_loss_step", 1.0), (step, "epoch", step // 100)]
        if (step + 1) % 25 == 0:
            values += [(step, "val_acc", 0.5), (step, "epoch", step // 100)]
    write(tmp_path / "r", *values)
    epochs = {point["step"]: point["epoch"] for point in read(tmp_path).points}
    assert epochs[last] == pytest.approx(epoch)
    assert epochs[105] == pytest.approx(1.05)


def test_a_run_that_ends_within_its_first_epoch_has_no_epochs(tmp_path):
    write(
        tmp_path / "r",
        *((step, tag, value) for step in (24, 49, 74) for tag, value in (("val_acc", 0.5), ("epoch", 0))),
    )
    run = read(tmp_path)
    assert [point["epoch"] for point in run.points] == [None, None, None]
    assert run.notes == ["the length of an epoch is not known: draw it along steps"]


# ---- names


@pytest.mark.parametrize(
    ("tag", "quantity"),
    [("val/acc", "val_acc"), ("val_accuracy", "val_acc"), ("validation_accuracy", "val_acc"), ("Valid_Acc", "val_acc"),
     ("accuracy/val", "val_acc"), ("Loss/train", "train_loss"), ("val_loss_epoch", "val_loss"), ("testAcc", "test_acc"),
     ("train/lr", "learning_rate"), ("lr-Adam", "learning_rate"), ("lr-SGD-momentum", None), ("accuracy", None),
     ("val_acc_top5", None), ("recall_Q", "recall_q"), ("step", None), ("", None)],
)  # fmt: skip
def test_plain_names_are_known_and_others_are_not_guessed(tag, quantity):
    assert (quantity_of(tag) or (None,))[0] == quantity


def test_tags_that_are_not_read_are_named_unless_the_user_maps_them(tmp_path):
    write(tmp_path / "m", (1, "val/acc", 0.5), (1, "val_accuracy", 0.25), (1, "reward", 0.125))
    run = read(tmp_path)
    assert curve(run, "val_acc") == [(1, 0.5)]
    assert "their meaning is not plain: reward" in run.notes[0]
    assert run.notes[1] == "val_acc is read from val/acc, not from val_accuracy"
    mapped = read(tmp_path, mapping=check_mapping(["reward=val_acc", "val/acc=train_acc"]))
    assert curve(mapped, "val_acc") == [(1, 0.125)]
    assert curve(mapped, "train_acc") == [(1, 0.5)]
    assert mapped.sha256 != run.sha256
    with pytest.raises(FieldError, match="no quantity"):
        check_mapping(["a=b"])


def test_links_are_named_in_a_note(tmp_path, capsys):
    write(tmp_path / "target", (1, "val_acc", 0.5))
    write(tmp_path / "logs" / "real", (1, "val_acc", 0.5))
    (tmp_path / "logs" / "linked").symlink_to(tmp_path / "target")
    code, out, err = command(capsys, "tensorboard", tmp_path / "logs", "--store", tmp_path / "store")
    assert (code, out.count("\n"), err) == (0, 1, "jsc-explore: links are not followed: linked\n")


@pytest.mark.parametrize("header", ["Run,Step,Val_Acc", "RUN,Global_Step,validation_accuracy"])
def test_column_names_are_read_whatever_the_case(tmp_path, header):
    run = read_csv(tmp_path, f"{header}\na,1,0.3\n")
    assert (run.name, curve(run, "val_acc")) == ("a", [(1, 0.3)])


def test_a_table_that_tensorboard_wrote_is_read(tmp_path):
    text = "Wall time,Step,Value\n1700000000.5,10,0.5\n1700000001.5,20,0.6\n"
    run = read_csv(tmp_path, text, name="run-a-tag-val_acc.csv")
    assert curve(run, "val_acc") == [(10, 0.5), (20, 0.6)]
    assert [point["time_s"] for point in run.points] == [0.0, 1.0]
    assert curve(read_csv(tmp_path, text, mapping={"Value": "val_loss"}), "val_loss") == [(10, 0.5), (20, 0.6)]


# ---- hyperparameters


def test_one_rule_for_numbers(tmp_path):
    text = "run,step,val_acc,learning_rate,batch_size\na,1,0.3,1e-3,64\na,2,0.4,0.001,64.0\na,3,0.5,,\n"
    assert read_csv(tmp_path, text).fields == {"learning_rate": 1e-3, "batch_size": 64}
    assert hyperparameters({"lr": "1e-3", "batch_size": "64.0", "weight_decay": None, "momentum": ""})[:2] == (
        {"learning_rate": 1e-3, "batch_size": 64}, {})  # fmt: skip


def test_a_name_that_is_found_twice_is_ambiguous(tmp_path):
    (tmp_path / "hparams.yaml").write_text("data:\n  test:\n    batch_size: 1000\n  train:\n    batch_size: 64\n")
    assert hyperparameters(read_hparams(tmp_path / "hparams.yaml")[0])[0] == {"batch_size": 64}
    fields, other, notes = hyperparameters({"a.lr": 0.1, "b.lr": 0.2, "c.seed": 1, "d.seed": "1"})
    assert fields == {"seed": 1}
    assert notes == ["learning_rate is left out, because it is ambiguous: a.lr = 0.1, b.lr = 0.2"]
    assert other == {"a.lr": "0.1", "b.lr": "0.2"}


def test_hyperparameters_of_the_plugin_belong_to_the_run_above(tmp_path):
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(tmp_path / "exp1"), write_to_disk=True) as writer:
        for step in range(3):
            writer.add_scalar("val_acc", 0.5, step)
        writer.add_hparams({"lr": 1e-3, "optimizer": "adam", "batch_size": 64}, {"val_acc": 0.5}, name="hp")
    run = read(tmp_path)
    assert run.name == "exp1"
    assert run.fields == {"learning_rate": 1e-3, "optimizer": "adam", "batch_size": 64}
    assert len(run.points) == 3
    assert run.notes == ["folder hp gives hyperparameters; not read there: val_acc"]


# ---- other programs' tables

LIGHTNING = """epoch,lr-Adam,step,test_acc,test_loss,train_loss_step,val_acc,val_loss
,0.001,0,,,,,
0,,4,,,0.8,,
0,,9,,,,0.5,0.7
1,,14,,,0.7,,
1,,19,,,,0.6,0.6
2,,20,0.625,0.65,,,
"""


def test_lightnings_table_is_read_whole(tmp_path):
    run = read_csv(tmp_path, LIGHTNING, name="version_0/metrics.csv")
    assert run.name == "version_0"
    assert curve(run, "val_acc") == [(10, 0.5), (20, 0.6)]
    assert curve(run, "val_acc", "epoch") == [(1.0, 0.5), (2.0, 0.6)]
    assert curve(run, "learning_rate") == [(1, 0.001)]
    assert (run.test_acc, run.test_loss) == (0.625, 0.65)
    assert run.notes == []


def test_keras_table_is_read(tmp_path):
    run = read_csv(tmp_path, "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.0,0.4,1.1\n1,0.6,0.9,0.5,1.0\n")
    assert curve(run, "train_acc", "epoch") == [(1.0, 0.5), (2.0, 0.6)]
    assert curve(run, "val_loss", "epoch") == [(1.0, 1.1), (2.0, 1.0)]


# ---- what leaves again


def test_text_that_looks_like_a_formula_opens_as_text():
    table = pa.table({"run": ["=HYPERLINK(1)", "+A1", "@a", "-b", "a=b", None], "x": [-1.0, 2.0, 3.0, 4.0, 5.0, 6.0]})
    lines = table_bytes(table, "csv").decode().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [
        '"\'=HYPERLINK(1)"',
        '"\'+A1"',
        '"\'@a"',
        '"\'-b"',
        '"a=b"',
        "",
    ]
    assert lines[1].endswith(",-1")
    numbers = pa.table({"x": ["-1.5e-3", "+2", "-2+3"], "y": pa.array(["=1", "a", None]).dictionary_encode()})
    assert table_bytes(numbers, "csv").decode().splitlines()[1:] == ['"-1.5e-3","\'=1"', '"+2","a"', '"\'-2+3",']


def test_an_exported_name_that_looks_like_a_formula_is_imported_unchanged(tmp_path):
    (tmp_path / "a.csv").write_bytes(table_bytes(pa.table({"run": ["=A1"], "step": [1], "val_acc": [0.5]}), "csv"))
    (one,) = read_table(tmp_path / "a.csv")
    assert one().name == "=A1"


def test_a_message_is_one_line_whatever_a_tag_is_named(tmp_path, capsys):
    write(tmp_path / "logs" / "r", (1, "val_acc", 0.5), (1, "a\nb\x1b[31m", 0.5))
    _, _, err = command(capsys, "tensorboard", tmp_path / "logs", "--store", tmp_path / "store")
    assert err.count("\n") == 1
    assert "a?b?[31m" in err


def test_lightnings_table_without_suffixes_is_known_by_its_epoch_zero(tmp_path):
    text = "epoch,step,train_loss,val_acc\n0,4,0.8,\n0,9,,0.5\n1,14,0.7,\n1,19,,inf\n1,19,,0.6\n"
    run = read_csv(tmp_path, text, name="metrics.csv")
    assert curve(run, "val_acc", "epoch") == [(1.0, 0.5), (2.0, 0.6)]
    assert run.notes == ["1 value is not finite and is left out"]
    plain = read_csv(tmp_path, "epoch,step,val_acc\n1,10,0.5\n2,20,0.6\n")
    assert [(point["step"], point["epoch"]) for point in plain.points] == [(10, 1.0), (20, 2.0)]


def test_verify_checks_imported_runs(tmp_path, capsys):
    kept = ImportedRuns(tmp_path / "store")
    kept.add(read_csv(tmp_path, "step,val_acc\n1,0.5\n"))
    (tmp_path / "store" / "imported" / f"{7:064x}.parquet").write_bytes(b"no parquet")
    with pytest.raises(SystemExit) as ended:
        main.main(["verify", "--store", str(tmp_path / "store")])
    captured = capsys.readouterr()
    assert ended.value.code == 1
    assert f"{7:064x}.parquet: cannot be read" in captured.out
    assert "1 imported runs checked, 1 faults" in captured.err
