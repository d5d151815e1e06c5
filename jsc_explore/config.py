"""RunConfig: every hyperparameter that changes a result, its default, its range, and the identity of a run.

No other file holds a default or a range: the command line, the widgets and the documentation derive from ``FIELDS``.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

from jsc_explore import network as layers
from jsc_explore.errors import FieldError

# Raise it when the same config would train to another result: every run then counts as missing and is trained anew.
RECIPE_VERSION = 1
# Replicates that a click or a command trains unless told otherwise: enough for a spread, few enough to wait for.
DEFAULT_SEEDS = 5
MAX_GRID = 100_000
# Activations of a batch: with their gradients, 4 bytes each, some 2 GB a replica.
MAX_BATCH_ACTIVATIONS = 200_000_000
# A simulated sample of one's own. The name stands in file names and addresses, hence so plain; `recipe` is a file's.
OWN_SAMPLE = r"simulated-(?!recipe$)[A-Za-z0-9_]{1,32}"

Kind = Literal["int", "float", "bool", "choice", "model"]


@dataclass(frozen=True)
class Spec:
    """What is known of one field beside its default: kind, range or choices, axis, help.

    ``ladder`` are the values a grid offers unasked; ``log`` says that the field is read on a logarithmic axis.
    ``pattern`` is a regular expression of values beside the ``choices``, ``also`` the same in words.
    """

    kind: Kind
    label: str
    help: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()
    default_values: tuple[Any, ...] = ()
    log: bool = False
    pattern: str = ""
    also: str = ""

    @property
    def inside(self) -> str:
        """Its label inside a sentence: final ReLU, batch size."""
        return self.label[0].lower() + self.label[1:]

    @property
    def offer(self) -> str:
        """Every choice in words: a, b, c or what the pattern allows."""
        return ", ".join(self.choices) + (f" or {self.also}" if self.also else "")


def _hyper(default: Any, spec: Spec) -> Any:
    return field(default=default, metadata={"spec": spec})


def _choice(default: str, choices: tuple[str, ...], label: str, text: str, pattern: str = "", also: str = "") -> Any:
    return _hyper(
        default, Spec("choice", label, text, choices=choices, default_values=choices, pattern=pattern, also=also)
    )


@dataclass(frozen=True)
class RunConfig:
    """One run: every hyperparameter and the seed, validated on creation.

    Raises FieldError naming field, value, rule and remedy.
    """

    dataset: str = _choice(
        "simulated",
        ("simulated", "openml", "cernbox"),
        "Data",
        "which jets are learned",
        pattern=OWN_SAMPLE,
        also="simulated-NAME (1 to 32 letters, digits, _), a sample of your own",
    )
    validation: str = _choice(
        "train",
        ("train", "holdout"),
        "Protocol",
        "mase: validation is the training part, as in the lab; holdout: a part that is not trained on",
    )
    model: str = _hyper(
        "jsc-tiny",
        Spec(
            "model",
            "Network",
            "a name of the lab or layers such as 16-64-32-32-5",
            default_values=tuple(layers.NAMED),
        ),
    )
    batch_size: int = _hyper(
        256,
        Spec(
            "int",
            "Batch size",
            "jets per optimizer step",
            2,
            65536,
            default_values=(16, 32, 64, 128, 256, 512, 1024),
            log=True,
        ),
    )
    learning_rate: float = _hyper(
        1e-3,
        Spec(
            "float",
            "Learning rate",
            "peak learning rate",
            1e-8,
            10.0,
            default_values=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
            log=True,
        ),
    )
    max_epochs: int = _hyper(
        10,
        Spec("int", "Epochs", "passes over the training jets", 1, 1000, default_values=(1, 2, 5, 10, 20, 50), log=True),
    )
    optimizer: str = _choice("adam", ("adam", "adamw", "sgd"), "Optimizer", "sgd uses nesterov momentum, as in the lab")
    scheduler: str = _choice(
        "cosine",
        ("constant", "cosine", "onecycle", "warmup"),
        "Schedule",
        "cosine: once per epoch as in the lab; onecycle: per step; warmup: linear over the first epoch, then constant",
    )
    weight_decay: float = _hyper(
        0.0,
        Spec(
            "float",
            "Weight decay",
            "L2 penalty (decoupled for adamw)",
            0.0,
            1.0,
            default_values=(0.0, 1e-4, 1e-3, 1e-2),
        ),
    )
    momentum: float = _hyper(
        0.9,
        Spec("float", "Momentum", "of sgd; the others ignore it", 0.0, 0.9999, default_values=(0.0, 0.5, 0.9, 0.99)),
    )
    precision: str = _choice(
        "32-true",
        ("32-true", "bf16-mixed", "16-mixed"),
        "Precision",
        "of the arithmetic, in Lightning's words",
    )
    patience: int = _hyper(
        0,
        Spec(
            "int",
            "Patience",
            "epochs without a lower validation loss before stopping; 0 never stops",
            0,
            1000,
            default_values=(0, 3, 10),
        ),
    )
    final_relu: bool = _hyper(
        True,
        Spec(
            "bool",
            "Final ReLU",
            "a ReLU before the loss, as in the lab; it can kill a class",
            default_values=(True, False),
        ),
    )
    seed: int = _hyper(
        0,
        Spec(
            "int", "Seed", "of initial weights, batch order and dropout", 0, 2**31 - 1, default_values=(0, 1, 2, 3, 4)
        ),
    )

    def __post_init__(self) -> None:
        for name, spec in FIELDS.items():
            # A frozen dataclass is written once, here, so that 1 and 1.0, or a name and its layers, are one value.
            object.__setattr__(self, name, _checked(name, spec, getattr(self, name)))
        network = layers.parse(self.model, self.final_relu)
        if (size := self.batch_size * layers.activations(network)) > MAX_BATCH_ACTIVATIONS:
            fits = MAX_BATCH_ACTIVATIONS // layers.activations(network)
            rule = f"makes {size:,} activations a step, {MAX_BATCH_ACTIVATIONS:,} fit into a worker's memory"
            raise FieldError("batch_size", self.batch_size, rule, f"use at most {fits:,}, or a smaller network")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Build from a mapping of field names; missing ones take their default.

        Raises FieldError for an unknown field, with the nearest known one.
        """
        for name in values:
            check_field(name)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return every field by name, ready for JSON."""
        return {name: getattr(self, name) for name in FIELDS}

    def with_(self, **changes: Any) -> RunConfig:
        """Return a copy with some fields changed, checked again."""
        for name in changes:
            check_field(name)
        return replace(self, **changes)

    @cached_property
    def network(self) -> layers.Network:
        """The layers this config trains, the final ReLU included or not."""
        return layers.parse(self.model, self.final_relu)

    def identity(self) -> dict[str, Any]:
        """Return the fields that change the result, in canonical form: what has no effect is left out."""
        values = self.to_dict()
        if self.optimizer != "sgd":
            del values["momentum"]
        return values

    def canonical_json(self, digest: str, *, with_seed: bool = True) -> str:
        """Return the text whose hash is the identity, for data with this ``digest``."""
        values = self.identity()
        if not with_seed:
            del values["seed"]
        values["model"] = layers.canonical(self.model)
        return json.dumps(
            {"config": values, "data": digest, "recipe_version": RECIPE_VERSION},
            sort_keys=True,
            separators=(",", ":"),
        )

    def run_id(self, digest: str) -> str:
        """Return the identity of this run on data with this digest: 32 hex digits of a sha256."""
        return _hash(self.canonical_json(digest))

    def config_id(self, digest: str) -> str:
        """Return the identity of the config, which all its seeds share."""
        return _hash(self.canonical_json(digest, with_seed=False))

    @property
    def stack_key(self) -> tuple[object, ...]:
        """What runs must share to be trained side by side: data, network, batch size, optimizer, precision."""
        return (
            self.dataset,
            self.validation,
            self.model,
            self.final_relu,
            self.batch_size,
            self.optimizer,
            self.precision,
        )


@dataclass(frozen=True)
class Limits:
    """What may wait or be under way at once, of one session and of all, and what has to be confirmed; None: no limit.

    Epochs are counted over all runs: ten runs of ten epochs are a hundred. ``confirm_s`` is a time in seconds.
    """

    session_runs: int | None = 500
    session_epochs: int | None = 20_000
    total_runs: int | None = 5_000
    total_epochs: int | None = 100_000
    confirm_s: float | None = 1_800.0

    @property
    def any_on_queue(self) -> bool:
        """Whether anything but the time is limited."""
        return (self.session_runs, self.session_epochs, self.total_runs, self.total_epochs) != (None,) * 4


# What people at a page may ask for, and what commands may: whoever has a shell has the machine.
LIMITS = Limits()
UNLIMITED = Limits(None, None, None, None, None)

FIELDS: dict[str, Spec] = {f.name: f.metadata["spec"] for f in fields(RunConfig)}
DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(RunConfig) if f.default is not MISSING}


def check_field(name: str) -> Spec:
    """Return the Spec of a field; raise FieldError with the nearest name if there is none."""
    if name in FIELDS:
        return FIELDS[name]
    near = difflib.get_close_matches(name, FIELDS, n=1)
    remedy = f"did you mean {near[0]}?" if near else "fields are " + ", ".join(FIELDS)
    raise FieldError("field", name, "is no hyperparameter", remedy)


def parse_value(name: str, text: str) -> Any:
    """Read one field's value from text (command line, URL); raise FieldError if it is not a valid one."""
    spec = check_field(name)
    value: Any = text.strip()
    if spec.kind == "bool":
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        value = words.get(value.lower(), value)
    elif spec.kind in ("int", "float"):
        try:
            value = int(value) if spec.kind == "int" else float(value)
        except ValueError:
            value = text
    return _checked(name, spec, value)


