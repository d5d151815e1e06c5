"""RunConfig: every hyperparameter that changes a result, its default, its range, and the identity of a run.

No other file holds a default or a range: command line options, widgets and documentation derive from ``FIELDS``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import operator
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

from jsc_explore.errors import FieldError
from jsc_explore.network import NAMED, Network, activations, canonical, display_name, parse

# Raise it when the same config would train to another result: every run then counts as missing and is trained again.
RECIPE_VERSION = 1
# Seeds that a click or a command trains by default: enough to show a spread, few enough to wait for.
DEFAULT_SEEDS = 5
# The cosine schedule ends at these rates, as in the lab (mase, plt_wrapper/base.py).
COSINE_FLOOR = {"adam": 1e-6, "adamw": 1e-6, "sgd": 0.0}
# With their gradients, at 4 bytes each, these take some 2 GB per replica.
MAX_BATCH_ACTIVATIONS = 200_000_000
# The user's own simulated samples. Plain characters only, since the name stands in file names and URLs;
# `simulated-recipe` is taken by a file.
USER_SAMPLE = r"simulated-(?!recipe$)[A-Za-z0-9_]{1,32}"

Kind = Literal["int", "float", "bool", "choice", "model"]
# A field, an operator, and a value or another field: ("patience", ">=", "max_epochs"). SQL has the same operators.
Comparison = tuple[str, str, Any]
_OPERATORS = {"=": operator.eq, "<>": operator.ne, ">=": operator.ge}


@dataclass(frozen=True)
class Spec:
    """Metadata of one hyperparameter: kind, range or choices, axis, help.

    ``default_values`` are the values that a grid shows at first; ``log`` asks for a logarithmic axis. ``pattern`` is
    a regular expression of values allowed beside ``choices``, ``pattern_help`` describes them. In each case of
    ``same_as_default`` (if all of its comparisons hold) the value trains exactly as the default does. ``value_labels``
    are the names of values on pages, where they differ from those in files, URLs and on the command line.
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
    pattern_help: str = ""
    same_as_default: tuple[tuple[Comparison, ...], ...] = ()
    value_labels: Mapping[Any, str] = field(default_factory=dict)

    @property
    def inline_label(self) -> str:
        """The label inside a sentence: final ReLU, batch size."""
        return self.label[0].lower() + self.label[1:]

    @property
    def choices_text(self) -> str:
        """All allowed values as text: a, b, c or what the pattern allows."""
        return ", ".join(self.choices) + (f" or {self.pattern_help}" if self.pattern_help else "")

    def is_relevant(self, values: Mapping[str, Any]) -> bool:
        """Return whether the field matters in a run with these values: False if its default trains exactly the same."""
        return not any(
            all(_OPERATORS[sign](values[name], values.get(other, other)) for name, sign, other in case)
            for case in self.same_as_default
        )


def _hyper(default: Any, spec: Spec) -> Any:
    return field(default=default, metadata={"spec": spec})


def _choice(default: str, choices: tuple[str, ...], label: str, text: str, **more: Any) -> Any:
    return _hyper(default, Spec("choice", label, text, choices=choices, default_values=choices, **more))


def _int(default: int, low: int, high: int, values: tuple[int, ...], label: str, text: str, **more: Any) -> Any:
    return _hyper(default, Spec("int", label, text, low, high, default_values=values, **more))


def _float(
    default: float, low: float, high: float, values: tuple[float, ...], label: str, text: str, **more: Any
) -> Any:
    return _hyper(default, Spec("float", label, text, low, high, default_values=values, **more))


