# SPDX-License-Identifier: Apache-2.0
"""Reading a log: lines, files, filters and times, each against a naive reading of everything."""

import bz2
import datetime
import gzip
import importlib.util
import itertools
import json
import lzma
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_logs import START, LogMaker, spell, stamp, write_log
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pam_mfa.audit_reading import (
    LogFile,
    Reader,
    Record,
    RecordError,
    Selection,
    find_logs,
    format_moment,
    open_logs,
    parse_record,
    seeking,
)
from pam_mfa.audit_reading import lines as lines_module
from pam_mfa.audit_reading.lines import LINE_MAX, OddLine, find_line, split_backward, split_lines
from pam_mfa.errors import BrokenSystemError, RefusedError

in_one_file = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
BASE = {"event_name": "VerifyMfa", "outcome": "success", "reason": "code_accepted", "host": "h"}
TEXTS = st.binary(max_size=200).map(lambda raw: raw.replace(b"ab", b"\n"))


def record_of(**fields: Any) -> bytes:  # noqa: ANN401
    """Return a record's line, without a place in a chain."""
    return spell({**BASE, "time": stamp(START), **fields}) + b"\n"


def time_of(second: float) -> str:
    """Return a time of the tests' logs."""
    return stamp(START + datetime.timedelta(seconds=second))


