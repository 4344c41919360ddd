# SPDX-License-Identifier: Apache-2.0
"""The mark by which a host knows its own verifications again, when the database shows them.

A verification that is remembered stands in for a proof, and any host's role may write such rows. So
each has a keyed hash over all that it says, of the fleet's key and of a secret that never leaves
this host: neither the database's owner, nor the root of another host, can have one counted here.
"""

import hmac
import os
from collections.abc import Callable

from pam_mfa.errors import SealError, UnsafeFileError
from pam_mfa.mfa_age import Place, Verified
from pam_mfa.store.files import read_file
from pam_mfa.store.layout import Layout
from pam_mfa.store.seal import SIGNING_KEY, SIGNING_KEY_SIZE_MAX, Sealer

_TEXT_MAX = 256  # characters of what a caller named
_BETWEEN = "."  # of a device's hash and the mark, in one column; neither has it
HOST: str = os.uname().nodename[:_TEXT_MAX]


class SessionMarks:
    """Marks what is to be remembered here, and tells what was marked so."""

    def __init__(self, layout: Layout, find_sealer: Callable[[], Sealer]) -> None:
        """Take the host's root, and what finds the fleet's keys."""
        self._layout = layout
        self._find_sealer = find_sealer

    def add(self, one: Verified) -> Verified:
        """Return a verification as the database is to have it.

        Raises:
            BrokenSystemError: this host has no secret yet, and none can be made.
        """
        user_key, kind, serial_number, device_hash, service, tty = (
            text[:_TEXT_MAX] for text in one[:6]
        )
        place = Place(*(text[:_TEXT_MAX] for text in one.place))
        cut = Verified(user_key, kind, serial_number, device_hash, service, tty, place, one.at)
        sealer = self._find_sealer()
        if not self._layout.signing_key.exists():
            from pam_mfa.store.signing import load_signing_key  # noqa: PLC0415 - start-up cost

            load_signing_key(self._layout, sealer)
        mark = _mark(sealer, self._find_secret(sealer), cut)
        return cut._replace(device_hash=f"{cut.device_hash}{_BETWEEN}{mark}")

    def find_own(self, row: Verified) -> Verified | None:
        """Return a verification as it was; None where this host has not written it."""
        sealer, one = self._find_sealer(), without_mark(row)
        secret = self._find_secret(sealer)
        mark = row.device_hash.partition(_BETWEEN)[2]
        is_own = bool(secret) and hmac.compare_digest(_mark(sealer, secret, one), mark)
        return one if is_own else None

    def _find_secret(self, sealer: Sealer) -> str:
        """Return what no other host has, of the key that signs this one's log.

        "": there is none that opens, and what is marked without it is nobody's.
        """
        path = self._layout.signing_key
        owners, limit = {os.geteuid()}, SIGNING_KEY_SIZE_MAX
        try:
            text = read_file(path, owners=owners, forbidden=0o077, size_max=limit)
            return sealer.open(text.decode("ascii").strip(), *SIGNING_KEY).reveal().hex()
        except (FileNotFoundError, UnsafeFileError, SealError, UnicodeDecodeError):
            return ""


def _mark(sealer: Sealer, secret: str, one: Verified) -> str:
    bound = ("session", HOST, *one[:6], *one.place, repr(float(one.at)))
    data = "\0".join((secret, *bound))
    return sealer.document_mark(data.encode("utf-8", "surrogateescape"))


def without_mark(row: Verified) -> Verified:
    """Return a row as a verification, whoever has written it: to be listed, never to be counted."""
    return row._replace(device_hash=row.device_hash.partition(_BETWEEN)[0])
