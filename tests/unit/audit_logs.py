# SPDX-License-Identifier: Apache-2.0
"""Logs for the tests of reading: chained and signed here by the standard's own words.

Lines, hashes and signatures are made with the standard library and an Ed25519 key of the test's
own, not by the writer, so that the two sides can be wrong only apart.
"""

import base64
import datetime
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

START = datetime.datetime(2026, 11, 24, 8, tzinfo=datetime.UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def spell(record: dict[str, Any]) -> bytes:
    """Return a record's canonical text."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii")


def stamp(moment: datetime.datetime) -> str:
    """Return a time as records have it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class LogMaker:
    """Makes a log's lines, each joined to the one before."""

    def __init__(self, key: Ed25519PrivateKey = KEY) -> None:
        """Begin an empty chain."""
        self.lines: list[bytes] = []  # with their newlines
        self.now = START
        self._key = key
        self._previous = "0" * 64
        self._sequence = 0

    def add(self, event_name: str = "VerifyMfa", **fields: Any) -> "LogMaker":  # noqa: ANN401
        """Add a record a second later; return the maker."""
        self.now += datetime.timedelta(seconds=1)
        self._put(self._build(event_name, fields))
        return self

    def sign(self, reason: str = "interval", **fields: Any) -> "LogMaker":  # noqa: ANN401
        """Add a checkpoint; return the maker."""
        raw = self._key.public_key().public_bytes_raw()
        key_id = hashlib.sha256(raw).hexdigest()[:16]
        record = self._build("Checkpoint", {"reason": reason, "public_key_id": key_id, **fields})
        if self._sequence == 0 or reason == "start":
            record["public_key"] = base64.b64encode(raw).decode("ascii")
        record["signature"] = base64.b64encode(self._key.sign(spell(record))).decode("ascii")
        self._put(record)
        return self

    def skip(self, count: int) -> "LogMaker":
        """Leave so many sequences out, as where records were lost; return the maker."""
        self._sequence += count
        self._previous = hashlib.sha256(b"lost").hexdigest()
        return self

    def _build(self, event_name: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "version": 1,
            "sequence": self._sequence + 1,
            "previous": self._previous,
            "time": stamp(self.now),
            "event_id": f"{self._sequence:016x}",
            "event_name": event_name,
            "outcome": "success",
            "reason": "code_accepted",
            "host": "host.example",
            "process": {"pid": 4321, "program": "pam-mfad"},
            **fields,
        }

    def _put(self, record: dict[str, Any]) -> None:
        line = spell(record)
        self._sequence += 1
        self._previous = hashlib.sha256(line).hexdigest()
        self.lines.append(line + b"\n")


def make_lines(count: int, every: int = 7) -> list[bytes]:
    """Return a log of so many records, of which some are checkpoints."""
    maker = LogMaker().sign("start")
    while len(maker.lines) < count:
        if len(maker.lines) % every == 0:
            maker.sign()
        else:
            number = len(maker.lines)
            maker.add(
                user=f"user{number % 3}", service="sshd", outcome=("success", "denied")[number % 2]
            )
    return maker.lines[:count]


def write_log(path: Path, lines: Iterable[bytes]) -> Path:
    """Write a log; return its path."""
    path.write_bytes(b"".join(lines))
    return path
