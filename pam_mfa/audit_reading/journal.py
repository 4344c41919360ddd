# SPDX-License-Identifier: Apache-2.0
"""One message for systemd's journal, by its native protocol (systemd's JOURNAL_NATIVE_PROTOCOL)."""

import socket
from typing import Final

from pam_mfa.audit_reading.anchors import Anchor
from pam_mfa.errors import BrokenSystemError

SOCKET: Final = "/run/systemd/journal/socket"
_PATIENCE: Final = 5.0  # seconds
_PRIORITY: Final = 5  # LOG_NOTICE


def send_anchor(anchor: Anchor, address: str = SOCKET) -> None:
    """Put an anchor into the journal, from where it goes to wherever the journal is sent.

    Raises:
        BrokenSystemError: there is no journal, or it does not take it.
    """
    fields = {
        "MESSAGE": str(anchor),
        "PRIORITY": str(_PRIORITY),
        "SYSLOG_IDENTIFIER": "pam-mfa",
        "PAM_MFA_EVENT_NAME": "Anchor",
        "PAM_MFA_SEQUENCE": str(anchor.sequence),
    }
    message = "".join(f"{name}={value}\n" for name, value in fields.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(address)
            connection.send(message.encode("ascii"))
    except OSError as error:
        raise BrokenSystemError(
            f"the anchor cannot be sent to the journal: {error.strerror or error}",
            hint="Without systemd's journal, keep the line that --anchor prints.",
        ) from error
