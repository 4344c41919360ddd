# SPDX-License-Identifier: Apache-2.0
"""Records shipped to a directory: each once, whatever kills the shipper or turns up in its way."""

import bz2
import gzip
import hashlib
import itertools
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_logs import LogMaker, make_lines, write_log
from shipped_hosts import Host, ship_killed

from pam_mfa.audit import Head
from pam_mfa.audit_shipping import Chain
from pam_mfa.audit_shipping.file_sink import FileSink
from pam_mfa.audit_shipping.hosts import SignOfLife, parse_claim
from pam_mfa.audit_shipping.position import Positions
from pam_mfa.errors import BrokenSystemError, RefusedError

LINES = make_lines(30)
NAMES = ("directory:/a", "syslog:/dev/log")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host."""
    return Host(tmp_path)


def head_of(line: bytes) -> Head:
    """Return a line's place and hash."""
    return Head(json.loads(line)["sequence"], hashlib.sha256(line[:-1]).hexdigest())


def test_everything_once(host: Host) -> None:
    """The target has the log byte for byte; a second turn adds nothing."""
    write_log(host.log, LINES)
    assert (30, 0) == (host.ship(), host.ship())
    assert (LINES, []) == (host.copy(), host.told)
    assert SignOfLife(host.sign().at, 1, head_of(LINES[-1]), head_of(LINES[-1])) == host.sign()


def test_what_follows(host: Host) -> None:
    """Each turn adds what was written since, in one process and in another."""
    sink, shipper = host.open()
    counts = []
    for end in (3, 3, 4, 11):
        write_log(host.log, LINES[:end])
        counts.append(shipper.ship())
    sink.close()
    write_log(host.log, LINES)
    assert ([3, 0, 1, 7], 19) == (counts, host.ship())
    assert (LINES, []) == (host.copy(), host.told)


def test_no_log_yet(host: Host) -> None:
    """A host without a record gives a sign of life, and ships its first record later."""
    sink, shipper = host.open()
    assert 0 == shipper.ship()
    assert Head() == host.sign().shipped
    write_log(host.log, LINES[:1])
    assert 1 == shipper.ship()
    sink.close()


@pytest.mark.parametrize("is_one_process", [True, False])
@pytest.mark.parametrize("packed", [None, gzip.compress, bz2.compress])
def test_rotated(
    host: Host, packed: Callable[[bytes], bytes] | None, *, is_one_process: bool
) -> None:
    """Rotation between two turns, and packing, lose and double nothing."""
    write_log(host.log, LINES[:10])
    sink, shipper = host.open()
    shipper.ship()
    with host.log.open("ab") as file:
        file.writelines(LINES[10:15])
    old = host.log.rename(host.log.with_name("audit.jsonl.1"))
    if packed is not None:
        write_log(old.with_suffix(".2"), [packed(b"".join(LINES[:15]))])
        old.unlink()
        old.with_suffix(".2").rename(old.with_name("audit.jsonl.2.gz"))
    if not is_one_process:
        sink.close()
        sink, shipper = host.open()
    assert 5 == shipper.ship()
    assert 0 == shipper.ship()
    write_log(host.log, LINES[15:])
    assert 15 == shipper.ship()
    sink.close()
    assert (LINES, []) == (host.copy(), host.told)


def test_written_into_the_old_file_after_a_rotation(host: Host) -> None:
    """A record that a verifier still writes into the renamed file is shipped, too."""
    write_log(host.log, LINES[:10])
    sink, shipper = host.open()
    shipper.ship()
    old = host.log.rename(host.log.with_name("audit.jsonl.1"))
    assert 0 == shipper.ship()
    with old.open("ab") as file:
        file.write(LINES[10])
    assert 1 == shipper.ship()
    write_log(host.log, LINES[11:])
    shipper.ship()
    sink.close()
    assert (LINES, []) == (host.copy(), host.told)


def test_file_with_the_number_of_an_old_one(host: Host) -> None:
    """A new log on the old one's inode, as after a rotation and packing, is not taken for it."""
    write_log(host.log, LINES[:5])
    sink, shipper = host.open()
    shipper.ship()
    number = host.log.stat().st_ino
    write_log(host.log.with_name("audit.jsonl.1.gz"), [gzip.compress(b"".join(LINES[:9]))])
    write_log(host.log, LINES[9:])  # the same inode, and longer than it was
    assert number == host.log.stat().st_ino
    assert 25 == shipper.ship()
    sink.close()
    assert (LINES, []) == (host.copy(), host.told)