@dataclass(frozen=True)
class RunConfig:
    """One run: every hyperparameter and the seed, validated on creation.

    Raises FieldError naming field, value, rule and remedy.
    """

    dataset: str = _choice(
        "simulated",
        ("simulated", "openml", "cernbox"),
        "Data",
        "which jets to train on",
        pattern=USER_SAMPLE,
        pattern_help="simulated-NAME (1 to 32 letters, digits, _), a sample of your own",
    )
    validation: str = _choice(
        "train",
        ("train", "holdout"),
        "Validate on",
        "data of the validation metrics: train, the training data, as in the lab; holdout, data not used in training",
        value_labels={"train": "training data (as in the lab)", "holdout": "held-out data"},
    )
    model: str = _hyper(
        "jsc-tiny",
        Spec("model", "Network", "a name of the lab or layers such as 16-64-32-32-5", default_values=tuple(NAMED)),
    )
    batch_size: int = _int(
        256, 2, 65536, (16, 32, 64, 128, 256, 512, 1024), "Batch size", "jets per optimizer step", log=True
    )
    learning_rate: float = _float(
        1e-3, 1e-8, 10.0, (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1), "Learning rate", "peak learning rate", log=True
    )
    max_epochs: int = _int(10, 1, 1000, (1, 2, 5, 10, 20, 50), "Epochs", "passes over the training jets", log=True)
    optimizer: str = _choice(
        "adam",
        ("adam", "adamw", "sgd"),
        "Optimizer",
        "sgd uses nesterov momentum, as in the lab; adamw without weight decay is adam",
        same_as_default=((("optimizer", "=", "adamw"), ("weight_decay", "=", 0.0)),),
    )
    scheduler: str = _choice(
        "cosine",
        ("constant", "cosine", "onecycle", "warmup"),
        "Schedule",
        "cosine: once per epoch as in the lab; onecycle: per step; warmup: linear over the first epoch, then constant",
        same_as_default=(
            (("scheduler", "=", "constant"), ("max_epochs", "=", 1)),
            (("scheduler", "=", "constant"), ("learning_rate", "=", COSINE_FLOOR["adam"]), ("optimizer", "<>", "sgd")),
        ),
    )
    weight_decay: float = _float(
        0.0, 0.0, 1.0, (0.0, 1e-4, 1e-3, 1e-2), "Weight decay", "L2 penalty (decoupled for adamw)"
    )
    momentum: float = _float(
        0.9,
        0.0,
        0.9999,
        (0.0, 0.5, 0.9, 0.99),
        "Momentum",
        "of sgd; the other optimizers ignore it",
        same_as_default=((("optimizer", "<>", "sgd"),),),
    )
    precision: str = _choice(
        "32-true", ("32-true", "bf16-mixed", "16-mixed"), "Precision", "numerical precision, as Lightning names it"
    )
    patience: int = _int(
        0,
        0,
        1000,
        (0, 3, 10),
        "Patience",
        "epochs without a lower validation loss before stopping; 0 never stops",
        same_as_default=((("patience", ">=", "max_epochs"),),),
    )
    final_relu: bool = _hyper(
        True,
        Spec(
            "bool",
            "Final ReLU",
            "a ReLU before the loss, as in the lab; with it a class may never be predicted",
            default_values=(True, False),
        ),
    )
    seed: int = _int(0, 0, 2**31 - 1, (0, 1, 2, 3, 4), "Seed", "of initial weights, batch order and dropout")

    def __post_init__(self) -> None:
        for name in FIELDS:
            # Store the canonical value, so that 1 and 1.0, or a name and its layers, are equal.
            object.__setattr__(self, name, check_value(name, getattr(self, name)))
        per_jet = activations(parse(self.model, self.final_relu))
        if (size := self.batch_size * per_jet) > MAX_BATCH_ACTIVATIONS:
            fits = MAX_BATCH_ACTIVATIONS // per_jet
            rule = f"needs {size:,} activations per step, {MAX_BATCH_ACTIVATIONS:,} fit into a worker's memory"
            raise FieldError("batch_size", self.batch_size, rule, f"use at most {fits:,}, or a smaller network")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Build from a mapping of field names; missing fields take their default.

        Raises FieldError for an unknown field, naming the most similar one.
        """
        for name in values:
            check_field(name)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields by name, ready for JSON."""
        return {name: getattr(self, name) for name in FIELDS}

    def with_(self, **changes: Any) -> RunConfig:
        """Return a copy with some fields changed, validated again."""
        for name in changes:
            check_field(name)
        return replace(self, **changes)

    @cached_property
    def network(self) -> Network:
        """The layers that this config trains, with the final ReLU if it is on."""
        return parse(self.model, self.final_relu)

    @property
    def canonical_form(self) -> RunConfig:
        """The config with the default in place of every value that trains exactly as the default does.

        Configs that share it share one id. This form is what is queued, trained and stored.
        """
        same = {name: DEFAULTS[name] for name, spec in FIELDS.items() if not spec.is_relevant(vars(self))}
        return replace(self, **same) if any(getattr(self, name) != value for name, value in same.items()) else self

    def is_relevant(self, name: str) -> bool:
        """Return whether another value of this field can change the result; that of momentum can only with sgd."""
        return FIELDS[name].is_relevant(vars(self.canonical_form))

    def canonical_json(self, digest: str, *, with_seed: bool = True) -> str:
        """Return the text whose hash identifies this run on data with this ``digest``, without irrelevant fields."""
        run = self.canonical_form
        values = {name: value for name, value in run.to_dict().items() if FIELDS[name].is_relevant(vars(run))}
        if not with_seed:
            del values["seed"]
        values["model"] = canonical(self.model)
        return json.dumps(
            {"config": values, "data": digest, "recipe_version": RECIPE_VERSION}, sort_keys=True, separators=(",", ":")
        )

    def run_id(self, digest: str) -> str:
        """Return the id of this run on data with this digest: 32 hex digits of a SHA-256."""
        return _hash(self.canonical_json(digest))

    def config_id(self, digest: str) -> str:
        """Return the id of the config, which all its seeds share."""
        return _hash(self.canonical_json(digest, with_seed=False))

    @property
    def stack_key(self) -> tuple[object, ...]:
        """The values that runs must share to be trained in one stack."""
        return (
            self.dataset,
            self.validation,
            self.model,
            self.final_relu,
            self.batch_size,
            self.optimizer,
            self.precision,
        )


