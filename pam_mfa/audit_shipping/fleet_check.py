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
    LogFile,
    PublicKeys,
    Report,
    Wanted,
    open_logs,
    parse_moment,
    read_public_key,
)
from pam_mfa.audit_reading.lines import OddLine
from pam_mfa.audit_shipping.file_sink import (
    ALIVE,
    CLAIM,
    LOG,
    OTHER,
    find_chains,
    list_names,
    read_small,
)
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
    chains: list[tuple[Path, Report]] = field(default_factory=list)
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


def check_fleet(directory: Path, measures: Measures) -> Iterator[HostReport]:
    """Check the hosts of a directory one after the other, by name.

    Raises:
        BrokenSystemError: the directory, or that of the keys, cannot be read.
    """
    for host in find_hosts(directory, measures.keys):
        yield check_host(directory, host, measures)


def find_hosts(directory: Path, keys: Path | None) -> list[str]:
    """Return all hosts that have files at a target, or a key.

    Raises:
        BrokenSystemError: a directory cannot be read.
    """
    found = set()
    for name in list_names(directory):
        if name.endswith(CLAIM):
            found.add(from_file_name(name.removesuffix(CLAIM)))
        elif name.endswith(LOG):
            found.add(from_file_name(name.removesuffix(LOG).partition("+")[0]))
    for name in list_names(keys) if keys is not None else ():
        if name.endswith(KEY):
            found.add(from_file_name(name.removesuffix(KEY)))
    return sorted(found)


def check_host(directory: Path, host: str, measures: Measures) -> HostReport:
    """Check one host."""
    report = HostReport(host)
    try:
        claim, sign = _read_beside(directory, report)
        _check_chains(directory, report, claim, sign, measures)
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
    _judge_times(report, sign, measures)
    return report


def _read_beside(directory: Path, report: HostReport) -> tuple[Claim | None, SignOfLife | None]:
    """Read what stands beside the records."""
    name = to_file_name(report.host)
    claim = sign = None
    with contextlib.suppress(FormatError):
        data = read_small(directory / f"{name}{CLAIM}")
        claim = parse_claim(data) if data is not None else None
    with contextlib.suppress(FormatError):
        data = read_small(directory / f"{name}{ALIVE}")
        sign = parse_sign(data) if data is not None else None
    if claim is None and find_chains(directory, report.host):
        report.find(
            FleetKind.NO_CLAIM,
            f"{name}{CLAIM}, which says whose records these are, is missing or damaged",
            "Restore it from a backup; the host makes a new one otherwise.",
        )
    other = read_small(directory / f"{name}{OTHER}")
    if other is not None:
        with contextlib.suppress(FormatError):
            found = parse_claim(other)
            report.find(
                FleetKind.SAME_NAME,
                f"a second machine of this name tried to ship at {found.since[:19]}, and may not",
                f"Give it another name there (--name), then remove {name}{OTHER} here. If it is "
                f"the same host, installed anew: move {name}* to an archive.",
            )
    return claim, sign


def _check_chains(
    directory: Path,
    report: HostReport,
    claim: Claim | None,
    sign: SignOfLife | None,
    measures: Measures,
) -> None:
    chains = find_chains(directory, report.host)
    for index, (number, path) in enumerate(chains):
        keys = _find_keys(report, claim, measures)
        anchors = []
        if sign is not None and sign.chain == number and sign.shipped != Head():
            anchors = [("its sign of life", Anchor(*sign.shipped))]
        found = _check_chain(path, Wanted(keys, anchors))
        report.chains.append((path, found))
        _judge_chain(report, path, found)
        if index:
            _judge_new_chain(report, chains[index - 1][1], path)


def _check_chain(path: Path, wanted: Wanted) -> Report:
    with open_logs(path) as files:
        check = ChainCheck(wanted)
        for file in files:
            check.check(_Settled(file) if file is files[-1] else file)
        return check.finish()


class _Settled:
    """A chain's newest file without a line that is being written, or whose writer was killed.

    The next turn of the shipper completes it. That nothing is missing, the sign of life tells.
    """

    def __init__(self, file: LogFile) -> None:
        self.path = file.path
        self._file = file

    def lines(self) -> Iterator[bytes | OddLine]:
        for line in self._file.lines():
            if isinstance(line, OddLine) and line.is_cut:
                return
            yield line


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


def _judge_chain(report: HostReport, path: Path, found: Report) -> None:
    if found.is_unreadable:
        report.find(FleetKind.UNREADABLE, f"{path} cannot be read to its end", _KEEP)
    elif not found.is_intact:
        first = found.findings[0]
        count = found.findings_count
        more = f", and {count - 1} more" if count > 1 else ""
        report.find(
            FleetKind.NOT_INTACT,
            f"{first.place}: {first.kind}: {first.text}{more}",
            f"{_KEEP} All of it: pam-mfa audit verify {path}",
        )


def _judge_new_chain(report: HostReport, old: Path, new: Path) -> None:
    """Say how a chain differs from the one before it."""
    last = _common_end(old, new)
    hint = (
        "If the host was installed anew or restored, move the older file to an archive; if not, "
        "find out who was root there. The records of both are here."
    )
    if not last:
        report.find(
            FleetKind.BEGUN_ANEW,
            f"its chain was begun anew: {new.name} follows no record of {old.name}",
            hint,
        )
    else:
        report.find(
            FleetKind.SET_BACK,
            f"its log was set back: {new.name} and {old.name} are the same up to record {last} "
            "and then differ",
            hint,
        )


def _common_end(old: Path, new: Path) -> int:
    """Return up to which sequence two chains are the same; 0: from the first record on not."""
    common = b""
    with open_logs(old) as before, open_logs(new) as after:
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


def _judge_times(report: HostReport, sign: SignOfLife | None, measures: Measures) -> None:
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
            f"for good: move {to_file_name(report.host)}* to an archive.",
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