def read(path: Path, selection: Selection, **options: bool) -> list[Record]:
    """Return the records of one file that are wanted."""
    with LogFile(path) as file:
        return list(Reader([file], selection, **options).records())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and lines are short, so that short files have many."""
    monkeypatch.setattr(lines_module, "LINE_MAX", 20)
    monkeypatch.setattr(lines_module, "BLOCK", 7)


@pytest.mark.usefixtures("small")
@in_one_file
@given(data=TEXTS, size=st.integers(1, 50))
def test_lines(data: bytes, size: int) -> None:
    """Lines are those that splitting the whole gives, in whatever blocks they come."""
    blocks = (data[at : at + size] for at in range(0, len(data), size))
    *whole, rest = data.split(b"\n")
    expected: list[object] = [line if len(line) <= 20 else len(line) for line in whole]
    expected += [(len(rest), True)] if rest else []
    actual = [
        one if isinstance(one, bytes) else (one.size, True) if one.is_cut else one.size
        for one in split_lines(blocks)
    ]
    assert expected == actual


@pytest.mark.usefixtures("small")
@in_one_file
@given(data=TEXTS)
def test_lines_backward(data: bytes) -> None:
    """Read from the end, the same lines come in the other order."""

    def read_at(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    def plain(one: bytes | OddLine) -> bytes | bool:
        return one if isinstance(one, bytes) else one.is_cut

    forward = [plain(one) for one in split_lines(iter((data,)))]
    assert forward[::-1] == [plain(one) for one in split_backward(read_at, 0, len(data))]


@pytest.mark.usefixtures("small")
@in_one_file
@given(data=TEXTS, at=st.integers(0, 200))
def test_beginning_of_a_line(data: bytes, at: int) -> None:
    """The next line's offset is where a naive look finds it."""
    at = min(at, len(data))
    starts = [0, *(index + 1 for index, byte in enumerate(data) if byte == 10), len(data)]

    def read_at(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    assert min(one for one in starts if one >= at) == find_line(read_at, at, len(data))


def test_line_of_10_megabytes(tmp_path: Path) -> None:
    """A line that is far too long is told with its size, and the ones around it are read."""
    path = write_log(tmp_path / "log", [b"a\n", b"x" * 10_000_000 + b"\n", b"b\n"])
    with LogFile(path) as file:
        first, odd, last = file.lines()
    assert (b"a", b"b") == (first, last)
    assert isinstance(odd, OddLine)
    assert (10_000_000, False) == (odd.size, odd.is_cut)


HOSTILE = (
    b"", b"\n", b"null", b"[]", b'"text"', b"1" * 5000, b"[" * 100_000, b"{", b"\xff\xfe{}",
    b'{"time":"2026-11-24T08:00:00.000000Z"}', b'{"time":5,"event_name":"VerifyMfa"}',
    b'{"time":NaN}', record_of(time="now").rstrip(), record_of(host=5).rstrip(),
    record_of(time="2026-11-24T08:00:00.000000Z\n").rstrip(), b"\x1b[2J",
)  # fmt: skip


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_no_record(line: bytes) -> None:
    """What is no record is told to be none, whatever it is."""
    with pytest.raises(RecordError):
        parse_record(line)


def test_hostile_lines(tmp_path: Path) -> None:
    """Records are read among lines that are none, and those are counted."""
    lines = [line + b"\n" for line in HOSTILE if line and b"\n" not in line]
    path = write_log(tmp_path / "log", [record_of(user="a"), *lines, record_of(user="b"), b"cut"])
    with LogFile(path) as file:
        reader = Reader([file], Selection())
        assert ["a", "b"] == [one["user"] for one in reader.records()]
        assert len(lines) + 1 == reader.odd_lines


NAMES = st.sampled_from(
    ["alice", "bob", "alic", "\u00e9ve", "\udcff", '"x"', "a\\b", "\x1b[2J", ""]
)
OUTCOMES = st.sampled_from(["success", "denied", "error"])
EVENTS = st.sampled_from(["VerifyMfa", "SkipMfa", "Checkpoint"])
RECORDS = st.fixed_dictionaries(
    {"outcome": OUTCOMES, "event_name": EVENTS, "second": st.integers(0, 99)},
    optional={
        "user": NAMES,
        "unknown_user": NAMES,
        "service": NAMES,
        "device": st.fixed_dictionaries({"serial_number": NAMES}) | NAMES,
    },
)
SELECTIONS = st.builds(
    Selection,
    user=NAMES,
    device=NAMES,
    service=st.just("") | NAMES,
    outcomes=st.sets(OUTCOMES, max_size=2),
    events=st.sets(EVENTS, max_size=2),
    since=st.just("") | st.integers(0, 99).map(time_of),
    until=st.just("") | st.integers(0, 99).map(time_of),
)


def is_wanted(record: Record, selection: Selection) -> bool:
    """Whether a record is wanted, by a naive look at it."""
    device = record.get("device")
    device = device.get("serial_number") if isinstance(device, dict) else None
    return not (
        (selection.user and selection.user not in (record.get("user"), record.get("unknown_user")))
        or (selection.device and selection.device != device)
        or (selection.service and selection.service != record.get("service"))
        or (selection.outcomes and record["outcome"] not in selection.outcomes)
        or (selection.events and record["event_name"] not in selection.events)
        or (selection.since and record["time"] < selection.since)
        or (selection.until and record["time"] > selection.until)
    )


@in_one_file
@given(
    records=st.lists(RECORDS, max_size=20),
    selection=SELECTIONS,
    is_ascii=st.booleans(),
    limit=st.integers(1, 5),
)
def test_filters(
    tmp_path: Path,
    records: list[dict[str, Any]],
    selection: Selection,
    limit: int,
    *,
    is_ascii: bool,
) -> None:
    """Filters choose what a naive reading chooses, also from lines that are spelled otherwise."""
    whole = [{**BASE, **one, "time": time_of(one["second"])} for one in records]
    texts = [json.dumps(one, ensure_ascii=is_ascii) for one in whole]
    lines = [text.encode("utf-8", "surrogatepass") + b"\n" for text in texts]
    readable = [one for one, line in zip(whole, lines, strict=True) if is_utf8(line)]
    expected = [one for one in readable if is_wanted(one, selection)]
    path = write_log(tmp_path / "log", lines)
    assert expected == read(path, selection)
    with LogFile(path) as file:
        assert expected[-limit:] == Reader([file], selection).last(limit)


def is_utf8(line: bytes) -> bool:
    """Whether a line is UTF-8; a lone surrogate that is not escaped is not."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


STEPS = st.lists(
    st.tuples(st.sampled_from([0, 1, 60, 3600, 86400, 10**7]), st.integers(0, 3600)), max_size=60
)


@in_one_file
@given(
    steps=STEPS,
    pick=st.tuples(st.integers(0, 59), st.integers(0, 59), st.integers(1, 9)),
    cuts=st.sets(st.integers(0, 59), max_size=3),
)
def test_search_by_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[tuple[int, int]],
    pick: tuple[int, int, int],
    cuts: set[int],
) -> None:
    """Times are found as by reading all, with clocks that jump forward and back by an hour.

    In one file or several, of which some are packed.
    """
    monkeypatch.setattr(seeking, "_NEAR", 1)
    now, moments = 0, []
    for forward, back in steps:
        now += forward
        moments.append(now - back)
    lines = [record_of(time=time_of(one), event_id=str(at)) for at, one in enumerate(moments)]
    since, until = (time_of(moments[one % len(moments)]) if moments else "" for one in pick[:2])
    bounds = [0, *sorted(min(one, len(lines)) for one in cuts), len(lines)]
    paths = []
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        data = b"".join(lines[start:end])
        path = tmp_path / f"{number}"
        path.write_bytes(gzip.compress(data) if number % 2 else data)
        paths.append(path)
    files = [LogFile(path) for path in paths]
    try:
        for selection in (
            Selection(since=since),
            Selection(until=until),
            Selection(since=since, until=until),
        ):
            expected = [
                one
                for one in map(parse_record, map(bytes.rstrip, lines))
                if is_wanted(one, selection)
            ]
            assert expected == list(Reader(files, selection).records())
            assert expected[-pick[2] :] == Reader(files, selection).last(pick[2])
    finally:
        for file in files:
            file.close()


def test_search_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time near the end of a long log is found without reading the log."""
    maker = LogMaker()
    for _ in range(20_000):
        maker.now += datetime.timedelta(minutes=1)
        maker.add(user="alice")
    path = write_log(tmp_path / "log", maker.lines)
    read_bytes = []
    pread = os.pread

    def count(descriptor: int, size: int, offset: int) -> bytes:
        data = pread(descriptor, size, offset)
        read_bytes.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", count)
    since = format_moment(maker.now - datetime.timedelta(minutes=10))
    assert 10 == len(read(path, Selection(since=since)))
    assert sum(read_bytes) < path.stat().st_size / 2


def test_clock_that_was_far_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records from before a clock was set back by days are found where all is read."""
    monkeypatch.setattr(seeking, "_NEAR", 1)
    ahead = [record_of(time=time_of(10**6), event_id=str(at)) for at in range(5)]
    after = [record_of(time=time_of(at), event_id=str(at)) for at in range(50)]
    path = write_log(tmp_path / "log", [*ahead, *after])
    selection = Selection(since=time_of(10**5))
    assert 5 == len(read(path, selection, whole=True))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "audit.jsonl.3.gz": gzip.compress,
    "audit.jsonl.2.xz": lzma.compress,
    "audit.jsonl.1": bytes,
    "audit.jsonl": bytes,
}


def test_rotated_files(tmp_path: Path) -> None:
    """Rotated files are read oldest first, packed or not; other files beside them are not."""
    for number, (name, pack) in enumerate(PACKERS.items()):
        (tmp_path / name).write_bytes(pack(record_of(user=f"{number}")))
    for name in ("audit.jsonl.bak", "audit.jsonl~", "other.jsonl", "audit.jsonl.1.swp"):
        (tmp_path / name).write_bytes(record_of(user="wrong"))
    with open_logs(tmp_path / "audit.jsonl") as logs:
        assert list("0123") == [one["user"] for one in Reader(logs, Selection()).records()]
        assert ["2", "3"] == [one["user"] for one in Reader(logs, Selection()).last(2)]


def test_names_with_dates(tmp_path: Path) -> None:
    """Files that logrotate's dateext names are in the order of their dates."""
    names = [
        "audit.jsonl-20261122.gz",
        "audit.jsonl-20261123",
        "audit.jsonl-20261123-1764000000",
        "audit.jsonl",
    ]
    for name in reversed(names):
        (tmp_path / name).touch()
    assert names == [path.name for path in find_logs(tmp_path / "audit.jsonl")]


def test_numbers_are_no_texts(tmp_path: Path) -> None:
    """The tenth file is older than the second."""
    names = ["audit.jsonl.10.gz", "audit.jsonl.2.gz", "audit.jsonl.1", "audit.jsonl"]
    for name in names:
        (tmp_path / name).touch()
    assert names == [path.name for path in find_logs(tmp_path / "audit.jsonl")]


def test_named_files(tmp_path: Path) -> None:
    """Files that are named, in whatever order, are put into the order of their records."""
    maker = LogMaker()
    for _ in range(6):
        maker.add()
    paths = [
        write_log(tmp_path / name, maker.lines[at : at + 2])
        for name, at in (("b", 4), ("c", 0), ("a", 2))
    ]
    with open_logs(tmp_path / "none", paths) as logs:
        sequences = [one["sequence"] for one in Reader(logs, Selection()).records()]
    assert [1, 2, 3, 4, 5, 6] == sequences


def test_bzip2(tmp_path: Path) -> None:
    """A file of bzip2 is unpacked, too."""
    (tmp_path / "log").write_bytes(bz2.compress(record_of(user="alice")))
    assert ["alice"] == [one["user"] for one in read(tmp_path / "log", Selection())]


def test_zstd(tmp_path: Path) -> None:
    """A file of zstd is unpacked where Python can, and told of where it cannot."""
    write_log(tmp_path / "log", [record_of(user="alice")])
    done = subprocess.run(["zstd", "-q", "--rm", tmp_path / "log"], check=True, timeout=60)
    assert 0 == done.returncode
    if importlib.util.find_spec(
        "compression.zstd" if importlib.util.find_spec("compression") else "nothing_of_the_kind"
    ):
        assert 1 == len(read(tmp_path / "log.zst", Selection()))
    else:
        with pytest.raises(BrokenSystemError, match="zstd"):
            read(tmp_path / "log.zst", Selection())


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "dangling"])
def test_unsafe_files(tmp_path: Path, kind: str) -> None:
    """No link is followed, no fifo waited at, and nothing read but a regular file."""
    path = tmp_path / "audit.jsonl"
    write_log(tmp_path / "other", [record_of(user="secret")])
    make: dict[str, Callable[[], None]] = {
        "link": lambda: path.symlink_to(tmp_path / "other"),
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "dangling": lambda: path.symlink_to(tmp_path / "nothing"),
    }
    make[kind]()
    with pytest.raises(RefusedError), open_logs(path):
        pass


def test_no_log(tmp_path: Path) -> None:
    """A log that is not there is told, also in a directory that is not there."""
    for path in (tmp_path / "audit.jsonl", tmp_path / "none" / "audit.jsonl"):
        with pytest.raises(RefusedError, match="there is no audit log"), open_logs(path):
            pass


def test_lines_are_longer_than_records() -> None:
    """No record that the writer can make is taken for a line that is too long."""
    texts = {f"text{number}": "\U0001f511" * 128 for number in range(12)}
    own = {f"own{number}": "\U0001f511" * 1024 for number in range(3)}
    assert len(record_of(**texts, **own)) < LINE_MAX
