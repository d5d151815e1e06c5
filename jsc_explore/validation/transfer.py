"""Transfer accuracy: train a network on one set of jets and test it on several."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from safetensors.torch import load

from jsc_explore.config import RunConfig
from jsc_explore.data import Split
from jsc_explore.data.jets import Features, Labels
from jsc_explore.errors import DataError
from jsc_explore.training.callbacks import CollectingCallback
from jsc_explore.training.models import build
from jsc_explore.training.trainer import train_stack

NETWORK = "16-64-32-32-5"
SEEDS = 3
# For 200,000 jets the accuracy is then within a few tenths of a point of that after ten times as many steps.
_STEPS, _MAX_EPOCHS = 6_000, 60


def transfer_accuracy(
    features: Features, labels: Labels, tests: Mapping[str, tuple[Features, Labels]], *, seeds: int = SEEDS
) -> dict[str, float]:
    """Train the 16-64-32-32-5 network; return its accuracy on each set of ``tests``, the mean over seeds.

    Features are ``(n, 16)`` in any units; all are standardised with the moments of the training jets. A tenth of the
    jets selects the best epoch. No final ReLU, because a silent class would not be a property of the jets.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    held, used = order[: len(order) // 10], order[len(order) // 10 :]
    mean, scale = features[used].mean(0, dtype=np.float64), features[used].std(0, dtype=np.float64)
    scale = np.where(scale > 0, scale, 1.0)

    def standardised(values: Features) -> Features:
        return np.asarray((values - mean) / scale, np.float32)

    config = RunConfig(model=NETWORK, final_relu=False, learning_rate=3e-3, validation="holdout", max_epochs=1)
    epochs = math.ceil(_STEPS / max(1, len(used) // config.batch_size))
    config = config.with_(max_epochs=min(_MAX_EPOCHS, epochs))
    x, y = standardised(features), labels
    # The test metrics of the outcome are not used, so the small held-out part also serves as test part.
    split = Split(x[used], y[used], x[held], y[held], x[held], y[held], mean, scale, "holdout", digest="")
    kept = CollectingCallback()
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # steps are too small to gain from a second thread
    try:
        train_stack({str(seed): config.with_(seed=seed) for seed in range(seeds)}, split, kept, device="cpu")
    finally:
        torch.set_num_threads(before)
    found: dict[str, list[float]] = {name: [] for name in tests}
    for outcome in kept.outcomes.values():
        if outcome.status != "done":
            raise DataError("the training diverged on these jets; plot their features with --out")
        network = build(config.network, 0)
        network.load_state_dict(load(outcome.weights))
        network.eval()
        for name, (other, truth) in tests.items():
            with torch.inference_mode():
                guess = network(torch.from_numpy(standardised(other))).argmax(1).numpy()
            found[name].append(float((guess == truth).mean()))
    return {name: float(np.mean(shares)) for name, shares in found.items()}


def binomial_error(accuracy: float, jets: int) -> float:
    """Return the binomial standard error of an accuracy measured on ``jets`` jets."""
    return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / jets)
