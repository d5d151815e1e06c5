"""Lightning's ``LightningModule`` and ``Trainer``, imported without what no training here uses.

Lightning imports ``torch._dynamo`` to recognise modules of ``torch.compile``, and torchmetrics imports ``scipy.signal``
to add an old name to it. Both together take 1.4 of 2.6 s and 110 of 300 MB of each process that trains. Empty modules
stand in for them while Lightning is imported; afterwards the real ones can be imported by whoever needs them.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import scipy

# Before the stand-ins: it looks at some of these modules itself.
import torch  # noqa: F401


def _unchanged(function: Any = None, *_: object, **__: object) -> Any:
    """Return the function that ``torch.compiler.disable`` decorates: nothing is compiled here."""
    return function


# Name -> attributes that are used while Lightning is imported.
_STAND_INS: dict[str, dict[str, Any]] = {
    "torch._dynamo": {"OptimizedModule": type("OptimizedModule", (), {}), "disable": _unchanged},
    "scipy.signal": {"hamming": None},
}


@contextmanager
def _stand_ins() -> Iterator[None]:
    made = {name: types.ModuleType(name) for name in _STAND_INS if name not in sys.modules}
    for name, module in made.items():
        vars(module).update(_STAND_INS[name])
        sys.modules[name] = module
    if "scipy.signal" in made:
        scipy.signal = made["scipy.signal"]
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]
            # `import a.b` also made it an attribute of its package.
            package, _, attribute = name.rpartition(".")
            vars(sys.modules[package]).pop(attribute, None)


with _stand_ins():
    from lightning import LightningModule, Trainer

__all__ = ["LightningModule", "Trainer"]
