# SPDX-License-Identifier: Apache-2.0
"""The check of a chain: every kind of tampering is found, at the record that was tampered with."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from audit_logs import KEY, OTHER_KEY, LogMaker, make_lines, spell, write_log
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pam_mfa.audit_reading import (
    Anchor,
    ChainCheck,
    Kind,
    LogFile,
    PublicKeys,
    Report,
    Wanted,
    parse_anchor,
    read_public_key,
)
from pam_mfa.audit_reading import chain_check as chain_check_module
from pam_mfa.errors import RefusedError

LINES = make_lines(30)
INNER = st.integers(1, len(LINES) - 3)  # neither the first, nor one that nothing vouches for
in_one_file = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Found = list[tuple[Kind, int, int | None]]


def check(folder: Path, *parts: Sequence[bytes], wanted: Wanted | None = None) -> Report:
    """Return the report on a log of these files, oldest first."""
    checking = ChainCheck(wanted or Wanted(PublicKeys([KEY.public_key()])))
    for number, lines in enumerate(parts):
        with LogFile(write_log(folder / f"{number}.jsonl", lines)) as file:
            checking.check(file)
    return checking.finish()


def found(report: Report) -> Found:
    """Return what was found: kind, line and sequence."""
    return [(one.kind, one.place.line, one.sequence) for one in report.findings]


def hash_of(line: bytes) -> str:
    """Return a line's hash."""
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def anchor_of(lines: Sequence[bytes], index: int = -1) -> Anchor:
    """Return the anchor of a line."""
    record = json.loads(lines[index])
    return Anchor(record["sequence"], hash_of(lines[index]), record["time"], record["host"])


def test_intact(tmp_path: Path) -> None:
    """A log that nobody touched is intact, and signed up to its last checkpoint."""
    report = check(tmp_path, LINES)
    assert ([], 30, 5, 29) == (
        found(report), report.records, report.checkpoints, report.proven_sequence,
    )  # fmt: skip
    assert anchor_of(LINES)[:2] == (report.last.sequence, report.last.hash) if report.last else ()


def test_across_files(tmp_path: Path) -> None:
    """The chain runs on across files; the place of a finding is in the file that it is in."""
    assert [] == found(check(tmp_path, LINES[:9], LINES[9:20], LINES[20:]))
    report = check(tmp_path, LINES[:9], LINES[9:20], LINES[22:])
    assert [(Kind.REMOVED, 1, 21)] == found(report)
    assert str(tmp_path / "2.jsonl:1") == str(report.findings[0].place)


@in_one_file
@given(index=INNER, at=st.integers(0, 200), byte=st.integers(0, 255).filter(lambda one: one != 10))
def test_changed(tmp_path: Path, index: int, at: int, byte: int) -> None:
    """A record that is another in one byte is found changed, whatever the byte is."""
    line = bytearray(LINES[index])
    at %= len(line) - 1
    assume(line[at] != byte)
    line[at] = byte
    report = check(tmp_path, [*LINES[:index], bytes(line), *LINES[index + 1 :]])
    assert (Kind.CHANGED, index + 1, index + 1) in found(report)
    assert {index + 1} == {one.place.line for one in report.findings}


@in_one_file
@given(index=INNER, count=st.integers(1, 5))
def test_removed(tmp_path: Path, index: int, count: int) -> None:
    """Records that are taken out are missing where they stood."""
    count = min(count, len(LINES) - 1 - index)
    report = check(tmp_path, [*LINES[:index], *LINES[index + count :]])
    assert [(Kind.REMOVED, index + 1, index + 1)] == found(report)


@in_one_file
@given(index=INNER, source=st.integers(0, len(LINES) - 1))
def test_inserted_copy(tmp_path: Path, index: int, source: int) -> None:
    """A copy of another record is found where it was put in, or right behind itself."""
    report = check(tmp_path, [*LINES[:index], LINES[source], *LINES[index:]])
    assert (Kind.INSERTED, source + 1) in {(one.kind, one.sequence) for one in report.findings}
    places = {one.place.line for one in report.findings}
    assert places <= {index + 1, source + 1, source + 2}
    assert 1 == report.findings_count


