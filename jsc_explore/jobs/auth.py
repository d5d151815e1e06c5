"""Authorisation to train at a page: for nobody (read only), by password, by login, or for everybody.

The command line sets the rule when it starts the page and passes it on in environment variables. The page's server
checks it here for every request; nothing that a browser shows or sends is trusted.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import re
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
# uvicorn believes X-Forwarded-For from these addresses; where it is not set, from this machine.
TRUSTED_PROXIES = "FORWARDED_ALLOW_IPS"
VARIABLES = (READ_ONLY, PASSWORD, PASSWORD_FILE, ALLOW, LIMIT, TRUSTED_PROXIES)
# A shorter password can be guessed even with throttled attempts.
MIN_PASSWORD_LENGTH = 8
# Of one session: the longest delay, and when wrong attempts are forgotten.
MAX_DELAY_S, RESET_AFTER_S = 30.0, 600.0
# Of one address: wrong attempts at once, the time in which one more becomes possible, how long an attempt waits for it.
BURST, SECONDS_PER_GUESS, MAX_WAIT_S = 10.0, 1.0, 3.0
# Sessions and addresses that are remembered. Who has more addresses than these is not stopped by them.
MAX_KEPT = 10_000


@dataclass(frozen=True)
class Access:
    """The rights of a page's visitors.

    ``allowed`` lists e-mail addresses, or domains written ``@uni.edu``, whose owners may train after logging in.
    With both a password and a list, either suffices. ``password_file`` is read at every attempt.
    ``trusted_proxies`` are addresses or networks of proxies: the last address in X-Forwarded-For that is not among
    them is the visitor's.
    """

    read_only: bool = False
    password: str = field(default="", repr=False)
    password_file: str = ""
    allowed: tuple[str, ...] = ()
    limits: Limits = LIMITS
    trusted_proxies: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Access:
        """Read the variables that ``to_environment`` returns; by default from this process's environment."""
        given = os.environ if environment is None else environment
        return cls(
            given.get(READ_ONLY, "") not in ("", "0"),
            given.get(PASSWORD, ""),
            given.get(PASSWORD_FILE, ""),
            tuple(filter(None, given.get(ALLOW, "").split(","))),
            replace(LIMITS, **json.loads(given.get(LIMIT) or "{}")),
            tuple(filter(None, given.get(TRUSTED_PROXIES, "").split(","))),
        )

    def to_environment(self) -> dict[str, str]:
        """Return the environment variables that pass these rights to another process."""
        changed = {k: v for k, v in asdict(self.limits).items() if v != getattr(LIMITS, k)}
        values = {
            READ_ONLY: "1" if self.read_only else "",
            PASSWORD: self.password,
            PASSWORD_FILE: self.password_file,
            ALLOW: ",".join(self.allowed),
            LIMIT: json.dumps(changed) if changed else "",
        }
        given = {name: text for name, text in values.items() if text}
        # Also where it is empty: uvicorn's own default is to trust every connection from this machine.
        return {**given, TRUSTED_PROXIES: ",".join(self.trusted_proxies)}

    @property
    def has_password(self) -> bool:
        """Whether this page has a launch password."""
        return bool(self.password or self.password_file)

    def refusal(self, *, unlocked: bool = False, email: str | None = None) -> str:
        """Return in one line why a visitor may not train and what to do about it; empty if they may."""
        if self.read_only:
            return "This page is read only: it shows stored runs and trains nothing."
        if not self.has_password and not self.allowed:
            return ""
        if (self.has_password and unlocked) or self.is_allowed(email):
            return ""
        if email and self.allowed:
            return f"{email} may not train here: ask the owner of this page to add you."
        return "Training here needs the launch password." if not self.allowed else "Training here needs a login."

    def is_allowed(self, email: str | None) -> bool:
        """Return whether an address, verified at login, is on the list."""
        name = (email or "").strip().lower()
        known = {entry.lower() for entry in self.allowed}
        return "@" in name and (name in known or name[name.rindex("@") :] in known)

    def is_password(self, attempt: str) -> bool:
        """Return whether this is the launch password, in constant time."""
        password = read_password(Path(self.password_file)) if self.password_file else self.password
        return bool(password) and hmac.compare_digest(attempt.encode(), password.encode())


