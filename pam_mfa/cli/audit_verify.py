# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa audit verify``: is the log's chain whole, and what does that prove."""

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import click

from pam_mfa.audit_reading import (
    Anchor,
    ChainCheck,
    PublicKeys,
    Report,
    Wanted,
    open_logs,
    parse_anchor,
    read_public_key,
)
from pam_mfa.audit_reading.findings import FINDINGS_MAX
from pam_mfa.audit_reading.journal import send_anchor
from pam_mfa.audit_reading.kept_head import NAME, KeptHead, find_kept_head
from pam_mfa.cli.audit_fleet import verify_fleet
from pam_mfa.cli.session import Session, json_option, pass_session
from pam_mfa.errors import BrokenSystemError, PamMfaError, RefusedError
from pam_mfa.report import printable
from pam_mfa.store.layout import drop_privileges
from pam_mfa.store.opening import read_log_end

_TEXT_MAX: Final = 1 << 16  # characters of a file that an anchor is looked for in
_LIMITS: Final = (
    "What this does not prove: who is root here, or the user pam-mfa, can read the key that signs, "
    "and so make another log that is as sound, or end this one early. Keep anchors on another "
    "machine (--anchor, --journal), and compare them with --against."
)


class _Options(NamedTuple):
    """The command line."""

    files: tuple[Path, ...]
    public_keys: tuple[Path, ...]
    start: str | None
    against: tuple[str, ...]


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--public-key", "public_keys", metavar="FILE", multiple=True, type=click.Path(path_type=Path),
    help="Trust this Ed25519 key, and no other; may be given again.",
)  # fmt: skip
@click.option(
    "--from", "start", metavar="CHECKPOINT",
    help="Begin at this record: an anchor, or a sequence.",
)  # fmt: skip
@click.option(
    "--against", metavar="ANCHOR", multiple=True,
    help="Compare with an anchor: the line, a file with it, or - for standard input.",
)  # fmt: skip
@click.option("--anchor", "is_anchor", is_flag=True, help="Print nothing but the line to keep.")
@click.option("--journal", "to_journal", is_flag=True, help="Send that line to the journal, too.")
@click.option(
    "--fleet", metavar="TARGET",
    help="Verify every host's log that was shipped to a directory, or to the database, and find "
    "silent hosts.",
)  # fmt: skip
@click.option(
    "--keys", metavar="DIRECTORY", type=click.Path(path_type=Path),
    help="With --fleet: trust HOST.pub of each host there; else the key first seen.",
)  # fmt: skip
@click.option(
    "--silent-after", metavar="TIME", default="2h", show_default=True,
    help="With --fleet: a host that was not heard of for so long is a finding.",
)  # fmt: skip
@json_option
@pass_session
def verify(  # noqa: PLR0913 - options
    session: Session,
    *,
    is_anchor: bool,
    to_journal: bool,
    as_json: bool,
    files: tuple[Path, ...],
    public_keys: tuple[Path, ...],
    start: str | None,
    against: tuple[str, ...],
    fleet: str | None,
    keys: Path | None,
    silent_after: str,
) -> None:
    """Verify that no record of the log was changed, removed, put in or moved.

    Exit status: 0 intact, 1 not, 3 the log cannot be read.
    """
    if fleet is not None:
        if files or public_keys or start or against or is_anchor or to_journal:
            raise click.UsageError("--fleet goes with --keys, --silent-after and --json only.")
        verify_fleet(session.layout, fleet, keys, silent_after, as_json=as_json)
        return
    if keys is not None:
        raise click.UsageError("--keys goes with --fleet; for one log: --public-key.")
    options = _Options(files, public_keys, start, against)
    trusted = _find_keys(session, options)
    wanted = Wanted(
        trusted, [(_name(text), _read_anchor(text)) for text in against], _read_start(start)
    )
    kept, why_not = (None, "") if files else _read_kept_head(session)
    if kept is not None:
        anchors = (*wanted.anchors, (NAME, kept.anchor))
        wanted = wanted._replace(anchors=anchors, ends=kept.ends)
    report = _check(session, options, wanted)
    anchor = _make_anchor(report)
    if as_json:
        click.echo(json.dumps(_row(report, trusted, anchor), indent=2))
    elif is_anchor and report.is_intact:
        click.echo(str(anchor or ""), nl=anchor is not None)
    else:
        _tell(report, trusted, why_not, is_error=is_anchor)
    _require_intact(report)
    if to_journal and anchor is not None:
        send_anchor(anchor)


def _read_kept_head(session: Session) -> tuple[KeptHead | None, str]:
    """Return what the state has as the log's end, or why it could not be asked.

    Whoever is root is the user pam-mfa from here on: what the log holds is not read as root.
    """
    layout = session.layout
    if os.geteuid() == 0 and not layout.state.exists():
        return None, "there is no state"
    try:
        drop_privileges()
        if not layout.state.exists():
            return None, "only root may ask it"
        return find_kept_head(*read_log_end(layout)), ""
    except PermissionError:
        return None, "only root may ask it"
    except (BrokenSystemError, OSError) as error:
        return None, str(error)