@in_one_file
@given(index=INNER, junk=st.binary(max_size=40).filter(lambda one: b"\n" not in one))
def test_inserted_junk(tmp_path: Path, index: int, junk: bytes) -> None:
    """A line that is no record is found where it was put in."""
    report = check(tmp_path, [*LINES[:index], junk + b"\n", *LINES[index:]])
    assert [(Kind.INSERTED, index + 1, None)] == found(report)


@in_one_file
@given(index=INNER)
def test_inserted_forgery(tmp_path: Path, index: int) -> None:
    """A forged record that joins the one before it is found: the next one does not join it."""
    record = json.loads(LINES[index]) | {"user": "mallory"}
    report = check(tmp_path, [*LINES[:index], spell(record) + b"\n", *LINES[index:]])
    assert (Kind.INSERTED, index + 1, index + 1) in found(report)
    assert {index + 1} == {one.place.line for one in report.findings}


@in_one_file
@given(first=INNER, second=INNER)
def test_reordered(tmp_path: Path, first: int, second: int) -> None:
    """Two records that changed places are found, and nothing else is."""
    assume(first < second)
    lines = list(LINES)
    lines[first], lines[second] = lines[second], lines[first]
    report = check(tmp_path, lines)
    assert {Kind.REORDERED} == {one.kind for one in report.findings}
    assert {one.sequence for one in report.findings} <= set(range(first + 1, second + 2))


@in_one_file
@given(source=INNER, target=INNER)
def test_moved(tmp_path: Path, source: int, target: int) -> None:
    """A record that was moved is found as that record, moved."""
    assume(abs(source - target) > 1)
    lines = list(LINES)
    lines.insert(target, lines.pop(source))
    assert [(Kind.REORDERED, target + 1, source + 1)] == found(check(tmp_path, lines))


@in_one_file
@given(index=INNER, left=st.integers(1, 100))
def test_cut_line(tmp_path: Path, index: int, left: int) -> None:
    """A log that ends in the middle of a line is truncated there."""
    report = check(tmp_path, [*LINES[:index], LINES[index][:left]])
    assert [(Kind.TRUNCATED, index + 1, None)] == found(report)


@in_one_file
@given(index=INNER)
def test_cut_between_lines(tmp_path: Path, index: int) -> None:
    """A log that ends early is found by an anchor that was kept, and by nothing else."""
    wanted = Wanted(PublicKeys([KEY.public_key()]), [("the anchor", anchor_of(LINES))])
    assert [] == found(check(tmp_path, LINES[:index]))
    assert [(Kind.TRUNCATED, index, 30)] == found(check(tmp_path, LINES[:index], wanted=wanted))
    assert [] == found(check(tmp_path, LINES, wanted=wanted))


def test_rewritten(tmp_path: Path) -> None:
    """Who recomputes all hashes, without the key, is found by the signatures."""
    maker = LogMaker(OTHER_KEY).sign("start")
    raw = KEY.public_key().public_bytes_raw()
    name = hashlib.sha256(raw).hexdigest()[:16]
    maker.add(user="mallory").sign(public_key_id=name).add(user="alice")
    report = check(tmp_path, maker.lines)
    assert [(Kind.UNKNOWN_KEY, 1, 1), (Kind.BAD_SIGNATURE, 3, 3)] == found(report)


def test_rewritten_tail(tmp_path: Path) -> None:
    """Records that are rewritten up to a true checkpoint do not lead to it."""
    maker = LogMaker().sign("start").add(user="alice").add(user="bob").sign()
    forger = LogMaker().sign("start").add(user="alice").add(user="eve")
    lines = [*forger.lines, maker.lines[3]]
    assert [(Kind.CHANGED, 3, 3)] == found(check(tmp_path, [*lines, *maker.sign().lines[4:]]))


