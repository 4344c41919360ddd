# SPDX-License-Identifier: Apache-2.0
"""Enables a virtual device whose secret the application has already: ``enroll.py USER NAME``.

The secret is a line of standard input, in base32; neither it nor a code is ever an argument.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, "/usr/lib/pam-mfa/lib/python")

import pyotp  # noqa: E402 - the package's own
from pam_mfa.errors import PamMfaError  # noqa: E402
from pam_mfa.lifecycle import open_lifecycle  # noqa: E402
from pam_mfa.oath import parse_seed  # noqa: E402


def main(user: str, name: str) -> None:
    """Enable it by the codes of the last time step and of this one, which are used up so."""
    secret = sys.stdin.readline().strip()
    with open_lifecycle(Path("/")) as mfa:
        pending = mfa.begin_virtual(user, name, seed=parse_seed(secret))
        now, totp = int(time.time()), pyotp.TOTP(secret.upper().replace(" ", "").rstrip("="))
        device = mfa.enable(pending, totp.at(now - totp.interval), totp.at(now))
    sys.stdout.write(f"enabled {device.serial_number}\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except PamMfaError as error:
        sys.exit(f"{error}\n{error.hint}")
