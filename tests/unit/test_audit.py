# SPDX-License-Identifier: Apache-2.0
"""Records: the line's form, whatever names contain, and the log that is safe to write to."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles import START, count_descriptors, make_event
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.audit import (
    NO_HASH,
    AuditLog,
    DeviceField,
    Event,
    EventName,
    Head,
    Origin,
    Outcome,
    Reason,
    follow,
    format_event,
    hash_line,
)
from pam_mfa.audit.log import End
from pam_mfa.errors import AuditError

ORIGIN = Origin("host.example", 99, "pam-mfad")
ITEMS = st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is to be."""
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(path: Path) -> Iterator[AuditLog]:
    """A log that nobody has written to."""
    log = AuditLog(path)
    yield log
    log.close()


def test_line() -> None:
    """A record's line is canonical: sorted keys, no spaces, what follows the head in the chain."""
    event = Event(
        EventName.VERIFY_MFA, Outcome.SUCCESS, Reason.CODE_ACCEPTED, START + 0.25, user="alice",
        service="sshd", phase="auth", tty="ssh", rhost="192.0.2.7", ruser="bob",
        device=DeviceField("virtual/alice/phone", "virtual", "phone"), mode="enforce",
        caller_uid=0, caller_pid=4321, login_uid=1000, detail="why",
    )  # fmt: skip
    head = Head(41, "ab" * 32)
    expected = (
        b'{"caller_pid":4321,"caller_uid":0,"detail":"why","device":{"name":"phone",'
        b'"serial_number":"virtual/alice/phone","type":"virtual"},"event_id":"0123456789abcdef",'
        b'"event_name":"VerifyMfa","host":"host.example","login_uid":1000,"mode":"enforce",'
        b'"outcome":"success","phase":"auth","previous":"' + b"ab" * 32 + b'",'
        b'"process":{"pid":99,"program":"pam-mfad"},"reason":"code_accepted",'
        b'"rhost":"192.0.2.7","ruser":"bob","sequence":42,"service":"sshd",'
        b'"time":"2023-11-14T22:14:05.250000Z","tty":"ssh","user":"alice","version":1}\n'
    )
    assert expected == format_event(event, "0123456789abcdef", ORIGIN, head)


def test_no_empty_fields() -> None:
    """What is not known of an event is left out; user id 0 is known."""
    event = Event(EventName.LOCK_USER, Outcome.SUCCESS, Reason.TOO_MANY_FAILURES, START)
    record = json.loads(format_event(event._replace(caller_uid=0), "id", ORIGIN, Head()))
    expected = ["caller_uid", "event_id", "event_name", "host", "outcome", "previous", "process",
                "reason", "sequence", "time", "version"]  # fmt: skip
    assert expected == list(record)


