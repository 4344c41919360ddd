# SPDX-License-Identifier: Apache-2.0
"""Who would be refused: what the audit log has of logins that were only reported.

Memory is bounded, however long the log is: so many users by service are told apart, and the rest
is counted together. Reads lines of the log, and nothing else; a line that is none is passed over.
"""

import datetime
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

_KINDS_MAX: Final = 10_000
_PENDING_MAX: Final = 10_000
_LOGIN_LONGEST: Final = 600.0  # seconds, of one conversation
LINE_MAX: Final = 65536  # bytes; records are far shorter
_REST: Final = "(others)"


class _Kind(NamedTuple):
    """What is counted together."""

    user: str
    service: str
    reason: str
    rule: str


class _Refusal(NamedTuple):
    """The last record of a login that would have been refused by then."""

    at: datetime.datetime
    kind: _Kind


class Tally:
    """Counts refusals that policy only reported."""

    def __init__(self, since: datetime.datetime) -> None:
        """Count from a moment on."""
        self._since = since
        self._pending: dict[tuple[str, str, int], _Refusal] = {}
        self._counts: dict[_Kind, tuple[int, datetime.datetime]] = {}

    def read(self, lines: Iterable[bytes]) -> None:
        """Take the lines of a log, oldest first."""
        for line in lines:
            record = _parse(line)
            if record is not None:
                self._take(record)

    def rows(self) -> Iterator[dict[str, object]]:
        """Go through what was counted, the most frequent first."""
        for refusal in self._pending.values():
            self._count(refusal)
        self._pending.clear()
        for kind, (count, last) in sorted(
            self._counts.items(), key=lambda item: (-item[1][0], item[0])
        ):
            yield {**kind._asdict(), "count": count, "last": last.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def _take(self, record: dict[str, Any]) -> None:
        at = datetime.datetime.fromisoformat(str(record["time"]))
        if at < self._since:
            return
        user = str(record.get("user") or record.get("unknown_user") or "")
        service, process = str(record.get("service", "")), int(record.get("caller_pid", 0))
        before = self._pending.pop((user, service, process), None)
        is_same_login = before is not None and (at - before.at).total_seconds() < _LOGIN_LONGEST
        if before is not None and not is_same_login:
            self._count(before)
        if record["outcome"] == "success":
            return  # a wrong code before it was forgiven
        kind = _Kind(user, service, str(record["reason"]), str(record.get("rule", "")))
        self._pending[user, service, process] = _Refusal(at, kind)
        if len(self._pending) > _PENDING_MAX:
            self._count(self._pending.pop(next(iter(self._pending))))

    def _count(self, refusal: _Refusal) -> None:
        kind = refusal.kind
        if kind not in self._counts and len(self._counts) >= _KINDS_MAX:
            kind = _Kind(_REST, "", "", "")
        count, last = self._counts.get(kind, (0, refusal.at))
        self._counts[kind] = (count + 1, max(last, refusal.at))


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return a verification's record that was only reported; None for any other line."""
    if b'"mode":"report-only"' not in line or len(line) > LINE_MAX:
        return None
    try:
        record = json.loads(line)
        moment = datetime.datetime.fromisoformat(record["time"])
    except (ValueError, KeyError, TypeError):
        return None
    is_whole = isinstance(record.get("outcome"), str) and isinstance(record.get("reason"), str)
    is_ours = record.get("event_name") == "VerifyMfa" and record.get("mode") == "report-only"
    has_process = isinstance(record.get("caller_pid", 0), int)
    return record if is_whole and is_ours and has_process and moment.tzinfo else None
