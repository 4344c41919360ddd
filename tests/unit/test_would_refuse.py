# SPDX-License-Identifier: Apache-2.0
"""Whom policy would refuse, by what the audit log has of logins that were only reported."""

import datetime
import json
from typing import Any

import pytest

from pam_mfa import would_refuse
from pam_mfa.audit import Event, EventName, Head, Origin, Outcome, Reason, format_event
from pam_mfa.would_refuse import Tally

START = 1_700_000_000.0
ALL = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def line(at: float = 0, outcome: Outcome = Outcome.DENIED, **fields: Any) -> bytes:  # noqa: ANN401
    """Return a line of the log, so many seconds after the start."""
    event = Event(
        EventName.VERIFY_MFA, outcome, Reason.WRONG_CODE, START + at, user="alice",
        service="sshd", mode="report-only", caller_uid=0, caller_pid=7,
    )  # fmt: skip
    origin = Origin("host", 1, "pam-mfad")
    return format_event(event._replace(**fields), "id", origin, Head())


def count(*lines: bytes, since: datetime.datetime = ALL) -> list[tuple[object, ...]]:
    """Return user, service, reason and count of each row."""
    tally = Tally(since)
    tally.read(lines)
    return [(row["user"], row["service"], row["reason"], row["count"]) for row in tally.rows()]


ALICE = ("alice", "sshd", "wrong_code")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], []),
        ([line()], [(*ALICE, 1)]),
        ([line(), line(1), line(2)], [(*ALICE, 1)]),
        ([line(), line(1, Outcome.SUCCESS)], []),
        ([line(), line(1, caller_pid=8)], [(*ALICE, 2)]),
        ([line(), line(700)], [(*ALICE, 2)]),
        ([line(), line(700, Outcome.SUCCESS)], [(*ALICE, 1)]),
        ([line(), line(1, Outcome.SUCCESS, user="bob")], [(*ALICE, 1)]),
        ([line(mode="enforce")], []),
        ([line(name=EventName.SKIP_MFA)], []),
        ([line(outcome=Outcome.ERROR)], [(*ALICE, 1)]),
        (
            [line(), line(1, reason=Reason.LOCKED)],
            [("alice", "sshd", "locked", 1)],
        ),
        ([line(user="", unknown_user="p-1")], [("p-1", "sshd", "wrong_code", 1)]),
        ([b"", b"\n", b'{"mode":"report-only"', b'["mode":"report-only"]\n'], []),
        ([b'{"mode":"report-only","time":7}\n', b'{"mode":"report-only","time":"x"}\n'], []),
    ],
)
def test_count(lines: list[bytes], expected: list[tuple[object, ...]]) -> None:
    """A login counts once, by its last reason, and not where a right answer ended it."""
    assert expected == count(*lines)


def test_no_record_of_another_shape() -> None:
    """A line whose fields are of other kinds is passed over."""
    good = json.loads(line())
    bad = [good | {"outcome": 1}, good | {"reason": None}, good | {"caller_pid": "x"}]
    text = [json.dumps(one, separators=(",", ":")).encode() for one in bad]
    assert [] == count(*text)


def test_since() -> None:
    """What is older than asked for does not count."""
    since = datetime.datetime.fromtimestamp(START + 10, datetime.UTC)
    lines = [line(0, caller_pid=1), line(20, caller_pid=2)]
    assert [(*ALICE, 1)] == count(*lines, since=since)


def test_order() -> None:
    """The most frequent comes first."""
    lines = [line(user="bob"), *(line(n, caller_pid=n) for n in range(3))]
    assert ["alice", "bob"] == [row[0] for row in count(*lines)]


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many users there are, only so many are told apart; the rest is counted together."""
    monkeypatch.setattr(would_refuse, "_KINDS_MAX", 2)
    monkeypatch.setattr(would_refuse, "_PENDING_MAX", 2)
    rows = count(*(line(n, user=f"u{n}") for n in range(5)))
    assert [("(others)", "", "", 3), ("u0", "sshd", "wrong_code", 1)] == rows[:2]
