# SPDX-License-Identifier: Apache-2.0
"""An attached key that is open: fido2's ``CtapHidDevice``, with errors that have words.

``Ctap2(key)`` and ``Ctap1(key)`` of fido2 work on it. What the key answers by the protocol stays
fido2's ``CtapError``; all that goes wrong below that is a ``SecurityKeyError``, after which the
key is to be closed. Calls block; each ends, whatever the key does, and so do all of them together
where ``give_up_at`` is set. The ``event`` of a call, or ``canceled`` where it has none, set by
another thread, cancels it at the next keepalive, within 0.1 s.
"""

import struct
import time
from collections.abc import Callable
from threading import Event

from fido2.ctap import STATUS, CtapError
from fido2.hid import CTAPHID, ConnectionFailure, CtapHidDevice
from fido2.hid.base import HidDescriptor

from pam_mfa.errors import KeyBusyError, KeyFaultError, KeySilentError
from pam_mfa.hardware.answers import find_wrong_field
from pam_mfa.hardware.connection import SILENCE_MAX, KeyConnection
from pam_mfa.hardware.node_opening import describe, open_node
from pam_mfa.hardware.nodes import AttachedKey

CALL_MAX = 40.0  # seconds; a key itself gives up after 30 (CTAP 2.1, section 6.2.2, user action)
BUSY_MAX = 2.0  # seconds that a call waits for another program's call to end
RETRY_INTERVAL = 0.1  # seconds
_CANCELED = bytes((CtapError.ERR.KEEPALIVE_CANCEL,))


class SecurityKey(CtapHidDevice):
    """An open key; a context manager that releases it."""

    def __init__(self, attached: AttachedKey, connection: KeyConnection) -> None:
        """Get a channel of our own from the key."""
        self.attached = attached
        self.call_max = SILENCE_MAX  # seconds; the caller may set it before each call
        # On the monotonic clock: a key that answers each of many calls late must not keep its
        # owner from a code.
        self.give_up_at: float | None = None
        self.canceled = Event()  # for calls that are given no event
        self._key_connection = connection
        descriptor = HidDescriptor(
            path=attached.path,
            vid=attached.vendor_id,
            pid=attached.product_id,
            report_size_in=attached.reports.input_size,
            report_size_out=attached.reports.output_size,
            product_name=attached.name or None,
            serial_number=attached.serial_number or None,
        )
        super().__init__(descriptor, connection)
        self.call_max = CALL_MAX

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        """Send a command and return its answer; see ``CtapDevice.call``.

        Raises:
            CtapError: the key refused; ``USER_ACTION_TIMEOUT`` also when ``call_max`` was over.
            SecurityKeyError: the key is gone, busy, silent or faulty.
        """
        event = event or self.canceled
        give_up_at = time.monotonic() + BUSY_MAX
        while True:
            self._key_connection.allow(self._require_time())
            try:
                answer = super().call(cmd, data, event, on_keepalive)
            except KeyBusyError:
                if time.monotonic() >= give_up_at or event.wait(RETRY_INTERVAL):
                    raise
                continue
            except (ConnectionFailure, struct.error) as error:
                raise KeyFaultError(
                    f"{describe(self.attached)} broke the CTAPHID protocol: {error}",
                    hint="Attach it again; if that stays, it is broken.",
                ) from error
            if self._key_connection.expired and answer == _CANCELED:
                raise CtapError(CtapError.ERR.USER_ACTION_TIMEOUT)
            self._require_types(cmd, data, answer)
            return answer

    def _require_time(self) -> float:
        if self.give_up_at is None:
            return self.call_max
        left = self.give_up_at - time.monotonic()
        if left <= 0:
            raise KeySilentError(
                f"{describe(self.attached)} does not answer in time",
                hint="Pull it out and attach it again.",
            )
        return left

    def _require_types(self, cmd: int, data: bytes, answer: bytes) -> None:
        wrong = find_wrong_field(data[0], answer) if cmd == CTAPHID.CBOR else None
        if wrong is not None:
            raise KeyFaultError(
                f"{describe(self.attached)} sent a wrong type of value in field {wrong}",
                hint="Attach it again; if that stays, it is broken.",
            )


def open_key(attached: AttachedKey) -> SecurityKey:
    """Open an attached key.

    Raises:
        KeyAccessError: this user may not open it.
        UnsafeNodeError: something else stands at its path.
        KeyGoneError: it is no longer attached.
        KeyBusyError: another program is using it.
        KeySilentError, KeyFaultError: it does not answer, or answers garbage.
    """
    connection = KeyConnection(attached, open_node(attached))
    try:
        return SecurityKey(attached, connection)
    except CtapError as error:
        connection.close()
        raise KeyFaultError(f"{describe(attached)} gives no channel: {error}") from error
    except BaseException:
        connection.close()
        raise


def open_when_free(
    attached: AttachedKey,
    patience: float,
    on_busy: Callable[[], None],
    canceled: Event | None = None,
) -> SecurityKey:
    """Open a key, waiting for another program to release it.

    Args:
        attached: the key.
        patience: seconds to wait at most.
        on_busy: called once, when it turns out that there is something to wait for.
        canceled: set by another thread, it ends the wait.

    Raises:
        KeyBusyError: it was not released in time, or the wait was canceled.
        SecurityKeyError: as ``open_key``.
    """
    canceled = canceled or Event()
    give_up_at = time.monotonic() + patience
    told = False
    while True:
        try:
            opened = open_key(attached)
        except KeyBusyError:
            if time.monotonic() >= give_up_at:
                raise
            if not told:
                on_busy()
                told = True
            if canceled.wait(RETRY_INTERVAL):
                raise
        else:
            opened.canceled = canceled
            return opened