def format_value(name: str, value: Any) -> str:
    """Write one field's value as people read it: 1e-3 rather than 0.001, yes rather than True."""
    spec = check_field(name)
    if spec.kind == "bool":
        return "yes" if value else "no"
    if spec.kind == "float":
        return format_number(float(value))
    return str(value)


def format_number(value: float) -> str:
    """Write a number shortest: 0, 0.9, 1e-3, 3.2e-5; whole numbers in full."""
    if isinstance(value, int) or value == 0 or 0.01 < abs(value) < 10_000:
        return str(value) if isinstance(value, int) else f"{value:g}"
    mantissa, exponent = f"{value:.6e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def expand_grid(grid: Mapping[str, Any]) -> list[RunConfig]:
    """Return the runs of a grid: each field one value or a list of values, ``seeds`` a count of seeds from 0.

    Raises FieldError for unknown fields, bad values, an empty list or more than 100,000 runs.
    """
    values = dict(grid)
    seeds = values.pop("seeds", None)
    if seeds is not None:
        if "seed" in values:
            raise FieldError("seeds", seeds, "cannot stand beside seed", "keep one of the two")
        if isinstance(seeds, bool) or not isinstance(seeds, int) or not 1 <= seeds <= 1000:
            raise FieldError("seeds", seeds, "must be a whole number in [1, 1000]", f"try {DEFAULT_SEEDS}")
    values["seed"] = list(range(seeds or DEFAULT_SEEDS)) if "seed" not in values else values["seed"]
    axes = {name: _axis(name, value) for name, value in values.items()}
    count = math.prod(len(axis) for axis in axes.values())
    if count > MAX_GRID:
        raise FieldError("grid", count, f"must hold at most {MAX_GRID:,} runs", "split it into several files")
    return list(_product(axes))