@pytest.mark.parametrize("change", [(b'":', b'": '), (b'{"', b'{"event_id":"x","')])
def test_last_line_spelled_otherwise(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    """The last line has no hash behind it, but a spelling that is not the writer's is found."""
    lines = [*LINES[:-1], LINES[-1].replace(*change, 1)]
    assert [(Kind.CHANGED, 30, 30)] == found(check(tmp_path, lines))


def test_double_key_does_not_join(tmp_path: Path) -> None:
    """A line with a second sequence and a second hash joins for the eye, and is found."""
    record = json.loads(LINES[9])
    forged = LINES[9].replace(
        b'{"', b'{"sequence":%d,"previous":"%s","' % (99, b"0" * 64), 1
    )  # fmt: skip
    assert record == json.loads(forged)
    assert [(Kind.CHANGED, 10, 10)] == found(check(tmp_path, [*LINES[:9], forged, *LINES[10:]]))


def test_torn_line_that_was_mended(tmp_path: Path) -> None:
    """A torn line that the log itself tells of is no finding, but told."""
    torn = LINES[5][:40]
    field = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
    maker = LogMaker().sign("start").add()
    maker.add("MendLog", outcome="error", reason="torn_line", torn=field).add()
    lines = [*maker.lines[:2], torn + b"\n", *maker.lines[2:]]
    report = check(tmp_path, lines)
    assert ([], ["MendLog"]) == (found(report), [one.event_name for one in report.notes])
    other = check(tmp_path, [*maker.lines[:2], torn + b"x\n", *maker.lines[2:]])
    assert [(Kind.INSERTED, 3, None)] == found(other)


def test_log_that_was_resumed(tmp_path: Path) -> None:
    """Where the log itself tells that records were lost, they are missing all the same."""
    maker = LogMaker().sign("start").add().add().add().skip(2)
    maker.add("ResumeLog", outcome="error", reason="log_lost").add()
    report = check(tmp_path, maker.lines)
    assert [(Kind.REMOVED, 5, 5)] == found(report)
    assert [("ResumeLog", "log_lost", 7)] == [
        (one.event_name, one.reason, one.sequence) for one in report.notes
    ]


def test_numbers_left_out(tmp_path: Path) -> None:
    """A record that joins by its hash and not by its number is found."""
    record = json.loads(LINES[9]) | {"sequence": 12}
    assert [(Kind.CHANGED, 10, 12)] == found(check(tmp_path, [*LINES[:9], spell(record) + b"\n"]))


def test_state_that_was_lost(tmp_path: Path) -> None:
    """A chain that goes on from the log after the state was lost is whole; it is told."""
    maker = LogMaker().sign("start").add()
    report = check(tmp_path, maker.add("ResumeLog", reason="state_lost").add().lines)
    assert ([], 1) == (found(report), len(report.notes))


def test_key_of_the_log_itself(tmp_path: Path) -> None:
    """Without a key, the one that the log brings along is used, and another one's is found."""
    keys = PublicKeys()
    report = check(tmp_path, LINES, wanted=Wanted(keys))
    assert (True, True, 5) == (report.is_intact, keys.is_own, report.checkpoints)
    other = LogMaker(OTHER_KEY).sign("start").add().add().lines
    assert Kind.UNKNOWN_KEY in {kind for kind, _, _ in found(check(tmp_path, LINES, other))}


def test_key_that_is_no_name(tmp_path: Path) -> None:
    """A forged checkpoint that names its key by a list ends no check."""
    maker = LogMaker()
    maker.add("Checkpoint", public_key_id=["x"], signature="", reason="interval")
    report = check(tmp_path, maker.lines, wanted=Wanted(PublicKeys()))
    assert 1 == report.unchecked_checkpoints


def test_no_key(tmp_path: Path) -> None:
    """A log whose first checkpoint is gone has no key; signatures are counted as unchecked."""
    report = check(tmp_path, LINES[1:], wanted=Wanted(PublicKeys()))
    assert (True, 0, 4) == (report.is_intact, report.checkpoints, report.unchecked_checkpoints)


def test_other_chain(tmp_path: Path) -> None:
    """A log that begins anew in the middle is found where it does."""
    assert [(Kind.INSERTED, 1, 1)] == found(check(tmp_path, LINES, make_lines(5)))


def test_first_record_with_a_past(tmp_path: Path) -> None:
    """Record 1 has nothing before it."""
    record = json.loads(LINES[1]) | {"sequence": 1}
    assert [(Kind.CHANGED, 1, 1)] == found(check(tmp_path, [spell(record) + b"\n"]))


@pytest.mark.parametrize("index", [0, 10, 29])
def test_start(tmp_path: Path, index: int) -> None:
    """A check may begin at an anchor; what is before it is not looked at."""
    junk = [b"junk\n", *LINES[:index], b"junk\n"]
    lines = [*junk, *LINES[index:]]
    keys = PublicKeys([KEY.public_key()])
    report = check(tmp_path, lines, wanted=Wanted(keys, start=anchor_of(LINES, index)))
    assert ([], 30 - index) == (found(report), report.records)
    wrong = anchor_of(LINES, index)._replace(hash="f" * 64)
    report = check(tmp_path, lines, wanted=Wanted(keys, start=wrong))
    assert [(Kind.ANCHOR_MISSED, index + 3, index + 1)] == found(report)


def test_start_that_is_not_there(tmp_path: Path) -> None:
    """A check that is to begin at a record that the log does not have is not passed."""
    report = check(tmp_path, LINES, wanted=Wanted(PublicKeys(), start=Anchor(99, "")))
    assert [(Kind.ANCHOR_MISSED, 30, 99)] == found(report)


@pytest.mark.parametrize(
    ("lines", "anchor", "kind"),
    [
        (LINES, anchor_of(LINES, 9)._replace(hash="0" * 64), Kind.ANCHOR_MISSED),
        (LINES[12:], anchor_of(LINES, 9), Kind.ANCHOR_MISSED),
        (LINES[:5], anchor_of(LINES, 9), Kind.TRUNCATED),
    ],
    ids=["another", "older", "later"],
)
def test_anchor(tmp_path: Path, lines: list[bytes], anchor: Anchor, kind: Kind) -> None:
    """An anchor that does not fit is found, with the record that it is of."""
    keys = PublicKeys([KEY.public_key()])
    report = check(tmp_path, lines, wanted=Wanted(keys, [("it", anchor)]))
    assert [(kind, 10)] == [(one.kind, one.sequence) for one in report.findings]


def test_end_under_way(tmp_path: Path) -> None:
    """Records that wait in the state are not missing in the log."""
    anchors = [("the state", anchor_of(LINES))]
    ends = frozenset((hash_of(LINES[27]),))
    keys = PublicKeys([KEY.public_key()])
    wanted = Wanted(keys, anchors, ends=ends)
    assert [] == found(check(tmp_path, LINES[:28], wanted=wanted))
    assert [Kind.TRUNCATED] == [
        one for one, _, _ in found(check(tmp_path, LINES[:27], wanted=wanted))
    ]


def test_anchor_line() -> None:
    """An anchor is one word, and read back from whatever line it stands in."""
    anchor = Anchor(30, "ab" * 32, "2026-11-24T08:00:00.000000Z", "host.example", "cd" * 8)
    assert " " not in str(anchor)
    assert anchor == parse_anchor(f"Nov 24 08:00:00 host pam-mfa[1]: {anchor}\n")


@pytest.mark.parametrize(
    "text", ["", "x", "pam-mfa-anchor:1,", "pam-mfa-anchor:1,sequence=0,hash="]
)
def test_no_anchor(text: str) -> None:
    """What is no anchor is refused."""
    with pytest.raises(RefusedError):
        parse_anchor(text)


def test_many_lines_that_do_not_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded where nothing joins any more, and what is wrong is found."""
    monkeypatch.setattr(chain_check_module, "_STRETCH_LINES", 5)
    report = check(tmp_path, [*LINES[:3], *[b"junk\n"] * 40, *LINES[3:]])
    assert [(Kind.INSERTED, line, None) for line in range(4, 44)] == found(report)


def test_damaged_file(tmp_path: Path) -> None:
    """A packed file that is cut is told to be unreadable."""
    import gzip  # noqa: PLC0415 - here only

    packed = gzip.compress(b"".join(LINES))
    report = check(tmp_path, [packed[: len(packed) // 2]])
    assert report.is_unreadable
    assert Kind.UNREADABLE in {kind for kind, _, _ in found(report)}


def pem_of(key: Any) -> bytes:  # noqa: ANN401
    """Return a public key's PEM."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - here only

    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, form)
    return pem


def test_public_key_files(tmp_path: Path) -> None:
    """A key is read from PEM, raw bytes and base64, and from nothing else."""
    import base64  # noqa: PLC0415 - here only

    raw = KEY.public_key().public_bytes_raw()
    for data in (pem_of(KEY), raw, base64.b64encode(raw) + b"\n"):
        (tmp_path / "key").write_bytes(data)
        assert raw == read_public_key(tmp_path / "key").public_bytes_raw()
    for data in (b"", b"x" * 33, b"-----BEGIN PUBLIC KEY-----\n", raw + raw):
        (tmp_path / "key").write_bytes(data)
        with pytest.raises(RefusedError):
            read_public_key(tmp_path / "key")
