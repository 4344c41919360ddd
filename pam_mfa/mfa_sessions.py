# SPDX-License-Identifier: Apache-2.0
"""Verifications that are remembered for MFA age: who has which, and how they are ended.

A part of ``lifecycle``, which is the public Python API. Whether one counts for a login, policy and
``mfa_age`` say.
"""

import datetime
from typing import NamedTuple

from pam_mfa.audit import EventName
from pam_mfa.devices import require_user
from pam_mfa.enabling import Enabling
from pam_mfa.mfa_age import Place, Verified
from pam_mfa.store import Change, Claim, Inventory, Known, encode_user


class MfaSession(NamedTuple):
    """One verification that is remembered."""

    user: str
    type: str  # of the device
    serial_number: str
    service: str
    session: str  # the kernel's, as "audit:12" or "leader:345:6789"; "": none of a person's
    source: str  # an address, "console", or "": PAM named neither
    verified_at: datetime.datetime  # UTC
    age: float  # seconds


class MfaSessions(Enabling):
    """What is remembered of the users of one store."""

    def mfa_sessions(self, user: str | None = None) -> list[MfaSession]:
        """Return what is remembered of a user, or of everybody; the oldest first.

        What is older than any rule asks for is there until the next verification tidies up.

        Raises:
            RefusedError: the name cannot be an account's.
            BrokenSystemError: the state cannot be read.
        """
        if user is not None:
            require_user(user)
            found = self.remembered(user)
            names = {encode_user(user): user}
        else:
            found = self._store.read_inventory(lambda inventory: inventory.remembered())
            names = {encode_user(one): one for one in self._files.users()}
        return [self._session(names.get(one.user_key, one.user_key), one) for one in found]

    def remembered(self, user: str) -> tuple[Verified, ...]:
        """Return what is remembered of a user, as logins know it."""
        key = encode_user(user)
        return self._store.read_inventory(lambda inventory: inventory.remembered(key))

    def end_mfa_sessions(self, user: str | None = None) -> int:
        """End what is remembered of a user, or of everybody; return how many verifications.

        Raises:
            RefusedError: the name cannot be an account's.
            BrokenSystemError: nothing was ended, or only the record waits to be written.
        """
        if user is not None:
            require_user(user)
        ended: list[int] = []

        def end(inventory: Inventory) -> None:
            key = encode_user(user) if user is not None else None
            ended.append(inventory.end_sessions(key))

        def judge(known: Known) -> Change:
            del known
            event = self._event(EventName.END_MFA_SESSIONS, user or "")
            whose = "" if user is not None else " of all users"
            detail = f"verifications{whose} forgotten: {ended[-1]}"
            return Change(accepted=True, events=(event._replace(detail=detail),))

        self._store.commit([Claim("", (), judge, end)])
        return ended[-1]

    def _session(self, user: str, one: Verified) -> MfaSession:
        return MfaSession(
            user,
            one.type,
            one.serial_number,
            one.service,
            _session_name(one.place),
            describe_source(one.place.source),
            datetime.datetime.fromtimestamp(one.at, datetime.UTC),
            self._clock() - one.at,
        )


def _session_name(place: Place) -> str:
    return "" if place.session.startswith("outer:") else place.session


def describe_source(source: str) -> str:
    """Return a source as people write it."""
    import ipaddress  # noqa: PLC0415 - only where sources are shown

    version, _, number = source.partition(":")
    if version == "4":
        return str(ipaddress.IPv4Address(int(number, 16)))
    return str(ipaddress.IPv6Address(int(number, 16))) if version == "6" else source