def check_password(text: str, field: str) -> str:
    """Return a launch password without surrounding blanks; FieldError, which does not show it, if it is too short."""
    password = text.strip()
    if len(password) < MIN_PASSWORD_LENGTH:
        raise FieldError(field, "…", f"must hold at least {MIN_PASSWORD_LENGTH} characters", "choose a longer one")
    return password


def read_password(path: Path) -> str:
    """Return the launch password in a file; FieldError if the file cannot be read or the password is too short."""
    try:
        return check_password(path.read_text(encoding="utf-8"), "launch_password")
    except (OSError, UnicodeDecodeError) as error:
        raise FieldError(
            "launch_password", str(path), "cannot be read", "give the path of a text file with the password"
        ) from error


def parse_network(text: str) -> str:
    """Return an address or a network of a trusted proxy in its usual form; FieldError if it is neither."""
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        remedy = "write 127.0.0.1 or 10.0.0.0/8"
        raise FieldError("trusted_proxy", text, "must be an IP address or a network", remedy) from error
    return str(network.network_address if network.num_addresses == 1 else network)


def check_hostname(text: str) -> str:
    """Return a host name in small letters; FieldError if it is none, for instance a URL."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", text.lower()):
        raise FieldError("hostname", text, "must be a host name without scheme and port", "write jets.uni.edu")
    return text.lower()


def parse_limit(text: str) -> tuple[str, Any]:
    """Parse a limit of the command line, ``session_runs=100`` or ``confirm_s=none``; FieldError if it is invalid."""
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
    """Limits password attempts by session and by address.

    In a session each wrong password doubles the delay until the next attempt is checked. All sessions of an address
    together have ``BURST`` wrong ones, and one more per second; right ones cost nothing. An attempt that finds none
    left waits for up to ``MAX_WAIT_S``, so that who knows the password gets in while somebody else guesses.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # session -> (consecutive wrong attempts, time of the last one); address -> (attempts left, time of that number)
        self._wrong: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._budgets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def attempt(self, access: Access, password: str, session: str, address: str) -> str:
        """Return an error message, empty for the right password; an attempt that comes too early is not checked."""
        waited = 0.0
        while True:
            now = time.monotonic()
            with self._lock:
                count, last = self._wrong.get(session, (0, 0.0))
                count = count if now - last <= RESET_AFTER_S else 0
                if count and (delay := last + _delay(int(count)) - now) > 0:
                    return f"Too many wrong passwords: try again in {max(delay, 1):.0f} s."
                left, since = self._budgets.get(address, (BURST, now))
                left = min(BURST, left + (now - since) / SECONDS_PER_GUESS)
                if left >= 1:
                    if access.is_password(password):
                        self._wrong.pop(session, None)
                        return ""
                    _keep(self._wrong, session, (count + 1, now))
                    _keep(self._budgets, address, (left - 1, now))
                    return "This is not the launch password."
            if waited >= MAX_WAIT_S:
                return "Too many wrong passwords come from your network address: try again in a few seconds."
            wait = min((1 - left) * SECONDS_PER_GUESS, MAX_WAIT_S - waited) + 0.01
            time.sleep(wait)
            waited += wait


def _keep(kept: OrderedDict[str, tuple[float, float]], key: str, value: tuple[float, float]) -> None:
    """Set a value and forget the oldest beyond ``MAX_KEPT``."""
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > MAX_KEPT:
        kept.popitem(last=False)


def _delay(wrong: int) -> float:
    return min(MAX_DELAY_S, float(2 ** min(wrong - 1, 10)))
