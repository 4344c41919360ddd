# SPDX-License-Identifier: Apache-2.0
"""All hosts' chains at a target: what is found of each, and what is not held against it."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_logs import KEY, OTHER_KEY, START, LogMaker, make_lines, stamp, write_log
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from shipped_hosts import Host

from pam_mfa.audit_shipping import Directory, FleetKind, HostReport, Measures, check_fleet
from pam_mfa.audit_shipping.hosts import SignOfLife, format_sign
from pam_mfa.errors import BrokenSystemError, RefusedError

LINES = make_lines(40)
NOW = START.timestamp() + 600
HOUR = 3600.0


def age_sign(host: Host, moment: datetime.datetime = START) -> None:
    """Have a host's sign of life be of this time."""
    path = host.target / f"{host.claim.host}.alive.json"
    path.write_bytes(format_sign(host.sign()._replace(at=stamp(moment))))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host whose records were shipped a while ago."""
    host = Host(tmp_path)
    write_log(host.log, LINES)
    host.ship()
    age_sign(host)
    return host


def check(host: Host, *, now: float = NOW, keys: Path | None = None) -> list[HostReport]:
    """Check the fleet of which a host is."""
    return list(check_fleet(Directory(host.target), Measures(now, 2 * HOUR, keys)))


def kinds(host: Host, now: float = NOW) -> list[str]:
    """Return the kinds of what is found of one host."""
    (report,) = check(host, now=now)
    return [one.kind for one in report.findings]


def write_key(directory: Path, name: str, key: Ed25519PrivateKey) -> Path:
    """Write a public key as a host has it; return its directory."""
    directory.mkdir(exist_ok=True)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / f"{name}.pub").write_bytes(pem)
    return directory


def test_sound(host: Host) -> None:
    """Nothing is found of a host that ships, and its signatures are right."""
    (report,) = check(host)
    assert ([], "web1", False) == (report.findings, report.host, report.key_is_named)
    (path, found), *others = report.chains
    assert (host.chain().name, [], 40) == (path, others, found.records)
    assert found.checkpoints > 3
    assert "2026-11-24T08:00:34Z" == report.heard


def edit(lines: list[bytes]) -> list[bytes]:
    """Change a record."""
    return [*lines[:20], lines[20].replace(b'"user":"user', b'"user":"root'), *lines[21:]]


def swap(lines: list[bytes]) -> list[bytes]:
    """Change the order of two records."""
    return [*lines[:20], lines[21], lines[20], *lines[22:]]


TAMPERED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "edited": edit,
    "removed": lambda lines: [*lines[:20], *lines[21:]],
    "the first removed": lambda lines: [*lines[:1], *lines[2:]],
    "reordered": swap,
    "doubled": lambda lines: [*lines[:21], *lines[20:]],
    "put in": lambda lines: [*lines[:20], LogMaker().add(user="x").lines[0], *lines[20:]],
    "no record": lambda lines: [*lines[:20], b"hello\n", *lines[20:]],
    "the last ones cut off": lambda lines: lines[:-3],
    "all cut off": lambda lines: lines[:1],
    "emptied": lambda _lines: [],
    "half of the last one": lambda lines: [*lines[:-1], lines[-1][:50]],
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered(host: Host, name: str) -> None:
    """What is changed, removed, put in, moved or cut off at the target is found."""
    write_log(host.chain(), TAMPERED[name](LINES))
    assert [FleetKind.NOT_INTACT] == kinds(host)


def test_chain_taken_away(host: Host) -> None:
    """A host whose records were deleted at the target is found by what is left beside them."""
    host.chain().unlink()
    assert [FleetKind.NO_RECORDS] == kinds(host)


def test_line_that_is_being_written(host: Host) -> None:
    """Half a line behind the last record is no finding: its shipper is at it, or was killed."""
    with host.chain().open("ab") as file:
        file.write(b'{"caller')
    assert [] == kinds(host)


@pytest.mark.parametrize(("minutes", "found"), [(115, []), (121, [FleetKind.SILENT])])
def test_silent(host: Host, minutes: int, found: list[str]) -> None:
    """A host that nothing was heard of for longer than is allowed is found."""
    last = START.timestamp() + 40
    assert found == kinds(host, now=last + minutes * 60)


def test_idle(host: Host) -> None:
    """A host without a new record is not silent: its sign of life comes all the same."""
    age_sign(host, START + datetime.timedelta(hours=9))
    assert [] == kinds(host, now=START.timestamp() + 10 * HOUR)


def test_clock_ahead(host: Host) -> None:
    """A time of the future is no sign of life, for it would hide a host that went silent."""
    age_sign(host, START + datetime.timedelta(days=400))
    (report,) = check(host)
    assert [FleetKind.CLOCK_AHEAD] == [one.kind for one in report.findings]
    assert "ahead by 399 d 23 h" in report.findings[0].text


def test_begun_anew(host: Host) -> None:
    """A host whose log was made anew is found; both chains are checked."""
    write_log(host.log, LogMaker().add().sign("start").lines)
    host.ship()
    age_sign(host)
    (report,) = check(host)
    assert [FleetKind.BEGUN_ANEW] == [one.kind for one in report.findings]
    assert [40, 2] == [found.records for _, found in report.chains]


def test_set_back(host: Host) -> None:
    """A host whose log and state were set back is found, with the last record of both."""
    fork = LogMaker()
    for line in LINES[:25]:
        fork._put(json.loads(line))  # noqa: SLF001 - a log that goes on another way
    write_log(host.log, fork.add(user="mallory").sign().lines)
    host.ship()
    age_sign(host)
    (report,) = check(host)
    assert [FleetKind.SET_BACK] == [one.kind for one in report.findings]
    assert "the same up to record 25" in report.findings[0].text
    assert [40, 27] == [found.records for _, found in report.chains]


def test_cut_on_the_host(host: Host) -> None:
    """A host whose own log ends before what was shipped is found; the records are here."""
    write_log(host.log, LINES[:12])
    host.ship()
    age_sign(host)
    (report,) = check(host)
    assert [FleetKind.CUT_ON_HOST] == [one.kind for one in report.findings]
    assert "ended with record 12 where 40 had been shipped" in report.findings[0].text


def test_two_machines_of_one_name(host: Host, tmp_path: Path) -> None:
    """A second machine that tried to ship under the same name is found."""
    other = Host(tmp_path, machine="fedcba9876543210")
    write_log(other.log, LINES)
    with pytest.raises(RefusedError):
        other.ship()
    assert [FleetKind.SAME_NAME] == kinds(host)


def test_claim_taken_away(host: Host) -> None:
    """Records of which nobody says whose they are are found."""
    (host.target / "web1.host.json").unlink()
    assert [FleetKind.NO_CLAIM] == kinds(host)


def test_directory_of_keys(host: Host, tmp_path: Path) -> None:
    """Signatures are held against the key that is named for the host, and for no other."""
    keys = write_key(tmp_path / "keys", "web1", KEY)
    (report,) = check(host, keys=keys)
    assert ([], True) == (report.findings, report.key_is_named)
    write_key(keys, "web1", OTHER_KEY)
    (report,) = check(host, keys=keys)
    assert [FleetKind.NOT_INTACT] == [one.kind for one in report.findings]
    assert "which is not trusted here" in report.findings[0].text


def test_missing_and_surplus_keys(host: Host, tmp_path: Path) -> None:
    """A host without a key is found, and a key without a host."""
    keys = write_key(tmp_path / "keys", "web2", KEY)
    one, two = check(host, keys=keys)
    assert [FleetKind.NO_KEY] == [each.kind for each in one.findings]
    assert ("web2", [FleetKind.NO_RECORDS]) == (two.host, [each.kind for each in two.findings])


def test_key_that_was_seen_first(tmp_path: Path) -> None:
    """A log that was made anew with another key is not signed by the key of the host's claim."""
    host = Host(tmp_path)
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    host.claim = host.claim._replace(public_key=pem.decode())
    write_log(host.log, LogMaker(OTHER_KEY).sign("start").add().lines)
    host.ship()
    age_sign(host)
    assert [FleetKind.NOT_INTACT] == kinds(host)


