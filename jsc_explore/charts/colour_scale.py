"""The colours of the sequential scale, and which text is readable on them (WCAG 2.2, 1.4.3)."""

from __future__ import annotations

from functools import lru_cache

# The stops of Vega's scheme "viridis", which it joins linearly in RGB (vega-scale, palettes.js).
_VIRIDIS = (
    "#440154", "#470e61", "#481a6c", "#482575", "#472f7d", "#443a83", "#414487", "#3d4e8a", "#39568c", "#35608d",
    "#31688e", "#2d708e", "#2a788e", "#27818e", "#23888e", "#21918d", "#1f988b", "#1fa088", "#22a884", "#2ab07f",
    "#35b779", "#43bf71", "#54c568", "#66cc5d", "#7ad151", "#8fd744", "#a5db36", "#bcdf27", "#d2e21b", "#e9e51a",
    "#fde725",
)  # fmt: skip
# Black, not a dark grey: on the scale's middle only black and white reach 4.5:1.
DARK_TEXT, BRIGHT_TEXT = "#000000", "#FFFFFF"


def scale_colour(share: float) -> str:
    """Return the colour at a share of the sequential scale; shares outside [0, 1] have that of the nearer end."""
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    first = min(int(place), len(_VIRIDIS) - 2)
    ends = zip(_channels(_VIRIDIS[first]), _channels(_VIRIDIS[first + 1]), strict=True)
    return "#" + "".join(f"{round(low + (high - low) * (place - first)):02x}" for low, high in ends)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, from 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@lru_cache(maxsize=1024)
def takes_dark_text(colour: str) -> bool:
    """Return whether dark text has more contrast on this colour than bright text."""
    return contrast(DARK_TEXT, colour) >= contrast(BRIGHT_TEXT, colour)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in _channels(colour))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
