# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa audit verify --fleet``: every host's chain at a target."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from pam_mfa.audit_reading import Anchor, Report
from pam_mfa.audit_shipping import Archive, Directory, HostReport, Measures, check_fleet
from pam_mfa.cli.audit_database import DATABASE, open_database_archive
from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.policy import parse_duration
from pam_mfa.report import printable
from pam_mfa.store.layout import Layout, drop_privileges


def verify_fleet(
    layout: Layout, target: str, keys: Path | None, silent_after: str, *, as_json: bool
) -> None:
    """Check all hosts, tell of each as it is done, and end with the status.

    Raises:
        click.BadParameter: the interval is none.
        RefusedError: something was found.
        BrokenSystemError: something cannot be read.
    """
    try:
        seconds = parse_duration(silent_after)
    except ValueError as error:
        raise click.BadParameter(
            "is no interval as 90m, 2h or 7d", param_hint="--silent-after"
        ) from error
    reports = []
    with _opened(layout, target) as archive:
        for report in check_fleet(archive, Measures(time.time(), seconds, keys)):
            reports.append(report)
            if not as_json:
                _tell(report)
    if as_json:
        click.echo(json.dumps([_row(report) for report in reports], indent=2))
    _require_sound(target, reports)


@contextlib.contextmanager
def _opened(layout: Layout, target: str) -> Iterator[Archive]:
    if target != DATABASE:
        yield Directory(Path(target))
        return
    drop_privileges()  # the database is asked as the user that its certificates are for
    archive = open_database_archive(layout)
    try:
        yield archive
    finally:
        archive.close()


def _require_sound(target: str, reports: Sequence[HostReport]) -> None:
    if not reports:
        raise BrokenSystemError(
            f"there is no host's log in {target}",
            hint="On each host: pam-mfa audit ship --to TARGET",
        )
    wrong = [report for report in reports if not report.is_sound]
    if any(report.is_unreadable for report in wrong):
        raise BrokenSystemError("not everything at the target can be read")
    if wrong:
        raise RefusedError(f"hosts to be looked at: {len(wrong)} of {len(reports)}; see above")
    total = sum(found.records for report in reports for _, found in report.chains)
    click.echo(f"Sound. Hosts: {len(reports)}; records: {total}.", err=True)


def _tell(report: HostReport) -> None:
    host = printable(report.host)
    for name, found in report.chains:
        click.echo(printable(f"{host}: {_describe(found, report)} ({name})"))
        for note in found.notes:
            click.echo(printable(f"  {note.event_name} at record {note.sequence}: {note.text}"))
    for finding in report.findings:
        click.echo(printable(f"  {host}: {finding.kind}: {finding.text}."))
        click.echo(printable(f"    {finding.hint}"))


def _describe(found: Report, report: HostReport) -> str:
    if found.last is None:
        return "no record"
    word = "intact" if found.is_intact else "NOT intact"
    if not found.checkpoints:
        signed = "no signature was checked"
    else:
        whose = "the key named for it" if report.key_is_named else "the key first seen"
        signed = f"signed up to {found.proven_sequence} by {whose}, {found.key_id}"
    reach = f"{found.records} records up to {found.last.sequence} ({found.last.time[:19]})"
    return f"{word}, {reach}, {signed}"


def _row(report: HostReport) -> dict[str, object]:
    return {
        "host": report.host,
        "sound": report.is_sound,
        "heard": report.heard or None,
        "key_is_named": report.key_is_named,
        "findings": [
            {"kind": one.kind.value, "text": one.text, "hint": one.hint} for one in report.findings
        ],
        "chains": [_chain_row(name, found) for name, found in report.chains],
    }


def _chain_row(name: str, found: Report) -> dict[str, object]:
    last = found.last
    anchor = Anchor(last.sequence, last.hash, last.time, last.host, found.key_id) if last else None
    return {
        "chain": name,
        "intact": found.is_intact,
        "records": found.records,
        "first": found.first._asdict() if found.first else None,
        "last": last._asdict() if last else None,
        "checkpoints": found.checkpoints,
        "unchecked_checkpoints": found.unchecked_checkpoints,
        "proven_sequence": found.proven_sequence,
        "key_id": found.key_id or None,
        "findings_count": found.findings_count,
        "findings": [one.row() for one in found.findings],
        "notes": [one.row() for one in found.notes],
        "anchor": str(anchor) if anchor and found.is_intact else None,
    }
