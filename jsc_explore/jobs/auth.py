"""Who may train at a page: nobody (read only), who knows the launch password, who may log in, or everybody.

The command line decides when it starts the page and hands the decision on in the environment; the page's server asks
here, for every request anew. What a browser shows or sends decides nothing.
"""

from __future__ import annotations

import hmac
import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from jsc_explore.errors import FieldError
from jsc_explore.jobs.limits import LIMITS, Limits

READ_ONLY = "JSC_EXPLORE_READ_ONLY"
PASSWORD = "JSC_EXPLORE_LAUNCH_PASSWORD"
PASSWORD_FILE = "JSC_EXPLORE_LAUNCH_PASSWORD_FILE"
ALLOW = "JSC_EXPLORE_ALLOW"
LIMIT = "JSC_EXPLORE_LIMITS"
VARIABLES = (READ_ONLY, PASSWORD, PASSWORD_FILE, ALLOW, LIMIT)
# Shorter ones are guessed even at the pace that the doorman allows.
SHORTEST_PASSWORD = 8
SLOWEST_GUESS_S, FORGIVEN_AFTER_S = 30.0, 600.0
# Addresses whose wrong guesses are remembered; whoever has more of them than this is not slowed down by any such means.
REMEMBERED = 10_000


@dataclass(frozen=True)
class Access:
    """What a page lets its visitors ask for.

    ``allowed`` are e-mail addresses, or domains written ``@uni.edu``, of those who may train once they have logged in.
    With a password and a list, either opens. ``password_file`` is read at every guess.
    """

    read_only: bool = False
    password: str = field(default="", repr=False)
    password_file: str = ""
    allowed: tuple[str, ...] = ()
    limits: Limits = LIMITS

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Access:
        """Read what ``environment`` wrote; by default this process's own."""
        given = os.environ if environment is None else environment
        return cls(
            given.get(READ_ONLY, "") not in ("", "0"),
            given.get(PASSWORD, ""),
            given.get(PASSWORD_FILE, ""),
            tuple(filter(None, given.get(ALLOW, "").split(","))),
            replace(LIMITS, **json.loads(given.get(LIMIT) or "{}")),
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that say the same to another process."""
        changed = {k: v for k, v in asdict(self.limits).items() if v != getattr(LIMITS, k)}
        values = {
            READ_ONLY: "1" if self.read_only else "",
            PASSWORD: self.password,
            PASSWORD_FILE: self.password_file,
            ALLOW: ",".join(self.allowed),
            LIMIT: json.dumps(changed) if changed else "",
        }
        return {name: text for name, text in values.items() if text}

    @property
    def has_password(self) -> bool:
        """Whether a launch password opens this page."""
        return bool(self.password or self.password_file)

    def refusal(self, *, unlocked: bool = False, email: str | None = None) -> str:
        """Say in one line why a visitor may not train, and what would help; empty if they may."""
        if self.read_only:
            return "This page is read only: it shows what is known and trains nothing."
        if not self.has_password and not self.allowed:
            return ""
        if (self.has_password and unlocked) or self.admits(email):
            return ""
        if email and self.allowed:
            return f"Training here is for others than {email}: ask whoever runs this page to add you."
        return "Training here needs the launch password." if not self.allowed else "Training here needs a login."

    def admits(self, email: str | None) -> bool:
        """Whether an address that has been proven at login is on the list."""
        name = (email or "").strip().lower()
        known = {entry.lower() for entry in self.allowed}
        return "@" in name and (name in known or name[name.rindex("@") :] in known)

    def opens(self, guess: str) -> bool:
        """Whether this is the launch password; takes the same time whatever was guessed."""
        held = read_password(Path(self.password_file)) if self.password_file else self.password
        return bool(held) and hmac.compare_digest(guess.encode(), held.encode())


def checked_password(text: str, field: str) -> str:
    """Return a launch password; FieldError, which does not show it, if it is too short."""
    password = text.strip()
    if len(password) < SHORTEST_PASSWORD:
        raise FieldError(field, "…", f"must hold at least {SHORTEST_PASSWORD} characters", "choose a longer one")
    return password


def read_password(path: Path) -> str:
    """Return the launch password that a file holds. FieldError if it cannot be read or is too short."""
    try:
        return checked_password(path.read_text(encoding="utf-8"), "launch_password")
    except (OSError, UnicodeDecodeError) as error:
        raise FieldError("launch_password", str(path), "cannot be read", "give a file that holds it") from error


def read_limit(text: str) -> tuple[str, Any]:
    """Read one limit as the command line has it, ``session_runs=100`` or ``confirm_s=none``. FieldError otherwise."""
    name, _, value = text.partition("=")
    known = [one.name for one in fields(Limits)]
    if name not in known:
        raise FieldError("limit", text, "must be NAME=NUMBER or NAME=none", "names are " + ", ".join(known))
    if value == "none":
        return name, None
    if not value.isascii() or not value.isdigit() or not 1 <= len(value) <= 9:
        raise FieldError("limit", text, "must be a whole number in [0, 999999999], or none", f"try {name}=100")
    return name, int(value)


class LoginThrottle:
    """Counts wrong guesses of each address; after each one the next is heard only after a pause, twice as long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # address -> wrong guesses in a row, time of the last
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def attempt(self, access: Access, guess: str, address: str) -> str:
        """Return nothing for the right password, else what is wrong; a guess that comes too early is not heard."""
        now = time.monotonic()
        with self._lock:
            count, last = self._wrong.get(address, (0, 0.0))
            if count and now - last > FORGIVEN_AFTER_S:
                count = 0
            wait = last + _pause(count) - now if count else 0.0
            if wait > 0:
                return f"Too many wrong guesses: try again in {wait:.0f} s." if wait > 1 else "Wait a second, then try."
            if access.opens(guess):
                self._wrong.pop(address, None)
                return ""
            self._wrong[address] = (count + 1, now)
            self._wrong.move_to_end(address)
            while len(self._wrong) > REMEMBERED:
                self._wrong.popitem(last=False)
        return "This is not the launch password."


def _pause(wrong: int) -> float:
    return min(SLOWEST_GUESS_S, float(2 ** min(wrong - 1, 10)))
