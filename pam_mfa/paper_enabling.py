# SPDX-License-Identifier: Apache-2.0
"""Codes on paper for users: recovery codes, and the bypass code of an administrator.

A part of ``lifecycle``, which is the public Python API. Owns how a set of codes comes to its user
and its record in the audit log; only keyed hashes are kept.
"""

import datetime
import os

from pam_mfa.audit import EventName
from pam_mfa.devices import Bypass, RecoveryCodes, require_user, serial_number_of
from pam_mfa.enabling import Enabling, free_name, require_room, require_unchanged
from pam_mfa.errors import RefusedError
from pam_mfa.factors import paper

BYPASS_LONGEST = 7 * 86400.0  # seconds


class PaperEnabling(Enabling):
    """How codes on paper come to the users of one store."""

    def enable_recovery(self, user: str, *, beside: frozenset[str] | None = None) -> list[str]:
        """Make a new set of recovery codes in the place of an old one, and return them once.

        Raises:
            RefusedError: the user has eight devices.
            DevicesChangedError: the user's devices are not those of ``beside``.
            BrokenSystemError: the set could not be stored; the old one stands.
        """
        require_user(user)
        codes = [paper.make_code(os.urandom(paper.CODE_BYTES)) for _ in range(paper.SET_SIZE)]
        now = self._now()
        serial_number = serial_number_of("recovery", user, now.strftime("%Y%m%dT%H%M%SZ"))
        serial_number += f"-{os.urandom(2).hex()}"
        hashes = self._hash_codes(codes, user, serial_number)
        made = RecoveryCodes(serial_number, "recovery", now, hashes)
        self._store.require_log()  # nothing is done that could not be recorded
        with self._files.lock():
            devices = self._files.read(user)
            require_unchanged(user, beside, devices)
            others = tuple(one for one in devices if not isinstance(one, RecoveryCodes))
            require_room(user, made.name, others)
            self._replace(EventName.ENABLE_MFA_DEVICE, user, (devices, (*others, made)), made)
        return codes

    def issue_bypass(self, user: str, seconds: float) -> str:
        """Return a code that lets a user in once, within so many seconds; it ends an older one.

        Raises:
            RefusedError: the time is not between a minute and a week.
        """
        require_user(user)
        if not 60 <= seconds <= BYPASS_LONGEST:  # noqa: PLR2004 - a minute
            raise RefusedError("a bypass lasts from one minute to seven days", hint="Try --for 1h")
        made, now = paper.make_code(os.urandom(paper.CODE_BYTES)), self._now()
        serial_number = serial_number_of("bypass", user, os.urandom(4).hex())
        expires_at = now + datetime.timedelta(seconds=seconds)
        hashes = self._hash_codes([made], user, serial_number)
        self._store.require_log()  # nothing is done that could not be recorded
        with self._files.lock():
            devices = self._files.read(user)
            others = tuple(one for one in devices if not isinstance(one, Bypass))
            # Two of one name would make the file unreadable, and the user may have taken it.
            name = free_name("bypass", others)
            bypass = Bypass(serial_number, name, now, expires_at, hashes)
            self._replace(EventName.ISSUE_BYPASS, user, (devices, (*others, bypass)), bypass)
        return made

    def _hash_codes(self, codes: list[str], user: str, serial_number: str) -> tuple[str, ...]:
        plain = [paper.parse_answer(one) for one in codes]
        return tuple(self._store.code_hash(one, user, serial_number) for one in plain)
