"""The lab's questions, each with the view of the Explore page that answers it, as URL parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question of the lab and the URL parameters of the view that answers it."""

    text: str
    query: Mapping[str, str]


# Without the final ReLU and with validation data of their own: with it most seeds have a silent class, which hides what
# the hyperparameter does, and training jets cannot show overfitting.
_FAIR = {"final_relu": "no", "validation": "holdout"}
QUESTIONS = (
    Question("What does the batch size change?", {**_FAIR, "panel": "response"}),
    Question("How many epochs are enough?", {**_FAIR, "panel": "response", "x": "max_epochs", "y": "learning_rate"}),
    Question(
        "Which learning rate is best?",
        {"validation": "holdout", "panel": "response", "x": "learning_rate", "y": "final_relu"},
    ),
    Question("Does a larger batch need a larger learning rate?", {**_FAIR, "metric": "val_loss", "curve": "val_loss"}),
    Question(
        "Is a network of ten times the size better?", {**_FAIR, "panel": "response", "x": "model", "y": "learning_rate"}
    ),
)
