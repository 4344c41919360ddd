# SPDX-License-Identifier: Apache-2.0
"""Users' devices as rows: one document a user, with its version and the fleet's mark of it.

Public keys stand in a document unsealed. So each document has a keyed hash over fleet, user,
version and text: whoever may write to the database, but does not have the fleet's key, adds no key
of their own, and gives nobody's devices to somebody else. What they can do is take rows away, or
bring older ones back.
"""

import hmac
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from pam_mfa.devices import Device, format_devices, parse_devices
from pam_mfa.document import parse_document
from pam_mfa.errors import DocumentError, UnsafeFileError
from pam_mfa.store.documents import Entry, Found
from pam_mfa.store.enrollment import DeviceState
from pam_mfa.store.postgresql.links import Question, Row
from pam_mfa.store.unsealing import Volume
from pam_mfa.store.user_keys import decode_user, encode_user, is_whole

_READ = "SELECT * FROM pam_mfa.read_document(%s, %s::text[])"
_NAME = "SELECT document FROM pam_mfa.device_document WHERE user_key = %s"
_VERSION = "SELECT version FROM pam_mfa.device_document WHERE user_key = %s"
_VERSIONS = "SELECT nextval('pam_mfa.document_version') FROM generate_series(1, %s)"
_WRITE = """INSERT INTO pam_mfa.device_document(user_key, version, document, mac,
    serial_numbers) VALUES (%s, %s, %s, %s, %s::text[]) ON CONFLICT (fleet, user_key) DO UPDATE SET
    version = excluded.version, document = excluded.document, mac = excluded.mac,
    serial_numbers = excluded.serial_numbers"""
_DELETE = "DELETE FROM pam_mfa.device_document WHERE user_key = %s"
_READ_ALL = "SELECT user_key, version, document, mac FROM pam_mfa.device_document"
_KEYS = "SELECT user_key FROM pam_mfa.device_document"


class Desk(Protocol):
    """What asks the database, in the transaction that is under way or one of its own."""

    def ask(self, *questions: Question) -> list[list[Row]]:
        """Return each question's rows."""

    def mark(self, data: bytes) -> str:
        """Return the fleet's keyed hash of a document and what it is bound to."""

    def lock_documents(self) -> AbstractContextManager[None]:
        """Keep other writers of the fleet out."""

    @property
    def place(self) -> str:
        """The database, for messages."""


class FleetDocuments:
    """The devices of a fleet's users."""

    def __init__(self, desk: Desk) -> None:
        """Take what asks."""
        self._desk = desk

    def version(self, user: str) -> tuple[int, ...]:
        """Return what is another after each change of a user's devices."""
        ((*rows,),) = self._desk.ask(Question(_VERSION, (encode_user(user),)))
        return (int(rows[0][0]),) if rows else ()

    def read(self, user: str) -> tuple[Device, ...]:
        """Return a user's devices; none where the user is not enrolled.

        Raises:
            UnsafeFileError: somebody has written them who does not have the fleet's key.
            DocumentError: their content is wrong.
        """
        return self.read_versioned(user).devices

    def read_versioned(self, user: str, others: Sequence[str] = ()) -> Volume:
        """Return a user's devices, and what became of them and of others, by one question.

        Raises:
            UnsafeFileError: somebody has written them who does not have the fleet's key.
            DocumentError: their content is wrong.
        """
        (rows,) = self._desk.ask(Question(_READ, (encode_user(user), list(others))))
        (_, version, _, _, (document, mac)), *known = rows
        states = {row[0]: DeviceState(*row[1:4]) for row in known}
        if version is None:
            return Volume((), (), states)
        devices = self._parse(user, version, document, mac)
        return Volume(devices, (int(version),), states)

    def _parse(self, user: str, version: int, document: str, mac: str) -> tuple[Device, ...]:
        if not hmac.compare_digest(self._mark(user, version, document), mac):
            raise UnsafeFileError(
                f"the devices of {user} in {self._desk.place} were not written by this fleet",
                hint="Somebody has changed the row, or another fleet's was copied. See who may "
                "write to the database, deactivate the user's devices and enable them again: "
                f"pam-mfa deactivate {user} --all",
            )
        source = f"{user}'s devices in {self._desk.place}"
        return parse_devices(document.encode("utf-8"), source, user)

    def read_all(self) -> Iterator[Found]:
        """Go through everybody's devices, by name, which are one question."""
        ((*rows,),) = self._desk.ask(Question(_READ_ALL))
        for key, version, document, mac in sorted(rows):
            entry = self._entry(str(key))
            try:
                if entry.problem:
                    yield Found(entry, ())
                else:
                    yield Found(entry, self._parse(entry.user, version, document, mac))
            except (UnsafeFileError, DocumentError) as error:
                yield Found(Entry(entry.user, str(error)), ())

    def write(self, user: str, devices: tuple[Device, ...]) -> None:
        """Replace a user's devices; call it under ``lock``."""
        self.write_all({user: devices})

    def write_all(self, owners: Mapping[str, tuple[Device, ...]]) -> None:
        """Replace the devices of many users; call it under ``lock``."""
        if not owners:
            return
        ((*versions,),) = self._desk.ask(Question(_VERSIONS, (len(owners),)))
        self._desk.ask(*self._changes(owners, [int(row[0]) for row in versions]))

    def _changes(
        self, owners: Mapping[str, tuple[Device, ...]], versions: Sequence[int]
    ) -> Iterator[Question]:
        for (user, devices), version in zip(owners.items(), versions, strict=True):
            key = encode_user(user)
            if not devices:
                yield Question(_DELETE, (key,))
                continue
            document = format_devices(user, devices).decode("utf-8")
            mac = self._mark(user, version, document)
            serial_numbers = [device.serial_number for device in devices]
            yield Question(_WRITE, (key, version, document, mac, serial_numbers))

    def _mark(self, user: str, version: int, document: str) -> str:
        bound = (encode_user(user), str(version), document)
        return self._desk.mark("\0".join(bound).encode("utf-8"))

    def remove_drafts(self) -> None:
        """Do nothing: a transaction that was killed leaves none."""

    def users(self) -> Iterator[str]:
        """Go through the users that have devices, by name.

        Raises:
            UnsafeFileError: it cannot be told whose a row is.
        """
        for entry in self.entries():
            if entry.problem:
                raise UnsafeFileError(
                    entry.problem, hint="The others are shown all the same by: pam-mfa status"
                )
            yield entry.user

    def entries(self) -> list[Entry]:
        """Return whose rows there are, by name, and those that are nobody's."""
        ((*rows,),) = self._desk.ask(Question(_KEYS))
        return sorted(self._entry(str(row[0])) for row in rows)

    def _entry(self, key: str) -> Entry:
        user, problem = "", f"the row '{key}' in {self._desk.place} has a key that no user has"
        try:
            user = decode_user(key) if is_whole(key) else self._name_inside(key)
        except (DocumentError, UnicodeError):
            return Entry(key, problem)
        return Entry(user, "") if encode_user(user) == key else Entry(key, problem)

    def _name_inside(self, key: str) -> str:
        ((*rows,),) = self._desk.ask(Question(_NAME, (key,)))
        document = rows[0][0].encode("utf-8") if rows else b""
        return parse_document(document, key).require("user", str)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other writers out; what is done meanwhile is one transaction."""
        return self._desk.lock_documents()