@pytest.mark.parametrize("name", ["host", "alive", "other"])
@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"at": 5}'])
def test_damaged_beside(host: Host, name: str, data: bytes) -> None:
    """What is damaged beside the records ends no check."""
    (host.target / f"web1.{name}.json").write_bytes(data)
    expected = {"host": [FleetKind.NO_CLAIM], "alive": [], "other": []}[name]
    assert expected == kinds(host)


def test_unreadable(host: Host) -> None:
    """A fifo or a link in the place of a chain is told, and the next host is still checked."""
    other = Host(host.target.parent, "web2", "fedcba9876543210")
    write_log(other.log, LINES)
    other.ship()
    age_sign(other)
    lines = host.chain()
    lines.rename(lines.with_name("elsewhere"))
    lines.symlink_to("elsewhere")
    one, two = check(host)
    assert [FleetKind.UNREADABLE] == [each.kind for each in one.findings]
    assert (True, "web2", []) == (one.is_unreadable, two.host, two.findings)


def test_no_directory(tmp_path: Path) -> None:
    """A target that is not there is said, and not taken for an empty fleet."""
    with pytest.raises(BrokenSystemError, match="cannot be read"):
        list(check_fleet(Directory(tmp_path / "nowhere"), Measures(NOW, HOUR)))


def test_sign_of_life_round_trip(host: Host) -> None:
    """A sign of life says where both ends are."""
    sign = host.sign()
    assert isinstance(sign, SignOfLife)
    assert (1, 40, 40) == (sign.chain, sign.shipped.sequence, sign.log.sequence)
