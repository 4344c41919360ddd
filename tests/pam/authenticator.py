# SPDX-License-Identifier: Apache-2.0
"""A person's authenticator application: any parameters, its codes made by oathtool."""

import subprocess
import time
from typing import NamedTuple

from installed import PERIOD, DataRoot, new_secret, wait_for_step

PAST = (-2, -1)  # time steps of the enabling codes: the current one and the next stay good


class Authenticator(NamedTuple):
    """A virtual MFA device."""

    user: str
    name: str
    secret: str
    algorithm: str = "SHA1"
    digits: int = 6
    period: int = PERIOD

    @property
    def serial_number(self) -> str:
        """The device's serial number."""
        return f"virtual/{self.user}/{self.name}"

    def code(self, step: int = 0) -> str:
        """Return the code of the time step this many after the current one."""
        moment = int(time.time()) + step * self.period
        done = subprocess.run(
            ["oathtool", f"--totp={self.algorithm}", "--base32", "--now", f"@{moment}",
             "--digits", str(self.digits), "--time-step-size", str(self.period), "-"],
            input=self.secret, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        return done.stdout.strip()

    def wrong_code(self) -> str:
        """Return a code that is right at no time step near; not of zeros alone, as a log has."""
        near = {self.code(step) for step in range(-4, 5)}
        return next(
            code for code in (f"{n:0{self.digits}}" for n in range(1, 99)) if code not in near
        )

    def enable(self, root: DataRoot) -> "Authenticator":
        """Enable it by codes of past time steps."""
        codes = [self.code(step) for step in PAST]
        root.command(
            "enable", "virtual", self.user, "--name", self.name, "--secret", "-",
            "--codes", *codes, "--algorithm", self.algorithm, "--digits", str(self.digits),
            "--period", str(self.period), stdin=self.secret + "\n",
        )  # fmt: skip
        return self


def enroll(root: DataRoot, user: str, name: str = "phone") -> Authenticator:
    """Enable a usual device for a user."""
    wait_for_step()
    return Authenticator(user, name, new_secret()).enable(root)
