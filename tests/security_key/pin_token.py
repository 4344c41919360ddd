# SPDX-License-Identifier: Apache-2.0
"""The pinUvAuthToken's state (CTAP 2.1, section 6.5.3); a token does not age here."""

import hmac
import os

from security_key.ctap import Permission
from security_key.pin_protocol import PinProtocol
from security_key.status import Status, StatusError

TOKEN_SIZE = 32


class PinToken:
    """One token for all protocols; a new one makes the old one worthless."""

    def __init__(self) -> None:
        """Begin with a token that nobody has."""
        self.renew(Permission(0))
        self.is_in_use = False

    def renew(self, permissions: Permission, rp_id: str | None = None) -> None:
        """Take a new token for these permissions."""
        self.value = os.urandom(TOKEN_SIZE)
        self.permissions = permissions
        self.rp_id = rp_id
        self.is_in_use = True
        self.is_user_verified = True
        self.is_user_present = False

    def spend(self) -> None:
        """Have it be good for nothing more: one token, one credential or assertion."""
        self.permissions = Permission(0)
        self.is_user_verified = self.is_user_present = False

    def verify(self, protocol: PinProtocol, message: bytes, code: bytes) -> None:
        """Check that the code over a message is made with this token."""
        expected = protocol.authenticate(self.value, message)
        if not self.is_in_use or not hmac.compare_digest(expected, code):
            raise StatusError(Status.PIN_AUTH_INVALID)

    def require(self, permission: Permission, rp_id: str) -> None:
        """Check that it is good for this, at this relying party; bind it if it is not yet bound."""
        is_allowed = permission in self.permissions and self.is_user_verified
        if not is_allowed or self.rp_id not in (None, rp_id):
            raise StatusError(Status.PIN_AUTH_INVALID)
        self.rp_id = rp_id