@given(ITEMS, ITEMS, ITEMS)
def test_one_line(user: str, rhost: str, serial_number: str) -> None:
    """Whatever names contain, a record is one line of ASCII, and they are read back from it."""
    device = DeviceField(serial_number, "virtual", "phone")
    line = format_event(make_event(user, rhost=rhost, device=device), "id", ORIGIN, Head())
    record = json.loads(line)
    assert (1, True, user, rhost, serial_number) == (
        len(line.splitlines()), line.isascii(), record.get("user", ""), record.get("rhost", ""),
        record["device"]["serial_number"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ['x","outcome":"success', "x\n{}", "x\r\n", "\u2028", "\x1b[2J", "\udcff", "\0", "x\\"]
)
def test_forged_lines(name: str) -> None:
    """A name that looks like the end of a record stays inside its field."""
    line = format_event(make_event(name), "id", ORIGIN, Head())
    record = json.loads(line)
    assert (b"\n", name, "denied") == (line[-1:], record["user"], record["outcome"])
    assert all(byte >= ord(" ") for byte in line[:-1])


@pytest.mark.parametrize("key", ["user", "rhost", "ruser", "tty", "service", "detail"])
def test_long_texts(key: str) -> None:
    """A text that somebody else chose is cut, so that a record stays short."""
    record = json.loads(format_event(make_event(**{key: "é" * 16384}), "id", ORIGIN, Head()))
    assert "é" * (1024 if key in ("user", "detail") else 128) == record[key]


@pytest.mark.parametrize("reason", Reason)
def test_words(reason: Reason) -> None:
    """A reason is a word of lower case, as it stands in records."""
    assert reason.value == reason.name.lower()


def test_write(log: AuditLog, path: Path) -> None:
    """Lines are appended in their order; a new log is for its owner and group."""
    log.write([b"one\n", b"two\n"])
    log.write([])
    log.write([b"three\n"])
    log.sync()
    assert (b"one\ntwo\nthree\n", 0) == (path.read_bytes(), path.stat().st_mode & 0o027)


def test_nothing_is_made_before_the_first_record(log: AuditLog, path: Path) -> None:
    """Without a record there is no log."""
    log.write([])
    assert not path.exists()


def test_existing_log(log: AuditLog, path: Path) -> None:
    """What a log holds stands."""
    path.write_bytes(b"old\n")
    path.chmod(0o640)
    log.write([b"new\n"])
    assert b"old\nnew\n" == path.read_bytes()


def test_cut_last_line(log: AuditLog, path: Path) -> None:
    """A line that a power loss cut is closed before the next record."""
    path.write_bytes(b'one\n{"time":"20')
    path.chmod(0o640)
    log.write([b"two\n"])
    assert b'one\n{"time":"20\ntwo\n' == path.read_bytes()


def test_rotation(log: AuditLog, path: Path) -> None:
    """After the log was moved away, the next record makes a new one."""
    log.write([b"one\n"])
    path.rename(path.with_suffix(".jsonl.1"))
    log.write([b"two\n"])
    assert (b"one\n", b"two\n") == (path.with_suffix(".jsonl.1").read_bytes(), path.read_bytes())


def test_deleted_log(log: AuditLog, path: Path) -> None:
    """After the log was deleted, the next record makes a new one."""
    log.write([b"one\n"])
    path.unlink()
    log.write([b"two\n"])
    assert b"two\n" == path.read_bytes()


def test_cut_by_copytruncate(log: AuditLog, path: Path) -> None:
    """After the log was emptied in its place, records are appended from its beginning."""
    log.write([b"one\n"])
    os.truncate(path, 0)
    log.write([b"two\n"])
    assert b"two\n" == path.read_bytes()


def link(path: Path) -> None:
    """Make the log a link to a file that would itself do."""
    target = path.with_name("target")
    target.touch(0o600)
    path.symlink_to(target)


def dangling(path: Path) -> None:
    """Make the log a link to a file that would be made."""
    path.symlink_to(path.with_name("target"))


def fifo(path: Path) -> None:
    """Make the log a fifo."""
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    """Make the log a directory."""
    path.mkdir()


def readable(path: Path) -> None:
    """Let everybody read the log."""
    path.touch()
    path.chmod(0o644)


def writable(path: Path) -> None:
    """Let everybody write the log."""
    path.touch()
    path.chmod(0o602)


SPOIL = pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (link, "cannot be written: Too many levels of symbolic links"),
        (dangling, "cannot be written: Too many levels of symbolic links"),
        (fifo, "is not used: it is not a regular file"),
        (directory, "cannot be written: Is a directory"),
        (readable, "is not used: others may read or write it"),
        (writable, "is not used: others may read or write it"),
    ],
)


@SPOIL
def test_unsafe_log(log: AuditLog, path: Path, spoil: Callable[[Path], None], words: str) -> None:
    """A log that is not a regular file for its owner and group alone is not written to."""
    spoil(path)
    with pytest.raises(AuditError, match=f"the audit log {path} {words}"):
        log.write([b"one\n"])
    assert not path.is_file() or path.read_bytes() == b""


