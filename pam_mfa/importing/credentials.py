# SPDX-License-Identifier: Apache-2.0
"""Credentials as other programs keep them: what their files say of each user's device.

Pure. ``google_authenticator`` and ``users_oath`` read files into these; ``importing`` takes them.
"""

from typing import NamedTuple

from pam_mfa.oath import Parameters
from pam_mfa.secret import Secret


class Credential(NamedTuple):
    """One device of one user, in use with another program."""

    user: str
    source: str  # the file, for the record
    line: int  # of the file
    parameters: Parameters
    seed: Secret
    used_steps: tuple[int, ...] = ()  # time steps or counters that were accepted there
    drift: int = 0  # time steps that its clock is ahead
    window: int = 0  # codes that are accepted there at one moment; 0: the file does not say
    scratch_codes: tuple[str, ...] | None = None  # of eight digits; None: such files have none
    obstacle: str = ""  # why it cannot be taken although it is well understood


class BadCredential(NamedTuple):
    """What a file says of a user and is not to be understood; the reason quotes nothing of it."""

    user: str  # "" where it is not known
    source: str
    line: int  # 0: the file as a whole
    reason: str
