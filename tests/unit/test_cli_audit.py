# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa audit``: what it prints, in which form, and its exit status."""

import csv
import io
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_logs import KEY, LogMaker, make_lines, write_log

from pam_mfa.audit_reading import Anchor, Record, journal, parse_anchor
from pam_mfa.audit_reading.kept_head import KeptHead
from pam_mfa.cli import audit_verify
from pam_mfa.cli.__main__ import main

Run = Callable[..., tuple[int, str, str]]
LINES = make_lines(20)


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root for logs that no verifier wrote, with hostile lines in them."""
    root = tmp_path_factory.mktemp("host")
    (root / "var/log/pam_mfa").mkdir(parents=True)
    return root


@pytest.fixture
def run(host: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``pam-mfa audit`` in this process, by no user that may ask the state."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("COLUMNS", "200")

    def run_main(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pam-mfa", "--root", str(host), "audit", *arguments])
        status: object = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return run_main


@pytest.fixture
def log(host: Path) -> Path:
    """Where the log is."""
    return host / "var/log/pam_mfa/audit.jsonl"


def make_day() -> list[bytes]:
    """Return a log of somebody's day."""
    maker = LogMaker().sign("start")
    device = {"serial_number": "fido/alice/blue", "type": "fido", "name": "blue"}
    maker.add(user="alice", service="sshd", source_address="192.0.2.7", tty="ssh")
    maker.add(user="alice", service="sudo", device=device, sign_count=7, rule="administrators")
    maker.add(user="bob", service="sudo", outcome="denied", reason="wrong_code", detail="=1+1")
    maker.add(
        unknown_user="0123456789abcdef", service="sshd", outcome="denied", reason="not_enrolled"
    )
    maker.add("DeactivateMfaDevice", user="alice", device=device, reason="requested", caller_uid=0)
    return maker.lines


def records_of(lines: list[bytes]) -> list[Record]:
    """Return the lines' records."""
    return [json.loads(line) for line in lines]


def test_what_a_key_did(run: Run, log: Path) -> None:
    """A device's records are those in which it stands, in their order."""
    write_log(log, make_day())
    status, out, err = run("show", "--device", "fido/alice/blue", "--json")
    assert (0, "") == (status, err)
    assert ["VerifyMfa", "DeactivateMfaDevice"] == [one["event_name"] for one in json.loads(out)]


@pytest.mark.parametrize(
    ("options", "indexes"),
    [
        ((), [0, 1, 2, 3, 4, 5]),
        (("--user", "alice"), [1, 2, 5]),
        (("--user", "0123456789abcdef"), [4]),
        (("--service", "sudo"), [2, 3]),
        (("--outcome", "denied"), [3, 4]),
        (("--outcome", "denied", "--outcome", "error", "--service", "sshd"), [4]),
        (("--event", "verifymfa", "--event", "Checkpoint"), [0, 1, 2, 3, 4]),
        (("--since", "2026-11-24T08:00:03"), [3, 4, 5]),
        (("--until", "2026-11-24T09:00:03+01:00"), [0, 1, 2, 3]),
        (("--since", "366d", "--limit", "2"), [4, 5]),
        (("--limit", "1", "--user", "alice", "--whole"), [5]),
    ],
    ids=lambda one: " ".join(map(str, one)),
)
def test_options(run: Run, log: Path, options: tuple[str, ...], indexes: list[int]) -> None:
    """Each option chooses what it says."""
    day = make_day()
    write_log(log, day)
    status, out, _ = run("show", "--json", *options)
    assert (0, [records_of(day)[index] for index in indexes]) == (status, json.loads(out))


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "--since", "yesterday"),
        ("show", "--until", "2026-13-01"),
        ("show", "--limit", "0"),
        ("show", "--outcome", "maybe"),
        ("show", "--event", "Login"),
        ("show", "--format", "xml"),
        ("verify", "--public-key"),
        ("follow", "extra"),
    ],
    ids=" ".join,
)
def test_wrong_usage(run: Run, log: Path, arguments: tuple[str, ...]) -> None:
    """Wrong usage is told, with exit status 2."""
    write_log(log, LINES)
    status, out, err = run(*arguments)
    assert (2, "") == (status, out)
    assert "Error: " in err


def test_table(run: Run, log: Path) -> None:
    """The table has a line a record, with what one wants to know first."""
    write_log(log, make_day())
    status, out, err = run("show", "--user", "alice")
    head, first, second, _ = out.splitlines()
    assert (0, "") == (status, err)
    assert ["TIME", "EVENT", "OUTCOME"] == head.split()[:3]
    assert "2026-11-24 08:00:01  VerifyMfa" in first
    for word in ("sshd", "192.0.2.7"):
        assert word in first
    for word in ("fido/alice/blue", "rule: administrators"):
        assert word in second


def test_no_record(run: Run, log: Path) -> None:
    """Where nothing is found, that is said; JSON is an empty list."""
    write_log(log, LINES)
    assert (0, "No such record.\n", "") == run("show", "--user", "nobody")
    assert (0, "[]\n", "") == run("show", "--user", "nobody", "--json")
    assert (0, "", "") == run("show", "--user", "nobody", "--format", "ocsf")


