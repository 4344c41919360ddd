# SPDX-License-Identifier: Apache-2.0
"""What is remembered, by the Python API and the command line: listed, ended, recorded."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from doubles import START, Clock, make_layout

from pam_mfa.cli import session
from pam_mfa.cli.__main__ import commands
from pam_mfa.errors import RefusedError
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.mfa_age import Place, Verified
from pam_mfa.store import Change, Claim, Memory, encode_user
from pam_mfa.store.embedded import EmbeddedStore

ACTOR = Actor(0, 4321, 1000)
NAMES = ("alice", "Bob Ünal", "end")


class Host:
    """A store in which verifications are remembered."""

    def __init__(self, root: Path) -> None:
        """Open it."""
        self.layout = make_layout(root)
        self.store = EmbeddedStore(self.layout)
        self.clock = Clock(START + 60.4)
        self.lifecycle = Lifecycle(self.store, self.clock, ACTOR)

    def remember(
        self, user: str, session_name: str = "audit:5", source: str = "4:c0000207"
    ) -> None:
        """Have a verification remembered."""
        place = Place("1:2", "", session_name, "boot", source)
        device = f"virtual/{user}/phone"
        one = Verified(encode_user(user), "virtual", device, "h", "sudo", "pts/0", place, START)
        change = Change(accepted=True, events=(), memory=Memory(one, 900.0, START))
        self.store.commit([Claim(encode_user(user), (), lambda _: change)])

    def records(self) -> list[dict[str, object]]:
        """Return the audit log."""
        text = self.layout.audit_log.read_text("ascii") if self.layout.audit_log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose command line acts as root does."""
    made = Host(tmp_path)
    monkeypatch.setattr(session, "open_store", lambda _layout: (made.store, ACTOR))
    monkeypatch.setattr(session.Session, "is_own", False)
    return made


def run(host: Host, *words: str) -> Result:
    """Run a command; return its end."""
    return CliRunner().invoke(
        commands, ["--root", str(host.layout.root), "sessions", *words], standalone_mode=False
    )


def test_listed(host: Host) -> None:
    """What is remembered is listed with its session, source and age."""
    host.remember("alice")
    (one,) = host.lifecycle.mfa_sessions("alice")
    assert ("alice", "virtual", "virtual/alice/phone", "sudo") == one[:4]
    assert ("audit:5", "192.0.2.7", START) == (
        one.session, one.source, one.verified_at.timestamp()
    )  # fmt: skip
    assert 60.4 == pytest.approx(one.age)


@pytest.mark.parametrize(
    ("source", "expected"),
    [("", ""), ("console", "console"), ("6:20010db8000000000000000000000001", "2001:db8::1")],
)
def test_sources(host: Host, source: str, expected: str) -> None:
    """Sources are shown as people write them, and a daemon's session as none."""
    host.remember("alice", "outer:7", source)
    (one,) = host.lifecycle.mfa_sessions()
    assert ("", expected) == (one.session, one.source)


def test_ended(host: Host) -> None:
    """One user's are ended, on the record, and nobody else's."""
    for name in NAMES:
        host.remember(name)
    assert 1 == host.lifecycle.end_mfa_sessions(NAMES[1])
    assert [NAMES[0], NAMES[2]] == [one.user for one in host.lifecycle.mfa_sessions()]
    (record,) = host.records()
    assert ("EndMfaSessions", "success", "requested", NAMES[1], 1000) == tuple(
        record[key] for key in ("event_name", "outcome", "reason", "user", "login_uid")
    )


def test_all_ended(host: Host) -> None:
    """Everybody's are ended by one record, also where there are none."""
    for name in NAMES:
        host.remember(name)
    assert [3, 0] == [host.lifecycle.end_mfa_sessions(), host.lifecycle.end_mfa_sessions()]
    assert [] == host.lifecycle.mfa_sessions()
    details = [record["detail"] for record in host.records()]
    assert [f"verifications of all users forgotten: {count}" for count in (3, 0)] == details


def test_bypass_ends_them(host: Host) -> None:
    """Whoever is issued a bypass has lost a device: nothing of before is fresh any more."""
    host.remember("alice")
    host.remember("end")
    host.lifecycle.issue_bypass("alice", 3600.0)
    assert ["end"] == [one.user for one in host.lifecycle.mfa_sessions()]


def test_command_lists(host: Host) -> None:
    """The command lists everybody or one user, in a table or as JSON."""
    for name in NAMES:
        host.remember(name)
    for words in (("--json", "alice"), ("alice", "--json"), ("list", "alice", "--json")):
        (row,) = json.loads(run(host, *words).output)
        keys = ["user", "type", "device", "service", "session", "source", "time", "age"]
        assert (keys, "alice") == ([*row], row["user"])
    assert NAMES[1] not in run(host, "alice").output
    assert [*NAMES[:1]] == [one for one in NAMES[:1] if one in run(host).output]
    (last,) = json.loads(run(host, "list", "end", "--json").output)
    assert "end" == last["user"]
    assert "No verification is remembered." in run(host, "nobody-at-all").output


@pytest.mark.parametrize("words", [("end",), ("end", "alice", "--all")])
def test_end_of_whom(host: Host, words: tuple[str, ...]) -> None:
    """Ending asks for a user or for everybody, and not for both."""
    host.remember("alice")
    result = run(host, *words)
    assert (False, 1) == (result.exit_code == 0, len(host.lifecycle.mfa_sessions()))


def test_command_ends(host: Host) -> None:
    """The command ends a user's, then everybody's."""
    for name in NAMES:
        host.remember(name)
    assert (
        "Ended for alice; verifications that were remembered: 1."
        in run(host, "end", "alice").output
    )
    assert (
        "Ended for everybody; verifications that were remembered: 2."
        in run(host, "end", "--all").output
    )


@pytest.mark.parametrize("words", [(), ("alice",), ("end", "alice"), ("end", "--all")])
def test_only_root(host: Host, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    """Nobody but root sees or ends them."""
    monkeypatch.setattr(session.Session, "is_own", True)
    host.remember("alice")
    assert isinstance(run(host, *words).exception, RefusedError)
    assert 1 == len(host.lifecycle.mfa_sessions())
