# SPDX-License-Identifier: Apache-2.0
"""What a host remembers of each target: the last record that was put there.

A target that can be asked is believed; then this shows whether the target has lost what it had.
For one that cannot be asked, as syslog, it is all that is known.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from pam_mfa.audit import Head
from pam_mfa.audit_shipping.sinks import Chain
from pam_mfa.errors import BrokenSystemError
from pam_mfa.store.files import read_file, replace_file

_SIZE_MAX = 1 << 20  # bytes
_MODE = 0o600


class Positions:
    """The file of one host, for one target."""

    def __init__(self, path: Path, target: str) -> None:
        """Take the file, which need not be there, and what the target is called.

        Raises:
            BrokenSystemError: the file is damaged, or others may write to it.
        """
        self._path = path
        self._target = target
        self._all = self._read()

    @property
    def machine(self) -> str:
        """What this host is known by where it has no machine id; made at the first call."""
        found = self._all.get("machine")
        if not isinstance(found, str):
            found = self._all["machine"] = os.urandom(8).hex()
            self._write()
        return found

    def get(self) -> Chain | None:
        """Return what was put last; None where nothing was."""
        found = self._targets().get(self._target)
        if not isinstance(found, list) or [type(one) for one in found] != [int, int, str]:
            return None
        return Chain(found[0], Head(found[1], found[2]))

    def put(self, chain: Chain) -> None:
        """Remember, durably.

        Raises:
            BrokenSystemError: it cannot be written.
        """
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)  # a shipper to another target writes here, too
            self._all = {**self._all, **self._read()}
            self._targets()[self._target] = [chain.number, *chain.head]
            self._write()
        finally:
            os.close(directory)

    def _targets(self) -> dict[str, Any]:
        found = self._all.setdefault("targets", {})
        return found if isinstance(found, dict) else {}

    def _read(self) -> dict[str, Any]:
        try:
            data = read_file(self._path, owners={os.geteuid()}, forbidden=0o022, size_max=_SIZE_MAX)
            found = json.loads(data)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            found = error
        if isinstance(found, dict):
            return found
        raise BrokenSystemError(
            f"{self._path} is damaged",
            hint="Move it away: a directory tells itself what it has; to syslog all is sent again.",
        )

    def _write(self) -> None:
        replace_file(self._path, json.dumps(self._all, sort_keys=True).encode() + b"\n", _MODE)