def _check(session: Session, options: _Options, wanted: Wanted) -> Report:
    try:
        with open_logs(session.layout.audit_log, options.files) as logs:
            check = ChainCheck(wanted)
            for log in logs:
                check.check(log)
            return check.finish()
    except RefusedError as error:
        raise BrokenSystemError(str(error), hint=error.hint) from error


def _find_keys(session: Session, options: _Options) -> PublicKeys:
    """Return the keys that are named, or the host's own; none where that cannot be read."""
    if options.public_keys:
        keys = []
        for path in options.public_keys:
            try:
                keys.append(read_public_key(path))
            except FileNotFoundError as error:
                raise BrokenSystemError(f"there is no file {path}") from error
            except RefusedError as error:
                raise BrokenSystemError(str(error), hint=error.hint) from error
        return PublicKeys(keys)
    if not options.files:
        with contextlib.suppress(FileNotFoundError, PamMfaError):
            return PublicKeys([read_public_key(session.layout.library / "audit.pub")])
    return PublicKeys()


def _read_start(text: str | None) -> Anchor | None:
    if text is None:
        return None
    if text.isascii() and text.isdigit() and 0 < int(text[:19]) < 10**18:
        return Anchor(int(text), "")
    return _read_anchor(text)


def _read_anchor(text: str) -> Anchor:
    """Return the anchor of a line, of a file, or of standard input."""
    with contextlib.suppress(RefusedError):
        return parse_anchor(text)
    if text == "-":
        return parse_anchor(sys.stdin.read(_TEXT_MAX))
    try:
        with Path(text).open(encoding="ascii", errors="replace") as file:
            return parse_anchor(file.read(_TEXT_MAX))
    except (OSError, ValueError) as error:
        raise RefusedError(
            f"'{printable(text[:64])}' is neither an anchor nor a file with one",
            hint="An anchor is what 'pam-mfa audit verify --anchor' prints.",
        ) from error


def _name(text: str) -> str:
    return "the anchor" if text == "-" or "," in text else f"the anchor of {printable(text[:64])}"


def _make_anchor(report: Report) -> Anchor | None:
    last = report.last
    if last is None or not report.is_intact:
        return None
    return Anchor(last.sequence, last.hash, last.time, last.host, report.key_id)


def _require_intact(report: Report) -> None:
    if report.is_unreadable:
        raise BrokenSystemError("the audit log cannot be read to its end")
    if not report.is_intact:
        count = report.findings_count
        raise RefusedError(
            f"the audit log is not intact: {count} finding{'s' if count > 1 else ''}",
            hint="Keep the files as they are: copy them before anything else is done.",
        )


def _row(report: Report, keys: PublicKeys, anchor: Anchor | None) -> dict[str, object]:
    return {
        "intact": report.is_intact,
        "lines": report.lines,
        "records": report.records,
        "first": report.first._asdict() if report.first else None,
        "last": report.last._asdict() if report.last else None,
        "checkpoints": report.checkpoints,
        "unchecked_checkpoints": report.unchecked_checkpoints,
        "proven_sequence": report.proven_sequence,
        "keys": list(keys.names),
        "key_is_the_logs_own": keys.is_own,
        "findings_count": report.findings_count,
        "findings": [finding.row() for finding in report.findings],
        "notes": [note.row() for note in report.notes],
        "anchor": str(anchor) if anchor else None,
    }


def _tell(report: Report, keys: PublicKeys, why_not: str, *, is_error: bool) -> None:
    lines = [
        *(f"{one.place}: {one.kind}: {one.text}" for one in report.findings),
        *(f"{one.place}: {one.event_name}: {one.text}" for one in report.notes),
        *_summary(report),
        *_signatures(report, keys),
        *([f"The end was not compared with the state: {why_not}."] if why_not else []),
        _LIMITS,
    ]
    if report.findings_count > FINDINGS_MAX:
        lines.insert(0, f"{report.findings_count} findings; the first {FINDINGS_MAX}:")
    for line in lines:
        click.echo(printable(line), err=is_error)


def _summary(report: Report) -> Sequence[str]:
    first, last = report.first, report.last
    if first is None or last is None:
        return ["There is no record."]
    word = "Intact" if report.is_intact else "NOT intact"
    reach = f"from {first.sequence} ({first.time}) to {last.sequence} ({last.time})"
    lines = [f"{word}: {report.records} records, {reach}."]
    if first.sequence > 1:
        lines.append(f"Records before {first.sequence} are not here; nothing is said of them.")
    return lines


def _signatures(report: Report, keys: PublicKeys) -> Sequence[str]:
    last = report.last.sequence if report.last else 0
    if not report.checkpoints:
        why = "no key was at hand" if report.unchecked_checkpoints else "there is none"
        return [f"No signature was checked: {why}. Whoever may write the log can rewrite it all."]
    lines = [f"Signed by the key {report.key_id} up to record {report.proven_sequence}."]
    if keys.is_own:
        lines.append("The key is the log's own word: give --public-key with a copy kept elsewhere.")
    if report.proven_sequence < last:
        first = report.proven_sequence + 1
        which = (
            f"Record {last} joins and is"
            if first == last
            else f"Records {first} to {last} join and are"
        )
        lines.append(f"{which} not signed yet, and can be rewritten without the key.")
    return lines
