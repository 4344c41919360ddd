# SPDX-License-Identifier: Apache-2.0
"""The credential report: a row for everybody, in AWS IAM's column style, as CSV or JSON.

Owns columns, words and escaping; streams, so that memory does not grow with the rows. Values are
in AWS's manner: ``true`` and ``false``, ``N/A`` where a column does not apply, ``no_information``
where nothing is known, times as ISO 8601 in UTC. No seed is opened for it.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Final, TextIO

from pam_mfa.census import Person
from pam_mfa.devices import DEVICES_MAX, Bypass, RecoveryCodes, TokenDevice, VirtualDevice
from pam_mfa.lifecycle import DeviceStatus, UserStatus
from pam_mfa.listing import utc
from pam_mfa.store import Standing

Cell = str | int | bool | None  # None: N/A
NO_INFORMATION: Final = "no_information"
_NOT_APPLICABLE: Final = "N/A"
_DEVICE_COLUMNS: Final = (
    "type", "serial_number", "name", "enabled_at", "last_used_at", "drift", "weak",
)  # fmt: skip
COLUMNS: Final = (
    "user", "uid", "account", "login_capable", "mfa_active", "locked_until",
    *(f"device_{n}_{name}" for n in range(1, DEVICES_MAX + 1) for name in _DEVICE_COLUMNS),
    "recovery_codes_left", "bypass_expires_at", "problem",
)  # fmt: skip
# OWASP, "CSV Injection": what a spreadsheet would take for a formula gets an apostrophe. So does
# what begins with one, so that taking one off gives the text back.
_FORMULA: Final = ("=", "+", "-", "@", "'", "\t", "\r")


def make_rows(people: Iterable[Person]) -> Iterator[dict[str, Cell]]:
    """Go through people as rows, which leave out the columns of devices that are not there."""
    for person in people:
        yield _row(person)


def _row(person: Person) -> dict[str, Cell]:
    status, account = person.status, person.account
    places = [one for one in status.devices if not isinstance(one.device, Bypass)]
    is_active = status.standing is Standing.ENROLLED and bool(places)
    row: dict[str, Cell] = {
        "user": status.user,
        "uid": account.uid if account else _unknown(person),
        "account": NO_INFORMATION if person.has_account is None else person.has_account,
        "login_capable": account.is_login_capable if account else _unknown(person),
        "mfa_active": NO_INFORMATION if status.problem else is_active,
        "locked_until": utc(status.locked_until) if status.locked_until else None,
    }
    for number, one in enumerate(places, start=1):
        for name, cell in zip(_DEVICE_COLUMNS, _device_cells(one), strict=True):
            row[f"device_{number}_{name}"] = cell
    row |= _paper_cells(status)
    row["problem"] = status.problem or None
    return row


def _unknown(person: Person) -> Cell:
    """Return what stands in an account's columns where there is none."""
    return NO_INFORMATION if person.has_account is None else None


def _device_cells(one: DeviceStatus) -> tuple[Cell, ...]:
    device = one.device
    drift: Cell = None
    is_weak: Cell = None
    if isinstance(device, VirtualDevice | TokenDevice):
        drift = None if device.parameters.is_event_based else one.drift
        is_weak = one.is_weak
    used_at = utc(one.last_used_at) if one.last_used_at else NO_INFORMATION
    enabled_at = utc(device.enabled_at)
    return (
        device.type, device.serial_number, device.name, enabled_at, used_at, drift, is_weak,
    )  # fmt: skip


def _paper_cells(status: UserStatus) -> dict[str, Cell]:
    unknown: Cell = NO_INFORMATION if status.problem else None
    cells: dict[str, Cell] = {"recovery_codes_left": unknown, "bypass_expires_at": unknown}
    for one in status.devices:
        if isinstance(one.device, RecoveryCodes):
            cells["recovery_codes_left"] = one.codes_left
        elif isinstance(one.device, Bypass) and one.codes_left:
            cells["bypass_expires_at"] = utc(one.device.expires_at)
    return cells


def write_csv(rows: Iterable[dict[str, Cell]], out: TextIO) -> None:
    """Write rows under a line of all columns, as RFC 4180 but for bare line feeds."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = map(row.get, COLUMNS)
        writer.writerow([_NOT_APPLICABLE if one is None else format_cell(one) for one in cells])


def write_json(rows: Iterable[dict[str, Cell]], out: TextIO) -> None:
    """Write rows as a JSON list, an object a line; N/A is null."""
    separator = "[\n"
    for row in rows:
        out.write(separator + json.dumps(row))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def format_cell(cell: Cell) -> str:
    """Return a cell of a CSV file: a text is no formula, and its characters print."""
    if cell is None:
        return _NOT_APPLICABLE
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int):
        return str(cell)  # -1 is a number, not a formula
    guard = "'" if cell.startswith(_FORMULA) else ""
    # Where a comma is decimal, spreadsheets begin a cell behind a semicolon: it may hold none.
    return guard + printable(cell).replace(";", r"\x3b")


def parse_text(cell: str) -> str:
    """Return the text that ``format_cell`` made a cell of, but for what it had to escape."""
    return cell.removeprefix("'")


def printable(text: str) -> str:
    r"""Return a text whose characters print: others as ``\x1b``, for they would drive a terminal.

    A name of a directory service may have any.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
