# SPDX-License-Identifier: Apache-2.0
"""Packets to and from an opened key, with an end to every wait.

The connection under fido2's ``CtapHidDevice``, which puts the packets together (CTAP 2.1, section
11.2). By itself that waits for ever for a silent key, follows keepalives for ever, tries a busy
key for ever, and stops at packets that are meant for another program; what is here ends each of
these. One thread at a time uses a connection.
"""

import os
import select
import time
from typing import NamedTuple

from fido2.hid import CTAPHID, TYPE_INIT
from fido2.hid.base import CtapHidConnection

from pam_mfa.errors import KeyBusyError, KeyFaultError, KeySilentError, SecurityKeyError
from pam_mfa.hardware.node_opening import GONE, describe, gone_error
from pam_mfa.hardware.nodes import AttachedKey

SILENCE_MAX = 3.0  # seconds without a packet; a key that works sends a keepalive each 0.1 s
GRACE = 1.0  # seconds that a canceled key has for its last answer
MESSAGE_MAX = 7609  # bytes; CTAP 2.1, section 11.2.4: 64 - 7 + 128 * (64 - 5)
_CHANNEL, _COMMAND, _LENGTH, _NONCE = slice(0, 4), 4, slice(5, 7), slice(7, 15)
_ERROR_CODE, _CHANNEL_BUSY = 7, 0x06


class _Request(NamedTuple):
    """What was sent last."""

    channel: bytes
    command: int
    nonce: bytes  # of an INIT, which every program sends on the same channel


class KeyConnection(CtapHidConnection):
    """An opened node; closing it releases the key, and ends what the key is still doing."""

    def __init__(self, key: AttachedKey, descriptor: int) -> None:
        """Take a descriptor over that ``open_node`` gave."""
        self.key = key
        self.expired = False  # whether the key was told to end because its time was over
        self._descriptor = descriptor
        self._deadline = time.monotonic() + SILENCE_MAX
        self._request = _Request(b"", 0, b"")
        self._pending = False  # whether the key has a request that it did not answer
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def allow(self, seconds: float) -> None:
        """Give the next exchange its time, from now."""
        self._deadline = time.monotonic() + seconds
        self.expired = False

    def close(self) -> None:
        """Release the key; one that waits for a touch is told to stop. May be called again."""
        if self._descriptor < 0:
            return
        try:
            if self._pending:
                self._send_cancel()
        except SecurityKeyError:
            pass  # pulled out: there is nothing to end
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def write_packet(self, data: bytes) -> None:
        """Send one packet.

        Raises:
            KeyGoneError: the key was pulled out.
            KeyFaultError: it takes no packets.
        """
        command = data[_COMMAND] & ~TYPE_INIT
        if not data[_COMMAND] & TYPE_INIT:
            pass
        elif command == CTAPHID.CANCEL:
            # From here on the key owes one last answer, soon.
            self._deadline = min(self._deadline, time.monotonic() + GRACE)
        else:
            nonce = data[_NONCE] if command == CTAPHID.INIT else b""
            self._request = _Request(data[_CHANNEL], command, nonce)
            self._pending = True
        self._write(data)

    def read_packet(self) -> bytes:
        """Return the next packet that belongs to the request which was sent last.

        Raises:
            KeyGoneError: the key was pulled out.
            KeySilentError: nothing came in time, after a cancel either.
            KeyBusyError: the key is serving another program.
            KeyFaultError: the packet is one that no key may send.
        """
        silent_at = time.monotonic() + SILENCE_MAX  # another program's packets do not move it
        while True:
            self._wait(silent_at)
            packet = self._read()
            if packet and self._is_ours(packet):
                self._judge(packet)
                return packet

    def _wait(self, silent_at: float) -> None:
        """Wait until a packet is there; at the deadline tell the key to end, then wait a little."""
        while True:
            now = time.monotonic()
            if now >= self._deadline and self._pending and not self.expired:
                self.expired = True
                self._send_cancel()
                self._deadline = silent_at = now + GRACE
            end = min(self._deadline, silent_at)
            if now >= end:
                raise KeySilentError(
                    f"{describe(self.key)} does not answer",
                    hint="Pull it out and attach it again.",
                )
            if self._poll.poll((end - now) * 1000 + 1):
                return

    def _read(self) -> bytes:
        size = self.key.reports.input_size
        try:
            packet = os.read(self._descriptor, size + 1)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise self._translate(error) from error
        if not packet:
            raise gone_error(self.key)
        if len(packet) != size:
            raise self._fault(f"sent {len(packet)} bytes where {size} make a packet")
        return packet

    def _is_ours(self, packet: bytes) -> bool:
        """Whether a packet answers our request: every program on the node gets every packet."""
        if packet[_CHANNEL] != self._request.channel:
            return False
        if self._request.nonce and packet[_COMMAND] == TYPE_INIT | CTAPHID.INIT:
            return packet[_NONCE] == self._request.nonce
        return True

    def _judge(self, packet: bytes) -> None:
        command = packet[_COMMAND]
        if not command & TYPE_INIT or command == TYPE_INIT | CTAPHID.KEEPALIVE:
            return
        self._pending = False
        if int.from_bytes(packet[_LENGTH], "big") > MESSAGE_MAX:
            raise self._fault("announced an answer longer than CTAPHID allows")
        if command == TYPE_INIT | CTAPHID.ERROR and packet[_ERROR_CODE] == _CHANNEL_BUSY:
            raise KeyBusyError(
                f"{describe(self.key)} is busy with another program",
                hint="End that program, or wait for it.",
            )

    def _send_cancel(self) -> None:
        packet = self._request.channel + bytes((TYPE_INIT | CTAPHID.CANCEL,))
        self._write(packet.ljust(self.key.reports.output_size, b"\0"))

    def _write(self, packet: bytes) -> None:
        report = b"\0" + packet  # hidraw: 0 is the number of the one report that has no number
        try:
            written = os.write(self._descriptor, report)
        except OSError as error:
            raise self._translate(error) from error
        if written != len(report):
            raise self._fault("takes no packets")

    def _translate(self, error: OSError) -> SecurityKeyError:
        self._pending = False
        if error.errno in GONE:
            return gone_error(self.key)
        return self._fault(f"cannot be used: {error.strerror}")

    def _fault(self, what: str) -> KeyFaultError:
        return KeyFaultError(
            f"{describe(self.key)} {what}", hint="Attach it again; if that stays, it is broken."
        )