def _product(axes: Mapping[str, Sequence[Any]]) -> Iterator[RunConfig]:
    for combination in itertools.product(*axes.values()):
        yield RunConfig(**dict(zip(axes, combination, strict=True)))


def _axis(name: str, value: Any) -> list[Any]:
    spec = check_field(name)
    axis = list(value) if isinstance(value, (list, tuple)) else [value]
    if not axis:
        raise FieldError(name, value, "must hold at least one value", "add one or leave the field out")
    # Checked before doubles are dropped: 1 and True are equal, and a list within a list cannot be compared at all.
    return list(dict.fromkeys(_checked(name, spec, one) for one in axis))


def _checked(name: str, spec: Spec, value: Any) -> Any:
    if spec.kind == "model":
        if not isinstance(value, str):
            raise FieldError(name, value, "must be text", "try 'jsc-tiny' or '16-64-32-32-5'")
        return layers.display_name(value)
    if spec.kind == "bool":
        if not isinstance(value, bool):
            raise FieldError(name, value, "must be true or false", f"try {str(DEFAULTS[name]).lower()}")
        return value
    if spec.kind == "choice":
        matches = bool(spec.pattern) and isinstance(value, str) and re.fullmatch(spec.pattern, value)
        if value not in spec.choices and not matches:
            near = difflib.get_close_matches(str(value), spec.choices, n=1, cutoff=0.5)
            raise FieldError(name, value, f"must be one of {spec.offer}", f"try {(near or spec.choices)[0]}")
        return value
    return _checked_number(name, spec, value)


def _checked_number(name: str, spec: Spec, value: Any) -> int | float:
    whole = spec.kind == "int"
    rule = f"must be a {'whole ' if whole else ''}number in [{format_number(spec.low)}, {format_number(spec.high)}]"
    remedy = f"try {format_number(DEFAULTS[name])}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FieldError(name, value, rule, remedy)
    if not math.isfinite(value) or not spec.low <= value <= spec.high or (whole and value != int(value)):
        raise FieldError(name, value, rule, remedy)
    # -0.0 would print, and hash, unlike 0.0.
    return int(value) if whole else float(value) + 0.0


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