def test_copy_of_a_part(host: Host) -> None:
    """Where a copy of a part ends with what the target has, the original has what follows."""
    write_log(host.log.with_name("audit.jsonl.1"), LINES[:20])
    write_log(host.log.with_name("audit.jsonl-20200101"), LINES[:12])
    write_log(host.log.with_name("audit.jsonl-20200102"), LINES[7:12])
    write_log(host.log, LINES[20:])
    (host.target / "web1.jsonl").write_bytes(b"".join(LINES[:12]))
    assert 18 == host.ship()
    assert (LINES, []) == (host.copy(), host.told)


def test_while_a_file_is_packed(host: Host) -> None:
    """A half-packed file beside its original is left alone."""
    write_log(host.log.with_name("audit.jsonl.1"), LINES[:20])
    half = gzip.compress(b"".join(LINES[:20]))[:60]
    write_log(host.log.with_name("audit.jsonl.1.gz"), [half])
    write_log(host.log, LINES[20:])
    assert 30 == host.ship()
    assert (LINES, []) == (host.copy(), host.told)


def test_copied_files(host: Host) -> None:
    """Files of the log that somebody has copied beside it are not shipped a second time."""
    write_log(host.log.with_name("audit.jsonl.1"), LINES[:20])
    write_log(host.log.with_name("audit.jsonl-20261124"), LINES[:12])
    write_log(host.log, LINES[20:])
    host.ship()
    write_log(host.log.with_name("audit.jsonl-20261125"), LINES[5:20])
    assert 0 == host.ship()
    assert (LINES, []) == (host.copy(), host.told)


def test_line_that_is_being_written(host: Host) -> None:
    """Half a line waits until it is whole."""
    sink, shipper = host.open()
    write_log(host.log, [*LINES[:5], LINES[5][:40]])
    assert 5 == shipper.ship()
    write_log(host.log, LINES[:6])
    assert 1 == shipper.ship()
    sink.close()
    assert LINES[:6] == host.copy()


def test_line_that_is_none(host: Host) -> None:
    """What is no record stays where it is, and is counted."""
    write_log(host.log, [*LINES[:5], b'{"torn":\n', b"x" * 200_000 + b"\n", *LINES[5:]])
    sink, shipper = host.open()
    assert (30, 2) == (shipper.ship(), shipper.skipped)
    sink.close()
    assert LINES == host.copy()


KILLED_IN = ("write", "fdatasync", "fsync", "rename", "link", "open")


@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize("name", KILLED_IN)
def test_killed_at_each_step(tmp_path: Path, name: str, *, is_half: bool) -> None:
    """A shipper that is killed before, in or behind any step loses and doubles nothing."""
    kills = 0
    for is_first in (True, False):
        for number in itertools.count(1):
            base = tmp_path / f"{is_first}{number}"
            base.mkdir()
            host = Host(base)
            write_log(host.log, LINES[:20])
            if not is_first:
                host.ship()
            write_log(host.log, LINES)
            was_killed = ship_killed(host, name, number, is_half=is_half)
            host.ship()
            assert (LINES, []) == (host.copy(), host.told)
            if not was_killed:
                break
            kills += 1
    assert kills >= 1


def test_killed_again_and_again(tmp_path: Path) -> None:
    """Shippers that are killed one after the other, each in its write, still ship all once."""
    host = Host(tmp_path)
    kills = 0
    for end in range(1, 31):
        write_log(host.log, LINES[:end])
        kills += ship_killed(host, "write", 1, is_half=bool(end % 2))
    host.ship()
    assert 30 == kills
    assert [] == [each.name for each in host.target.iterdir() if each.name.endswith(".new")]
    assert (LINES, []) == (host.copy(), host.told)


def test_full_disk(host: Host) -> None:
    """A target that is full in the middle of a line is told; once there is room, all is there."""
    write_log(host.log, LINES)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(b"".join(LINES[:10])) + 50, limits[1]))
    try:
        with pytest.raises(BrokenSystemError, match="cannot be written"):
            host.ship()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [*LINES[:10], LINES[10][:50]] == host.copy()
    host.ship()
    assert (LINES, []) == (host.copy(), host.told)


@pytest.mark.parametrize("torn", [LINES[20][:1], LINES[20][:-1], b"\0" * 4096, b"{"])
def test_torn_line_at_the_target(host: Host, torn: bytes) -> None:
    """A line that was cut at the target is completed, or cut off where it is none."""
    write_log(host.log, LINES[:20])
    host.ship()
    with (host.target / "web1.jsonl").open("ab") as file:
        file.write(torn)
    write_log(host.log, LINES)
    host.ship()
    assert LINES == host.copy()


