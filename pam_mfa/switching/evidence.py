# SPDX-License-Identifier: Apache-2.0
"""Who has got past pam_mfa.so since a switch, by the audit log. Reads only."""

import datetime
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pam_mfa.audit import EventName, Outcome
from pam_mfa.switching.catalog import family_of

_END_BYTES = 1 << 22  # of the log's end: thousands of logins
_SU = "su"  # a family
_NAMES = (EventName.VERIFY_MFA.value, EventName.SKIP_MFA.value)


class Passage(NamedTuple):
    """A login that the module let by."""

    user: str
    service: str
    at: float  # seconds since the epoch
    by: str = ""  # whoever ran the program, by its word


def read_passages(log: Path, since: float) -> list[Passage]:
    """Return the logins that were let by since then, by this log and the one rotated before it."""
    lines = (line for path in (log, log.with_name(f"{log.name}.1")) for line in _read_end(path))
    return [found for line in lines if (found := _parse(line)) and found.at >= since]


def is_proven(passages: Iterable[Passage], service: str, since: float, user: str | None) -> bool:
    """Whether a service's new stack has let somebody in since then, or this very user."""
    family = family_of(service)
    fitting = (one for one in passages if one.at >= since and family_of(one.service) == family)
    return any(user in (None, *_people(one)) for one in fitting)


def _people(passage: Passage) -> tuple[str, ...]:
    """Return who has got in: by su it is its caller, who is asked for another user's code."""
    is_su = family_of(passage.service) == _SU
    return (passage.user, passage.by) if is_su and passage.by else (passage.user,)


def _parse(line: bytes) -> Passage | None:
    """Return a passage; None for any other line."""
    try:
        record = json.loads(line)
        if record["event_name"] not in _NAMES or record["outcome"] != Outcome.SUCCESS.value:
            return None
        if record.get("is_claim"):  # the service is the word of the user who asked
            return None
        at = datetime.datetime.fromisoformat(record["time"]).timestamp()
        by = str(record.get("ruser", ""))
        return Passage(str(record["user"]), str(record["service"]), at, by)
    except (ValueError, KeyError, TypeError):
        return None


def _read_end(path: Path) -> Iterator[bytes]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return
    try:
        start = max(0, os.fstat(descriptor).st_size - _END_BYTES)
        yield from os.pread(descriptor, _END_BYTES, start).splitlines()
    finally:
        os.close(descriptor)