@SPOIL
def test_log_exchanged(
    log: AuditLog, path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    """A log that is exchanged for something unsafe between two records is not written to."""
    log.write([b"one\n"])
    path.rename(path.with_name("moved"))
    spoil(path)
    with pytest.raises(AuditError, match=words):
        log.write([b"two\n"])
    assert b"one\n" == path.with_name("moved").read_bytes()


def test_log_of_another_owner(log: AuditLog, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that somebody else owns is not written to."""
    path.touch(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(AuditError, match=f"it belongs to user id {os.getuid()}"):
        log.write([b"one\n"])


@pytest.mark.parametrize("spoil", [fifo, readable])
def test_mended_log(log: AuditLog, path: Path, spoil: Callable[[Path], None]) -> None:
    """Once an unsafe log was moved away, the next record makes a new one."""
    spoil(path)
    with pytest.raises(AuditError):
        log.write([b"one\n"])
    path.unlink()
    log.write([b"two\n"])
    assert b"two\n" == path.read_bytes()


def test_no_descriptor_is_left(log: AuditLog, path: Path) -> None:
    """A log that is refused again and again leaves no descriptor open."""
    readable(path)
    before = count_descriptors()
    for _ in range(5):
        with pytest.raises(AuditError):
            log.write([b"one\n"])
    assert before == count_descriptors()


def test_no_directory(tmp_path: Path) -> None:
    """Where there is no directory for the log, the error says so and what follows."""
    with pytest.raises(AuditError, match="No such file") as caught:
        AuditLog(tmp_path / "none/audit.jsonl").write([b"one\n"])
    assert caught.value.hint.endswith("every login is refused.")


def test_short_write(log: AuditLog, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that the disk has no room for leave no part of themselves."""
    log.write([b"one\n"])
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
        with pytest.raises(AuditError, match="No space left"):
            log.write([b"two\n", b"three\n"])
    log.write([b"four\n"])
    assert b"one\nfour\n" == path.read_bytes()


def test_failing_sync(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync that fails is an error."""

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    log.write([b"one\n"])
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(AuditError, match="Input/output error"):
        log.sync()


def test_recent(log: AuditLog, path: Path) -> None:
    """What was written lately is found in this log and in the newest rotated ones."""
    ages = (("audit.jsonl.3", 40), ("audit.jsonl.2", 30), ("audit.jsonl.1", 20), ("audit.jsonl", 9))
    for name, age in ages:
        path.with_name(name).write_bytes(name.encode() + b"\n")
        os.utime(path.with_name(name), (START - age, START - age))
    assert {b"audit.jsonl\n", b"audit.jsonl.1\n", b"audit.jsonl.2\n"} == log.recent()


def test_recent_while_one_is_compressed(log: AuditLog, path: Path) -> None:
    """A rotated log that is just being compressed, and the newest by that, hides no other."""
    path.with_name("audit.jsonl.1").write_bytes(b"one\n")
    os.utime(path.with_name("audit.jsonl.1"), (START, START))
    path.with_name("audit.jsonl.2.gz").write_bytes(b"\x1f\x8b")
    assert {b"one\n"} == log.recent()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"one\ntwo\n", End(b"two\n")),
        (b"two\n", End(b"two\n")),
        (b"", End()),
        (b"tw", End(torn=b"tw")),
        (b"one\ntw", End(b"one\n", b"tw")),
        (b"one\n" + b"x" * 100_000, End(b"one\n", b"x" * 100_000)),
        (b"one\n" + b"x" * 100_000 + b"\n", End(b"x" * 100_000 + b"\n")),
        (b"x" * 5000 + b"\n" + b"y" * 4095 + b"\n", End(b"y" * 4095 + b"\n")),
    ],
)
def test_end(log: AuditLog, path: Path, data: bytes, expected: End) -> None:
    """The last whole line is found, and what is torn behind it, however long they are."""
    path.write_bytes(data)
    path.chmod(0o640)
    assert expected == log.read_end()


def test_end_without_a_log(log: AuditLog, path: Path) -> None:
    """Where there is no log it has no end, and looking makes none."""
    assert (End(), False) == (log.read_end(), path.exists())


def test_chain() -> None:
    """A record has the sequence and the hash of the one before it; the first has neither."""
    first = format_event(make_event(), "id", ORIGIN, Head())
    second = format_event(make_event(), "id", ORIGIN, follow(Head(), first))
    records = [json.loads(line) for line in (first, second)]
    assert [(1, NO_HASH), (2, hash_line(first))] == [
        (record["sequence"], record["previous"]) for record in records
    ]


def test_hash() -> None:
    """A line's hash is SHA-256 over its bytes without the newline."""
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert (expected, expected) == (hash_line(b"abc\n"), hash_line(b"abc"))


def test_recent_follows_no_link(log: AuditLog, path: Path) -> None:
    """A link among the rotated logs is not read."""
    path.with_name("target").write_bytes(b"elsewhere\n")
    path.with_name("audit.jsonl.1").symlink_to("target")
    assert set() == log.recent()


def test_no_inheritance(log: AuditLog, path: Path) -> None:
    """No child process inherits the log."""
    log.write([b"one\n"])
    links = Path("/proc/self/fd")
    inheritable = [
        os.get_inheritable(int(link.name))
        for link in links.iterdir()
        if link.is_symlink() and str(link.readlink()) == str(path)
    ]
    assert [False] == inheritable