HOSTILE = "\x1b]0;title\x07\x1b[2Jx\r\n\u202e\u0085"


@pytest.mark.parametrize("form", ["table", "json", "csv", "ocsf"])
def test_hostile_texts(run: Run, log: Path, form: str) -> None:
    """No text in a record drives the terminal of who reads it, in whatever form."""
    fields = dict.fromkeys(("user", "service", "rhost", "rule", "detail", "tty", "mode"), HOSTILE)
    device = dict.fromkeys(("serial_number", "type", "name"), HOSTILE)
    maker = LogMaker().add(**fields, device=device, outcome=HOSTILE, reason=HOSTILE, host=HOSTILE)
    write_log(log, maker.lines)
    status, out, _ = run("show", "--format", form)
    assert 0 == status
    assert [] == [one for one in out if not one.isprintable() and one != "\n"]


def test_odd_types(run: Run, log: Path) -> None:
    """A record whose fields are of other types than ours is shown, not stumbled over."""
    names = ("user", "service", "device", "rhost", "detail", "duration_ms", "process", "caller_uid")
    odd: dict[str, Any] = {name: [{"a": 1}] for name in names}
    write_log(log, LogMaker().add(**odd).add(device=5, user=7, sign_count=1.5).lines)
    for form in ("table", "json", "csv", "ocsf"):
        assert 0 == run("show", "--format", form)[0]


def test_lines_that_are_no_records(run: Run, log: Path) -> None:
    """Lines that are no records are passed over, counted, and told."""
    write_log(log, [b"junk\n", *LINES, b"[1]\n"])
    status, out, err = run("show", "--json")
    assert (0, 20) == (status, len(json.loads(out)))
    assert "Note: 2 lines are no records; see: pam-mfa audit verify\n" == err


