# SPDX-License-Identifier: Apache-2.0
"""A host with a log, a directory to ship it to, and shippers that are killed."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pam_mfa.audit_shipping import Shipper
from pam_mfa.audit_shipping.file_sink import FileSink
from pam_mfa.audit_shipping.hosts import Claim, SignOfLife, parse_sign
from pam_mfa.audit_shipping.position import Positions


class Host:
    """A host with a log, and a directory to ship it to."""

    def __init__(self, base: Path, name: str = "web1", machine: str = "0123456789abcdef") -> None:
        """Make both; the log is not there yet."""
        self.target = base / "target"
        self.target.mkdir(exist_ok=True)
        self.log = base / f"{machine}/audit.jsonl"
        self.log.parent.mkdir()
        self.told: list[str] = []
        self.claim = Claim(name, machine, "", "2026-11-24T08:00:00.000000Z")

    def open(self) -> tuple[FileSink, Shipper]:
        """Open the target and a shipper, as a process does."""
        sink = FileSink(self.target, self.claim)
        positions = Positions(self.log.parent / "shipped.json", str(self.target))
        return sink, Shipper(self.log, sink, positions, self.told.append)

    def ship(self) -> int:
        """Ship once, in a process's life; return how many records were shipped."""
        sink, shipper = self.open()
        try:
            return shipper.ship()
        finally:
            sink.close()

    def chain(self, number: int = 1) -> Path:
        """Return the file of a chain at the target."""
        suffix = f"+{number}" if number > 1 else ""
        return self.target / f"{self.claim.host}{suffix}.jsonl"

    def copy(self, number: int = 1) -> list[bytes]:
        """Return the lines of a chain at the target."""
        path = self.chain(number)
        return path.read_bytes().splitlines(keepends=True) if path.exists() else []

    def sign(self) -> SignOfLife:
        """Return the sign of life."""
        return parse_sign((self.target / f"{self.claim.host}.alive.json").read_bytes())


def kill_at(name: str, number: int, *, is_half: bool) -> None:
    """Have this process killed at the so-many-th call, a write after half of its bytes."""
    calls = itertools.count(1)
    original: Callable[..., Any] = getattr(os, name)

    def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        if next(calls) == number:
            if is_half and name == "write":
                original(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            elif is_half:
                original(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(os, name, call)


def ship_killed(host: Host, name: str, number: int, *, is_half: bool) -> bool:
    """Ship in a process that is killed; return whether it was."""
    child = os.fork()
    if not child:
        try:
            kill_at(name, number, is_half=is_half)
            host.ship()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
