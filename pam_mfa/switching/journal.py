# SPDX-License-Identifier: Apache-2.0
"""The journal of switches: what each switched service's files were and are, in one file of root's.

It is on disk before the first file is changed, and says how far a switch was: an interrupted one is
undone by it. It lies under /etc, on the file system of what it tells of, and out of reach of the
verifier's user: what stands in it, root writes into /etc/pam.d.
"""

import base64
import binascii
import contextlib
import enum
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.store.files import read_file, remove_file, replace_file
from pam_mfa.store.layout import Layout
from pam_mfa.switching.placing import Placed

NAME = "switch.json"
_LOCK = "pam-mfa-switch.lock"
_VERSION = 1
_SIZE_MAX = 1 << 24  # bytes
_FORBIDDEN = 0o022


class Stage(enum.StrEnum):
    """How far a switch is."""

    TURNING_ON = "turning on"
    ON = "on"
    TURNING_OFF = "turning off"


class FileRecord(NamedTuple):
    """One file of a switch."""

    path: str  # under the root
    before: Placed
    after: bytes


class Record(NamedTuple):
    """One switched service."""

    service: str
    files: tuple[FileRecord, ...]
    stage: Stage
    at: float  # seconds since the epoch
    by: str  # the name of whoever switched it on
    confirmed: bool
    boot: str  # the boot in which it was switched on, and the seconds since that boot when it
    deadline: float  # ends unless it is confirmed; 0: never

    def is_due(self, boot: str, now: float) -> bool:
        """Whether it is to be undone: interrupted, or not confirmed in time or in this boot.

        The time is the boot's own, so that setting the clock moves no deadline.
        """
        if self.stage is not Stage.ON:
            return True
        return not self.confirmed and bool(self.deadline) and (
            boot != self.boot or now >= self.deadline
        )  # fmt: skip


Records = dict[str, Record]


class Journal:
    """The journal under one root."""

    def __init__(self, layout: Layout) -> None:
        """Take the root; nothing is read yet."""
        self.path = layout.policy.parent / NAME
        self._lock_path = layout.root / "run" / _LOCK

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other switches out.

        Raises:
            RefusedError: one is under way.
        """
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._lock_path.parent.mkdir(mode=0o755, exist_ok=True)
            # A file that nobody else can open: whoever holds a lock could keep the undo out.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._lock_path, flags, 0o600)
        except OSError as error:
            raise RefusedError(
                f"{error.filename} cannot be used: {error.strerror}; nothing was changed"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise RefusedError(
                "another pam-mfa switch is at work; nothing was changed", hint="Wait for its end."
            ) from error
        finally:
            os.close(descriptor)

    def read(self) -> Records:
        """Return what is switched.

        Raises:
            BrokenSystemError: the journal is damaged, or others may have written it.
        """
        owners = {0, os.geteuid()}
        try:
            data = read_file(self.path, owners=owners, forbidden=_FORBIDDEN, size_max=_SIZE_MAX)
        except FileNotFoundError:
            return {}
        try:
            content = json.loads(data)
            if content["version"] != _VERSION:
                raise ValueError(content["version"])
            records = [_parse(one) for one in content["services"]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BrokenSystemError(
                f"the journal of switches, {self.path}, is damaged",
                hint="To take pam-mfa's lines out all the same: pam-mfa switch off all --force",
            ) from error
        return {one.service: one for one in records}

    def write(self, records: Records) -> None:
        """Make what is switched durable; without any record there is no journal.

        Raises:
            BrokenSystemError: it is as it was.
        """
        if not records:
            remove_file(self.path)
            return
        content = {"version": _VERSION, "services": [_format(one) for one in records.values()]}
        replace_file(self.path, json.dumps(content, indent=1).encode("ascii"), 0o600)

    def set_aside(self) -> None:
        """Move a damaged journal out of the way, and keep it.

        Raises:
            RefusedError: it cannot be moved.
        """
        try:
            self.path.rename(self.path.with_suffix(".json.damaged"))
        except OSError as error:
            raise RefusedError(
                f"{self.path} is damaged, and cannot be moved away: {error.strerror}"
            ) from error

    def tidy(self) -> None:
        """Take away drafts of the journal that a process which was killed has left."""
        for draft in self.path.parent.glob(f"{NAME}.*.new"):
            with contextlib.suppress(OSError):
                draft.unlink()


def _format(record: Record) -> dict[str, object]:
    files = [
        {
            "path": one.path,
            "before": _encode(one.before.data),
            "uid": one.before.uid,
            "gid": one.before.gid,
            "mode": one.before.mode,
            "after": _encode(one.after),
        }
        for one in record.files
    ]
    return {**record._asdict(), "files": files}


def _parse(row: dict[str, Any]) -> Record:
    """Return a record; any other shape raises."""
    fields = {**row, "stage": Stage(row["stage"])}
    fields["files"] = tuple(_parse_file(one) for one in row["files"])
    record = Record(**fields)
    texts = (record.service, record.by, record.boot)
    if not all(isinstance(text, str) for text in texts) or not isinstance(record.confirmed, bool):
        raise TypeError(record.service)
    return record._replace(at=float(record.at), deadline=float(record.deadline))


def _parse_file(row: dict[str, Any]) -> FileRecord:
    path, after = row["path"], _decode(row["after"])
    parts = Path(path).parts
    # Whatever stands there, root writes nowhere but into the files that are switched.
    if parts[:2] not in (("etc", "pam.d"), ("etc", "ssh")) or ".." in parts or after is None:
        raise ValueError(path)
    before = Placed(_decode(row["before"]), int(row["uid"]), int(row["gid"]), int(row["mode"]))
    return FileRecord(path, before, after)


def _encode(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")


def _decode(text: str | None) -> bytes | None:
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(text) from error