def test_csv(run: Run, log: Path) -> None:
    """CSV has a column a field, and a text that would be a formula is none."""
    write_log(log, make_day())
    status, out, _ = run("show", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (0, 6) == (status, len(rows))
    assert ("fido/alice/blue", "7", "4321") == (
        rows[2]["device_serial_number"], rows[2]["sign_count"], rows[2]["process_pid"],
    )  # fmt: skip
    assert "'=1+1" == rows[3]["detail"]


def test_files(run: Run, log: Path, tmp_path: Path) -> None:
    """Files that are named are read in the place of the log."""
    write_log(log, make_day())
    other = write_log(tmp_path / "other", LINES)
    assert 20 == len(json.loads(run("show", "--json", str(other))[1]))
    assert 1 == run("show", str(tmp_path / "nothing"))[0]


def test_no_log(run: Run) -> None:
    """Without a log, show refuses, and verify says that nothing can be read."""
    assert 1 == run("show")[0]
    status, _, err = run("verify")
    assert 3 == status
    assert "there is no audit log" in err


def test_follow(run: Run, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are shown as they come, until Ctrl-C, which is no failure."""
    write_log(log, LINES[:1])
    parts = [LINES[1:3], [b"junk\n"], LINES[3:4]]

    def pause(_: float) -> None:
        if not parts:
            raise KeyboardInterrupt
        with log.open("ab") as file:
            file.writelines(parts.pop(0))

    monkeypatch.setattr(time, "sleep", pause)
    status, out, err = run("follow")
    assert 0 == status
    assert 3 == len(out.splitlines())
    assert "VerifyMfa  denied: code_accepted  user user1  by sshd" in out
    assert "Note: a line is no record: it is not JSON\n" == err


def test_follow_as_json(run: Run, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For programs, an object a line; filters are the same."""
    write_log(log, [])
    parts = [LINES]

    def pause(_: float) -> None:
        if not parts:
            raise KeyboardInterrupt
        write_log(log, parts.pop())

    monkeypatch.setattr(time, "sleep", pause)
    _, out, _ = run("follow", "--json", "--user", "user1")
    expected = [one for one in records_of(LINES) if one.get("user") == "user1"]
    assert expected == [json.loads(line) for line in out.splitlines()]


def test_verify(run: Run, log: Path) -> None:
    """An intact log is told so, with what it proves and what it does not."""
    write_log(log, LINES)
    status, out, err = run("verify")
    assert (0, "") == (status, err)
    for part in (
        "Intact: 20 records, from 1 ", "up to record 15", "the log's own word",
        "Records 16 to 20 join and are not signed yet", "only root may ask it",
        "What this does not prove",
    ):  # fmt: skip
        assert part in out


def test_verify_tells_where(run: Run, log: Path) -> None:
    """A log that is not intact is told with file, line and record, and exit status 1."""
    write_log(log, [*LINES[:5], *LINES[6:]])
    status, out, err = run("verify")
    assert 1 == status
    assert f"{log}:6: removed: record 6 is missing before this line\n" in out
    assert "pam-mfa: the audit log is not intact: 1 finding." in err
    status, out, _ = run("verify", "--json")
    row = json.loads(out)
    assert (1, False, 6, None) == (
        status, row["intact"], row["findings"][0]["sequence"], row["anchor"],
    )  # fmt: skip


def test_anchor(run: Run, log: Path, tmp_path: Path) -> None:
    """The anchor is one line, and finds a log that was cut later."""
    write_log(log, LINES)
    status, out, err = run("verify", "--anchor")
    assert (0, "", 1) == (status, err, out.count("\n"))
    assert 20 == parse_anchor(out).sequence
    kept = tmp_path / "kept"
    kept.write_text(out, "ascii")
    assert 0 == run("verify", "--against", str(kept))[0]
    write_log(log, LINES[:18])
    assert 0 == run("verify")[0]
    for text in (str(kept), out.strip()):
        status, told, _ = run("verify", "--against", text)
        assert 1 == status
        assert "truncated: the log ends with record 18" in told
    assert (1, "") == run("verify", "--against", str(kept), "--anchor")[:2]


def test_anchor_from_standard_input(run: Run, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An anchor comes from standard input, too, with whatever stands around it."""
    write_log(log, LINES)
    _, anchor, _ = run("verify", "--anchor")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"kept on Monday: {anchor}"))
    assert 0 == run("verify", "--against", "-")[0]
    status, _, err = run("verify", "--against", "nonsense")
    assert 1 == status
    assert "neither an anchor nor a file" in err


def test_from(run: Run, log: Path) -> None:
    """A check begins at the checkpoint that is named, by sequence or by anchor."""
    write_log(log, [*LINES[:3], *LINES[4:]])
    assert 1 == run("verify")[0]
    status, out, _ = run("verify", "--from", "8")
    assert 0 == status
    assert "Intact: 13 records, from 8 " in out
    assert 1 == run("verify", "--from", "99")[0]


def test_public_key(run: Run, log: Path, tmp_path: Path) -> None:
    """A key that is named is the only one trusted; one that is none is told."""
    write_log(log, LINES)
    key = tmp_path / "key"
    key.write_bytes(KEY.public_key().public_bytes_raw())
    assert 0 == run("verify", "--public-key", str(key))[0]
    assert "own word" not in run("verify", "--public-key", str(key))[1]
    key.write_bytes(bytes(range(32)))
    status, out, _ = run("verify", "--public-key", str(key))
    assert 1 == status
    assert "not trusted here" in out
    key.write_bytes(b"x")
    assert 3 == run("verify", "--public-key", str(key))[0]
    assert 3 == run("verify", "--public-key", str(tmp_path / "nothing"))[0]


def test_hosts_own_key(run: Run, log: Path, host: Path) -> None:
    """Without a name, the host's own key is used where it can be read."""
    write_log(log, LINES)
    (host / "var/lib/pam_mfa").mkdir(parents=True)
    (host / "var/lib/pam_mfa/audit.pub").write_bytes(KEY.public_key().public_bytes_raw())
    assert "own word" not in run("verify")[1]


def test_state(run: Run, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log's end is compared with the state's, where that may be asked."""
    write_log(log, LINES[:18])
    _, out, _ = run("verify", "--anchor", "--from", "1")
    kept = KeptHead(parse_anchor(out)._replace(sequence=19, hash="0" * 64))
    monkeypatch.setattr(audit_verify, "_read_kept_head", lambda _: (kept, ""))
    status, out, _ = run("verify")
    assert 1 == status
    assert "truncated: the log ends with record 18, but the state has record 19" in out


def test_unreadable(run: Run, log: Path) -> None:
    """A log that cannot be read to its end is neither intact nor only changed."""
    write_log(log, LINES)
    log.with_name("audit.jsonl.1.gz").write_bytes(b"\x1f\x8b\x08\x00damaged")
    status, out, err = run("verify")
    assert 3 == status
    assert "unreadable" in out
    assert "cannot be read to its end" in err


def test_journal(run: Run, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The anchor goes to the journal, as a message with fields; without one, that is told."""
    write_log(log, LINES)
    address = str(tmp_path / "journal")
    monkeypatch.setattr(
        audit_verify, "send_anchor", lambda anchor: journal.send_anchor(anchor, address)
    )
    assert 3 == run("verify", "--journal")[0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(10)
        assert 0 == run("verify", "--journal")[0]
        fields = dict(line.split("=", 1) for line in listener.recv(65536).decode().splitlines())
    assert ("pam-mfa", "20", 20) == (
        fields["SYSLOG_IDENTIFIER"], fields["PAM_MFA_SEQUENCE"],
        parse_anchor(fields["MESSAGE"]).sequence,
    )  # fmt: skip


def test_anchor_of_an_odd_host() -> None:
    """A host's name is cut down to what an anchor can hold."""
    anchor = Anchor(1, "0" * 64, "2026-11-24T08:00:00.000000Z", "a b,\n\x1b" + "x" * 300)
    assert anchor.host != parse_anchor(str(anchor)).host
    assert str(anchor).isprintable()