def test_target_that_can_only_be_appended_to(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be cut off (``chattr +a``), a torn line is completed, and garbage ended."""

    def refuse(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "ftruncate", refuse)
    garbage = b"\0" * 100
    for end, torn in ((10, LINES[10][:99]), (20, garbage), (30, b"")):
        write_log(host.log, LINES[:end])
        host.ship()
        with host.chain().open("ab") as file:
            file.write(torn)
    assert [*LINES[:20], garbage + b"\n", *LINES[20:]] == host.copy()


def test_target_rotated_and_packed(host: Host) -> None:
    """The target's own files may be rotated and packed as the log may."""
    write_log(host.log, LINES[:20])
    host.ship()
    write_log(host.target / "web1.jsonl.1.gz", [gzip.compress(b"".join(host.copy()))])
    (host.target / "web1.jsonl").unlink()
    write_log(host.log, LINES)
    assert 10 == host.ship()
    assert (LINES[20:], []) == (host.copy(), host.told)


def test_target_was_cut(host: Host) -> None:
    """What the target has lost is said, and put there again."""
    write_log(host.log, LINES)
    host.ship()
    write_log(host.target / "web1.jsonl", LINES[:12])
    assert 18 == host.ship()
    assert LINES == host.copy()
    assert ["taken away" in text for text in host.told] == [True]


def test_rotated_away_before_it_was_shipped(host: Host) -> None:
    """A gap is said and stays visible; what follows is shipped."""
    write_log(host.log, LINES[:10])
    host.ship()
    write_log(host.log, LINES[15:])
    assert 15 == host.ship()
    assert [*LINES[:10], *LINES[15:]] == host.copy()
    assert ["rotated away" in text for text in host.told] == [True]


def test_log_cut_on_the_host(host: Host) -> None:
    """A log that ends before what the target has is told of, once a turn; nothing is taken back."""
    write_log(host.log, LINES)
    host.ship()
    write_log(host.log, LINES[:12])
    sink, shipper = host.open()
    assert (0, 0) == (shipper.ship(), shipper.ship())
    sink.close()
    assert LINES == host.copy()
    assert ["cut off here" in text for text in host.told] == [True]
    assert (head_of(LINES[-1]), head_of(LINES[11])) == host.sign()[2:]


def test_goes_on_after_a_cut(host: Host) -> None:
    """The verifier goes on from its state: its next records join what the target has."""
    write_log(host.log, LINES[:20])
    host.ship()
    write_log(host.log, [*LINES[:12], *LINES[20:]])
    assert 10 == host.ship()
    assert (LINES, []) == (host.copy(), host.told)


def test_chain_begun_anew(host: Host) -> None:
    """A new log becomes a second chain at the target; the old one stays as it is."""
    write_log(host.log, LINES)
    host.ship()
    fresh = LogMaker().add(user="mallory").add().lines
    write_log(host.log, fresh)
    assert (2, 0) == (host.ship(), host.ship())
    assert (LINES, fresh) == (host.copy(), host.copy(2))
    assert ["Chain 2 is begun" in text for text in host.told] == [True]


def test_chain_begun_anew_behind_the_old_one(host: Host) -> None:
    """A new log beside the rotated old one becomes a second chain, too."""
    write_log(host.log.with_name("audit.jsonl.1"), LINES)
    fresh = LogMaker().add(user="mallory").add().lines
    write_log(host.log, fresh)
    assert 32 == host.ship()
    assert (LINES, fresh) == (host.copy(), host.copy(2))
    write_log(host.log, more := LogMaker().add(user="mallory").add().add().lines)
    assert (1, 0) == (host.ship(), host.ship())
    assert (LINES, more) == (host.copy(), host.copy(2))


def test_log_set_back(host: Host) -> None:
    """A log that goes another way from a record on is shipped whole, as a second chain."""
    write_log(host.log, LINES)
    host.ship()
    maker = LogMaker().add(user="a").add(user="b")
    write_log(host.log, maker.lines)
    host.ship()
    other = [*maker.lines[:1], *LogMaker().add(user="a").add(user="c").add().lines[1:]]
    write_log(host.log, other)
    host.ship()
    assert (LINES, maker.lines, other) == (host.copy(), host.copy(2), host.copy(3))


def test_two_machines_of_one_name(tmp_path: Path) -> None:
    """The second one is refused, and a note of it is left; nothing of both is mixed."""
    one, two = Host(tmp_path), Host(tmp_path, machine="fedcba9876543210")
    write_log(one.log, LINES)
    write_log(two.log, LogMaker().add(user="other").lines)
    one.ship()
    with pytest.raises(RefusedError, match="another machine's name"):
        two.ship()
    assert LINES == one.copy()
    note = parse_claim((one.target / "web1.other.json").read_bytes())
    assert "fedcba9876543210" == note.machine


def test_two_copies_of_one_machine(tmp_path: Path) -> None:
    """Machines that are copies, ids and all, get a chain each, and no more than that."""
    one, two = Host(tmp_path), Host(tmp_path, machine="fedcba9876543210")
    two.claim = one.claim
    write_log(one.log, LINES[:10])
    one.ship()
    write_log(two.log.with_name("shipped.json"), [one.log.with_name("shipped.json").read_bytes()])
    two.log.with_name("shipped.json").chmod(0o600)
    other = [*LINES[:10]]
    for turn in range(4):
        write_log(one.log, LINES[: 12 + turn])
        maker = LogMaker().skip(10).add(user="two")
        other.extend(maker.lines if turn == 0 else [])
        write_log(two.log, other)
        one.ship()
        two.ship()
    assert (LINES[:15], other) == (one.copy(), two.copy(2))
    assert [] == one.copy(3)


def test_drafts_of_the_killed(host: Host) -> None:
    """What a killed shipper has left half written beside the records is taken away."""
    write_log(host.log, LINES)
    host.ship()
    (host.target / "web1.alive.json.0011.new").write_bytes(b"{")
    (host.target / "web12.alive.json.0011.new").write_bytes(b"another's")
    host.ship()
    left = [each.name for each in host.target.iterdir() if each.name.endswith(".new")]
    assert ["web12.alive.json.0011.new"] == left


def test_second_shipper(host: Host) -> None:
    """Two processes do not ship for one host at once; the second one may try again."""
    sink, _ = host.open()
    with pytest.raises(BrokenSystemError, match="another process"):
        host.open()
    sink.close()
    host.open()[0].close()


def test_two_targets_at_once(tmp_path: Path) -> None:
    """Shippers to two targets leave each other's places alone."""
    path = tmp_path / "shipped.json"
    one, other = Positions(path, NAMES[0]), Positions(path, NAMES[1])
    first, second = Chain(1, Head(5, "a" * 64)), Chain(1, Head(9, "b" * 64))
    other.put(second)
    one.put(first)
    assert (first, second) == tuple(Positions(path, each).get() for each in NAMES)


@pytest.mark.parametrize("name", ["../etc/passwd", ".hidden", "a+2", "web1.jsonl", "ö b"])
def test_names_of_hosts(tmp_path: Path, name: str) -> None:
    """No name leaves the directory, hides in it, or is another host's."""
    host = Host(tmp_path, name)
    write_log(host.log, LINES[:3])
    host.ship()
    names = sorted(each.name for each in host.target.iterdir())
    assert [3, 0] == [len(names), sum(each.startswith(".") or "+" in each for each in names)]
    assert [Chain(1, head_of(LINES[2]))] == list(FileSink(host.target, host.claim).chains())


def test_links_are_not_followed(host: Host, tmp_path: Path) -> None:
    """A link in the place of a chain is refused, and what it leads to stays as it is."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine\n")
    (host.target / "web1.jsonl").symlink_to(victim)
    write_log(host.log, LINES)
    with pytest.raises((BrokenSystemError, RefusedError)):
        host.ship()
    assert b"mine\n" == victim.read_bytes()


def test_target_that_is_not_there(host: Host) -> None:
    """A directory that is not mounted is said so, and not made."""
    host.target.rmdir()
    with pytest.raises(BrokenSystemError, match="cannot be read"):
        host.ship()
    assert not host.target.exists()


def test_directory_of_everybody(host: Host) -> None:
    """A directory that anybody may write to is refused."""
    host.target.chmod(0o777)
    with pytest.raises(RefusedError, match="anybody may write"):
        host.ship()


def test_too_many_chains(host: Host) -> None:
    """Chains are not begun without end."""
    sink = FileSink(host.target, host.claim)
    for number in range(1, 100):
        sink.put(number, LogMaker().add(user=f"user{number}").lines)
    sink.close()
    write_log(host.log, LINES)
    with pytest.raises(BrokenSystemError, match="99 chains"):
        host.ship()


def test_damaged_position(host: Host) -> None:
    """A damaged memory of what was shipped is said, and not taken for an empty one."""
    write_log(host.log, LINES)
    host.ship()
    write_log(host.log.with_name("shipped.json"), [b"{"])
    with pytest.raises(BrokenSystemError, match="is damaged"):
        host.ship()
