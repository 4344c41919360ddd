# SPDX-License-Identifier: Apache-2.0
"""The devices that a person carries: applications on a phone, hardware tokens, codes on paper.

Owns what each shows, made by oathtool, and how an administrator enables it with the installed
command. A device is known by one name: an application's name, or a token's serial number.
"""

import datetime
import json
import re
import secrets
import subprocess
import time
from base64 import b32encode
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple, Self

from installed import PERIOD, DataRoot

_PAPER = re.compile(r"\b(?:[A-Z2-7]{4}-){3}[A-Z2-7]{4}\b")
_EXPIRY = re.compile(r"expires_at: \S+")


class OtpDevice(NamedTuple):
    """An application or a token, by what is in it; a period of 0 is an event-based token."""

    name: str
    seed: bytes
    algorithm: str = "SHA1"
    digits: int = 6
    period: int = PERIOD

    def code(self, step: int) -> str:
        """Return the code of a counter, or of the time step this many after the current one.

        The next one, of step 1, is good already, and fresh after the enabling.
        """
        return self.codes(step, 1)[0]

    def wrong_code(self) -> str:
        """Return a code of its length that it shows at no time near to now; not of zeros alone."""
        shown = self.codes(-8, 24)
        return next(one for one in map(f"{{:0{self.digits}}}".format, count(1)) if one not in shown)

    def codes(self, step: int, number: int) -> list[str]:
        """Return codes that follow each other, of one moment: no time step begins among them."""
        moment = [f"--totp={self.algorithm}", "--now", f"@{int(time.time()) + step * self.period}"]
        size = ["--time-step-size", f"{self.period}s"]
        if not self.period:
            moment, size = ["--hotp", "--counter", str(step)], []
        window = ["--window", str(number - 1), "--digits", str(self.digits)]
        done = subprocess.run(
            ["oathtool", *moment, *size, *window, "-"],
            input=self.seed.hex(), capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        return done.stdout.split()

    def enable_application(self, root: DataRoot, user: str) -> Self:
        """Enable it as a virtual device, by its last code and the one that it shows now."""
        root.command(
            "enable", "virtual", user, "--name", self.name, "--secret", "-",
            "--codes", *self.codes(-1, 2), "--algorithm", self.algorithm,
            "--digits", str(self.digits), "--period", str(self.period),
            stdin=b32encode(self.seed).decode("ascii") + "\n",
        )  # fmt: skip
        return self

    def enable_token(self, root: DataRoot, user: str, pair: Sequence[str]) -> Self:
        """Enable it as a token of the stock, by two codes that it has shown."""
        root.command(
            "enable", "token", user, "--serial-number", self.name, "--name", self.name,
            "--codes", *pair,
        )  # fmt: skip
        return self


def new_device(
    name: str, algorithm: str = "SHA1", digits: int = 6, period: int = PERIOD
) -> OtpDevice:
    """Return a device with a fresh seed."""
    return OtpDevice(name, secrets.token_bytes(20), algorithm, digits, period)


def recovery_codes(root: DataRoot, user: str) -> list[str]:
    """Make a set of recovery codes, as the administrator prints it."""
    return _PAPER.findall(root.command("enable", "recovery", user).stdout)


def bypass_code(root: DataRoot, user: str) -> str:
    """Issue a bypass and return its code."""
    (code,) = _PAPER.findall(root.command("bypass", user, "--for", "1m").stdout)
    return str(code)


def let_bypass_expire(root: DataRoot, user: str) -> None:
    """Put the end of a user's bypass a second into the past, in place of waiting for it."""
    path = root.device_file(user)
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1)
    text, changed = _EXPIRY.subn(f"expires_at: {past:%Y-%m-%dT%H:%M:%SZ}", path.read_text("ascii"))
    assert changed == 1
    path.write_text(text, "ascii")  # in place, so that it keeps its owner and mode


def accepted_devices(root: DataRoot) -> list[str]:
    """Return the names of the devices by which people were let in, oldest first."""
    return [one["device"]["name"] for one in root.audit() if one["outcome"] == "success"]


def status_of(root: DataRoot, user: str) -> dict[str, dict[str, Any]]:
    """Return the status of a user's devices, by serial number, each with what is the user's."""
    (row,) = json.loads(root.command("status", user, "--json").stdout)
    return {device["serial_number"]: {**row, **device} for device in row["devices"]}
