# SPDX-License-Identifier: Apache-2.0
"""The key as python-fido2 sees one: a CtapDevice of its own class, without a kernel device.

python-fido2's own CTAPHID code talks to ours in packets, so that cancelling, keepalives, and
whatever a bad key does on the wire are as with the real thing.
"""

import errno
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from fido2.hid import CtapHidDevice
from fido2.hid.base import CtapHidConnection, HidDescriptor

from security_key.ctaphid import PACKET
from security_key.faults import Faults
from security_key.key import SecurityKey
from security_key.person import Person
from security_key.server import Server
from security_key.wire import Wire


class InjectedConnection(CtapHidConnection):
    """What python-fido2 has in the place of an open /dev/hidraw."""

    def __init__(self, end: socket.socket) -> None:
        """Own this end of a wire."""
        self.end = end

    def read_packet(self) -> bytes:
        """Return the next packet; an error as hidraw's where the key was pulled out."""
        data = self.end.recv(PACKET)
        if not data:
            raise OSError(errno.EIO, "the key was unplugged")
        return data

    def write_packet(self, data: bytes) -> None:
        """Send a packet, with the report number before it."""
        try:
            self.end.send(b"\0" + data)
        except OSError as error:
            raise OSError(errno.EIO, "the key was unplugged") from error

    def close(self) -> None:
        """Close the key."""
        self.end.close()


class InjectedDevice(CtapHidDevice):
    """A device for Ctap1, Ctap2 and Fido2Client."""

    @classmethod
    def list_devices(cls) -> Iterator[CtapHidDevice]:
        """Find nothing: a test opens the key that it has."""
        yield from ()


class InjectedKey:
    """A key that is plugged into this process; a context manager that pulls it out at the end."""

    def __init__(self, key: SecurityKey | None = None, patience: float | None = None) -> None:
        """Plug a key in; a read gives up with TimeoutError after ``patience`` seconds, if given."""
        self.key = key or SecurityKey()
        self.patience = patience
        self.wire = Wire()
        self.server = Server(self.key, self.wire)
        self.given: list[socket.socket] = []
        self.thread = threading.Thread(target=self.server.run, name="security key", daemon=True)
        self.thread.start()
        self.plug()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Pull it out and close what was opened."""
        self.close()

    @property
    def person(self) -> Person:
        """Who stands beside it."""
        return self.key.person

    @property
    def faults(self) -> Faults:
        """What is wrong with it."""
        return self.key.faults

    @property
    def counters(self) -> Counter[str]:
        """What was counted."""
        return self.key.counters

    def open(self) -> socket.socket:
        """Open it as /dev/hidraw is opened: packets of 64 bytes come, 64 or 65 go."""
        end = self.server.submit(self.wire.connect)
        end.settimeout(self.patience)
        self.given.append(end)
        return end

    def connect(self) -> InjectedDevice:
        """Open it for python-fido2."""
        model = self.key.model
        descriptor = HidDescriptor(
            path="injected",
            vid=model.vendor_id,
            pid=model.product_id,
            report_size_in=PACKET,
            report_size_out=PACKET,
            product_name=model.product,
            serial_number=model.serial_number,
        )
        return InjectedDevice(descriptor, InjectedConnection(self.open()))

    def plug(self) -> None:
        """Plug it in (again)."""
        self.server.submit(self.server.plug)

    def unplug(self) -> None:
        """Pull it out: reads that wait end with an error."""
        self.server.submit(self.server.unplug)

    def close(self) -> None:
        """Pull it out for good."""
        if self.thread.is_alive():  # it may have been told to quit
            self.server.submit(self.server.stop)
        self.thread.join()
        for end in self.given:
            end.close()
