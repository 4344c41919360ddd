# SPDX-License-Identifier: Apache-2.0
"""The accounts of a private host: who can log in there, with which password.

Owns the lines added to copies of passwd, shadow and group, and the home directories. It is given
the copies' folder and must never be pointed at the machine's own /etc.
"""

import functools
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SHELL_PROMPT = "private-host-shell> "
FIRST_UID = 50001
# A hash that no password has: shadow(5), "a password field which starts with an exclamation mark".
LOCKED = "!"


@dataclass(frozen=True)
class Account:
    """A person who can log in to a private host; without a password no password is right."""

    name: str
    password: str | None = field(default=None, repr=False)
    shell: str = "/bin/sh"


@functools.cache
def password_hash(password: str | None) -> str:
    """Return the shadow(5) field for a password: SHA-512 crypt, or a locked field for None."""
    if password is None:
        return LOCKED
    made = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"],
        input=password,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return made.stdout.strip()


def add_accounts(etc: Path, homes: Path, accounts: Sequence[Account]) -> None:
    """Add accounts, each with its own group and home, to the copies of the files in `etc`.

    Raises:
        ValueError: the machine already has a user or group of that name.
    """
    for account in accounts:
        uid = _free_id(etc)
        _require_new(etc, account.name)
        home = make_home(homes, account.name, uid)
        _append(etc / "group", f"{account.name}:x:{uid}:")
        _append(etc / "passwd", f"{account.name}:x:{uid}:{uid}::{home}:{account.shell}")
        _append(etc / "shadow", f"{account.name}:{password_hash(account.password)}:20000::::::")


def set_root(etc: Path, homes: Path, password: str | None) -> None:
    """Give root a home of its own, sh as its shell, and this password in place of the machine's."""
    home = make_home(homes, "root", 0)
    _replace_root(etc / "passwd", f"root:x:0:0:root:{home}:/bin/sh")
    _replace_root(etc / "shadow", f"root:{password_hash(password)}:20000::::::")


def make_home(homes: Path, name: str, uid: int) -> Path:
    """Make a home whose login shell shows SHELL_PROMPT and prints no messages of the day."""
    home = homes / name
    home.mkdir(mode=0o700)
    (home / ".profile").write_text(f"PS1='{SHELL_PROMPT}'\n")
    (home / ".hushlogin").touch()
    for path in (home, *home.iterdir()):
        os.chown(path, uid, uid)
    return home


def _rows(path: Path) -> list[list[str]]:
    """Return a colon-separated file's rows."""
    return [line.split(":") for line in path.read_text().splitlines()]


def _free_id(etc: Path) -> int:
    """Return the first number from FIRST_UID that is neither a user's nor a group's."""
    rows = _rows(etc / "passwd") + _rows(etc / "group")
    taken = {row[2] for row in rows if len(row) > 2}
    return next(uid for uid in range(FIRST_UID, 60000) if str(uid) not in taken)


def _require_new(etc: Path, name: str) -> None:
    """Refuse a name that the machine has: a test would then log in as a real person."""
    if any(row[0] == name for row in _rows(etc / "passwd") + _rows(etc / "group")):
        raise ValueError(f"this machine already has a user or group {name}: name another account")


def _append(path: Path, line: str) -> None:
    """Add a line at a file's end."""
    with path.open("a") as file:
        file.write(f"{line}\n")


def _replace_root(path: Path, line: str) -> None:
    """Put a line in place of root's."""
    others = [old for old in path.read_text().splitlines() if not old.startswith("root:")]
    path.write_text("\n".join([line, *others, ""]))