FIELDS: dict[str, Spec] = {f.name: f.metadata["spec"] for f in fields(RunConfig)}
DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(RunConfig) if f.default is not MISSING}


def check_field(name: str) -> Spec:
    """Return the Spec of a field; raise FieldError naming the most similar field if there is none."""
    if name in FIELDS:
        return FIELDS[name]
    similar = difflib.get_close_matches(name, FIELDS, n=1)
    remedy = f"did you mean {similar[0]}?" if similar else "fields are " + ", ".join(FIELDS)
    raise FieldError("field", name, "is no hyperparameter", remedy)


def parse_value(name: str, text: str) -> Any:
    """Parse one field's value from text (command line, URL); raise FieldError if it is invalid."""
    spec = check_field(name)
    value: Any = text.strip()
    if spec.kind == "bool":
        booleans = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        value = booleans.get(value.lower(), value)
    elif spec.kind in ("int", "float"):
        try:
            value = int(value) if spec.kind == "int" else float(value)
        except ValueError:
            value = text
    return check_value(name, value)


def format_value(name: str, value: Any) -> str:
    """Format one field's value for people: 1e-3 rather than 0.001 (learning rates: 1e-1, too), yes rather than True."""
    spec = check_field(name)
    if spec.kind == "bool":
        return "yes" if value else "no"
    if spec.kind == "float":
        return format_number(float(value), powers=spec.log)
    return str(value)


def display_value(name: str, value: Any) -> str:
    """Format one field's value for a page: its label if it has one, else as ``format_value`` does."""
    return check_field(name).value_labels.get(value) or format_value(name, value)


def format_number(value: float, *, powers: bool = False) -> str:
    """Format a number as short as possible: 0, 0.9, 1e-3, 3.2e-5; an int in full.

    ``powers`` is for numbers of a logarithmic scale: all below 1 are written as powers, 1e-1 as well as 1e-3.
    """
    is_small = abs(value) < 1 if powers else abs(value) <= 0.01
    if isinstance(value, int) or value == 0 or not (is_small or abs(value) >= 10_000):
        return str(value) if isinstance(value, int) else f"{value:g}"
    mantissa, exponent = f"{value:.6e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def check_value(name: str, value: Any) -> Any:
    """Return one field's value in canonical form; raise FieldError if it is invalid."""
    spec = check_field(name)
    if spec.kind == "model":
        if not isinstance(value, str):
            raise FieldError(name, value, "must be text", "try 'jsc-tiny' or '16-64-32-32-5'")
        return display_name(value)
    if spec.kind == "bool":
        if not isinstance(value, bool):
            raise FieldError(name, value, "must be true or false", f"try {str(DEFAULTS[name]).lower()}")
        return value
    if spec.kind == "choice":
        matches = bool(spec.pattern) and isinstance(value, str) and re.fullmatch(spec.pattern, value)
        if value not in spec.choices and not matches:
            similar = difflib.get_close_matches(str(value), spec.choices, n=1, cutoff=0.5)
            raise FieldError(name, value, f"must be one of {spec.choices_text}", f"try {(similar or spec.choices)[0]}")
        return value
    return _check_number(name, spec, value)


def _check_number(name: str, spec: Spec, value: Any) -> int | float:
    whole = spec.kind == "int"
    rule = f"must be a {'whole ' if whole else ''}number in [{format_number(spec.low)}, {format_number(spec.high)}]"
    remedy = f"try {format_number(DEFAULTS[name])}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FieldError(name, value, rule, remedy)
    if not math.isfinite(value) or not spec.low <= value <= spec.high or (whole and value != int(value)):
        raise FieldError(name, value, rule, remedy)
    # Adding 0.0 turns -0.0, which would print and hash differently, into 0.0.
    return int(value) if whole else float(value) + 0.0


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
