# SPDX-License-Identifier: Apache-2.0
"""Every host's chain at a target: whether each is whole, signed by its own key, and still growing.

Each chain is checked as a log of one host is. Besides: a host that nothing is heard of any more,
one whose log was made anew, set back or cut off, and two machines of one name. Reads only.
"""

import contextlib
import datetime
import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pam_mfa.audit import Head
from pam_mfa.audit_reading import (
    Anchor,
    ChainCheck,
    PublicKeys,
    Report,
    Wanted,
    parse_moment,
    read_public_key,
)
from pam_mfa.audit_shipping.archives import Archive, Beside
from pam_mfa.audit_shipping.file_sink import list_names
from pam_mfa.audit_shipping.hosts import (
    Claim,
    FormatError,
    SignOfLife,
    from_file_name,
    parse_claim,
    parse_sign,
    to_file_name,
)
from pam_mfa.audit_shipping.source import parse_entry
from pam_mfa.errors import BrokenSystemError, RefusedError

_AHEAD_MAX: Final = 600.0  # seconds that a host's clock may be ahead of this one's
_KEEP: Final = "Keep the files as they are: copy them before anything else is done."
KEY: Final = ".pub"


class FleetKind(enum.StrEnum):
    """What was found at a target; a closed list."""

    NOT_INTACT = "not_intact"
    NO_RECORDS = "no_records"
    NO_KEY = "no_key"
    SILENT = "silent"
    CLOCK_AHEAD = "clock_ahead"
    BEGUN_ANEW = "begun_anew"
    SET_BACK = "set_back"
    CUT_ON_HOST = "cut_on_host"
    SAME_NAME = "same_name"
    NO_CLAIM = "no_claim"
    UNREADABLE = "unreadable"  # exit status 3


class FleetFinding(NamedTuple):
    """Something that a host of a sound fleet does not have."""

    kind: FleetKind
    text: str
    hint: str


class Measures(NamedTuple):
    """What a fleet is held against."""

    now: float  # seconds since the epoch
    silent_after: float  # seconds
    keys: Path | None = None  # a directory with HOST.pub of each host; None: the first seen


@dataclass
class HostReport:
    """What became of one host's check."""

    host: str
    chains: list[tuple[str, Report]] = field(default_factory=list)
    findings: list[FleetFinding] = field(default_factory=list)
    key_is_named: bool = False  # whether its key came from the directory of keys
    heard: str = ""  # when it was last heard of, as records have times

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def is_unreadable(self) -> bool:
        """Whether something could not be read."""
        return any(one.kind is FleetKind.UNREADABLE for one in self.findings)

    def find(self, kind: FleetKind, text: str, hint: str) -> None:
        """Note a finding."""
        self.findings.append(FleetFinding(kind, text, hint))


def check_fleet(archive: Archive, measures: Measures) -> Iterator[HostReport]:
    """Check the hosts of a target one after the other, by name.

    Raises:
        BrokenSystemError: the target, or the directory of keys, cannot be read.
    """
    names = list_names(measures.keys) if measures.keys is not None else []
    keyed = {from_file_name(name.removesuffix(KEY)) for name in names if name.endswith(KEY)}
    for host in sorted({*archive.hosts(), *keyed}):
        yield check_host(archive, host, measures)


def check_host(archive: Archive, host: str, measures: Measures) -> HostReport:
    """Check one host."""
    report = HostReport(host)
    try:
        beside = archive.beside(host)
        sign = _find_sign(beside)
        _check_chains(
            archive, report, _Known(_judge_claims(archive, report, beside), sign), measures
        )
    except (RefusedError, BrokenSystemError) as error:
        report.find(FleetKind.UNREADABLE, str(error), error.hint)
        return report
    if not report.chains:
        report.find(
            FleetKind.NO_RECORDS,
            "not one record has come",
            "On the host: pam-mfa audit ship, by hand, says what hinders it.",
        )
        return report
    if sign is not None and sign.log.sequence < sign.shipped.sequence:
        report.find(
            FleetKind.CUT_ON_HOST,
            f"its own log ended with record {sign.log.sequence} where {sign.shipped.sequence} had "
            "been shipped: it was cut off on the host",
            "The records are here. Find out who was root there; on the host: pam-mfa audit verify",
        )
    _judge_times(archive, report, sign, measures)
    return report


class _Known(NamedTuple):
    """What a host has said of itself."""

    claim: Claim | None
    sign: SignOfLife | None


def _find_sign(beside: Beside) -> SignOfLife | None:
    with contextlib.suppress(FormatError):
        return parse_sign(beside.sign) if beside.sign is not None else None
    return None


def _judge_claims(archive: Archive, report: HostReport, beside: Beside) -> Claim | None:
    """Return whose records these are; find it where nobody says so, or two machines do."""
    claim = None
    with contextlib.suppress(FormatError):
        claim = parse_claim(beside.claim) if beside.claim is not None else None
    if claim is None and archive.chains(report.host):
        report.find(
            FleetKind.NO_CLAIM,
            "what says whose records these are is missing or damaged",
            "Restore it from a backup; the host makes a new one otherwise.",
        )
    if beside.other is not None:
        with contextlib.suppress(FormatError):
            found = parse_claim(beside.other)
            report.find(
                FleetKind.SAME_NAME,
                f"a second machine of this name tried to ship at {found.since[:19]}, and may not",
                "Give it another name there (--name), then remove the note of it here. If it is "
                f"the same host, installed anew: move {archive.whose(report.host)} to an archive.",
            )
    return claim


def _check_chains(archive: Archive, report: HostReport, known: _Known, measures: Measures) -> None:
    before: tuple[int, str] | None = None
    for number, name in archive.chains(report.host):
        keys = _find_keys(report, known.claim, measures)
        anchors = []
        sign = known.sign
        if sign is not None and sign.chain == number and sign.shipped != Head():
            anchors = [("its sign of life", Anchor(*sign.shipped))]
        check = ChainCheck(Wanted(keys, anchors))
        with archive.open(report.host, number) as files:
            for file in files:
                check.check(file)
        found = check.finish()
        report.chains.append((name, found))
        _judge_chain(report, name, found)
        if before is not None:
            _judge_new_chain(archive, report, before, (number, name))
        before = (number, name)


def _find_keys(report: HostReport, claim: Claim | None, measures: Measures) -> PublicKeys:
    """Return the key that is named for a host, the one first seen, or what its log brings along."""
    if measures.keys is not None:
        path = measures.keys / f"{to_file_name(report.host)}{KEY}"
        with contextlib.suppress(FileNotFoundError):
            keys = PublicKeys([read_public_key(path)])
            report.key_is_named = True
            return keys
        if not any(one.kind is FleetKind.NO_KEY for one in report.findings):
            report.find(
                FleetKind.NO_KEY,
                f"there is no key {path}: its signatures are checked by the key first seen",
                "Copy /var/lib/pam_mfa/audit.pub of that host there, by a way that you trust.",
            )
    if claim is not None and claim.public_key:
        with contextlib.suppress(ValueError, UnsupportedAlgorithm):
            found = load_pem_public_key(claim.public_key.encode())
            if isinstance(found, Ed25519PublicKey):
                return PublicKeys([found])
    return PublicKeys()


def _judge_chain(report: HostReport, name: str, found: Report) -> None:
    if found.is_unreadable:
        report.find(FleetKind.UNREADABLE, f"{name} cannot be read to its end", _KEEP)
    elif not found.is_intact:
        first = found.findings[0]
        count = found.findings_count
        more = f", and {count - 1} more" if count > 1 else ""
        report.find(
            FleetKind.NOT_INTACT,
            f"{first.place}: {first.kind}: {first.text}{more}",
            f"{_KEEP} All that was found: pam-mfa audit verify --fleet ... --json",
        )


def _judge_new_chain(
    archive: Archive, report: HostReport, old: tuple[int, str], new: tuple[int, str]
) -> None:
    """Say how a chain differs from the one before it."""
    last = _common_end(archive, report.host, old[0], new[0])
    hint = (
        "If the host was installed anew or restored, move the older chain to an archive; if not, "
        "find out who was root there. The records of both are here."
    )
    if not last:
        report.find(
            FleetKind.BEGUN_ANEW,
            f"its chain was begun anew: {new[1]} follows no record of {old[1]}",
            hint,
        )
    else:
        report.find(
            FleetKind.SET_BACK,
            f"its log was set back: {new[1]} and {old[1]} are the same up to record {last} "
            "and then differ",
            hint,
        )


def _common_end(archive: Archive, host: str, old: int, new: int) -> int:
    """Return up to which sequence two chains are the same; 0: from the first record on not."""
    common = b""
    with archive.open(host, old) as before, archive.open(host, new) as after:
        older = (line for file in before for line in file.lines())
        newer = (line for file in after for line in file.lines())
        wanted = next(newer, None)
        for line in older:
            if isinstance(line, bytes) and line == wanted:
                common, wanted = line, next(newer, None)
            elif common:
                break
    entry = parse_entry(common)
    return entry.head.sequence if entry is not None else 0


def _judge_times(
    archive: Archive, report: HostReport, sign: SignOfLife | None, measures: Measures
) -> None:
    """Find a host that is not heard of any more."""
    times = [sign.at] if sign is not None else []
    times += [found.last.time for _, found in report.chains if found.last is not None]
    moments = [moment for text in times if (moment := _to_seconds(text)) is not None]
    ahead = [moment for moment in moments if moment > measures.now + _AHEAD_MAX]
    if ahead:
        report.find(
            FleetKind.CLOCK_AHEAD,
            f"its clock is ahead by {_duration(max(ahead) - measures.now)}, so nothing can be said "
            "of when it was last heard of",
            "Set the clock there, or here; codes that depend on the time fail, too.",
        )
        return
    heard = max(moments, default=0.0)
    moment_heard = datetime.datetime.fromtimestamp(heard, datetime.UTC)
    report.heard = moment_heard.strftime("%Y-%m-%dT%H:%M:%SZ") if heard else ""
    if measures.now - heard > measures.silent_after:
        since = f"since {report.heard}, {_duration(measures.now - heard)} ago" if heard else "ever"
        report.find(
            FleetKind.SILENT,
            f"nothing was heard of it {since}",
            "On the host: systemctl status pam-mfa-audit-ship; pam-mfa doctor. One that is gone "
            f"for good: move {archive.whose(report.host)} to an archive.",
        )


def _to_seconds(text: str) -> float | None:
    with contextlib.suppress(ValueError, OverflowError):
        return parse_moment(text).timestamp()
    return None


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
