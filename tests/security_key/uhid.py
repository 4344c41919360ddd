# SPDX-License-Identifier: Apache-2.0
"""The key by /dev/uhid: a HID device of the kernel's, without USB (linux/uhid.h).

The kernel keeps 32 packets of a host until they are read here, and drops the rest: more than any
CTAP2 message of the usual size has, but too few for the longest PING. ``gadget`` drops none.
"""

import errno
import os
import struct
import time
from enum import IntEnum

from security_key.ctaphid import PACKET
from security_key.model import Model
from security_key.server import strip_report_number

DEVICE = "/dev/uhid"
EVENT = 4376  # bytes: a type and the largest of its contents
DATA = 4096
BUS_USB = 0x03
BURST, PAUSE = 32, 0.005  # hidraw keeps 64 packets for a host that is slow, and drops the rest

# HID 1.11: one collection of FIDO's usage page, an input and an output report of 64 bytes.
REPORT_DESCRIPTOR = bytes.fromhex(
    "06d0f1 0901 a101 0920 1500 26ff00 7508 9540 8102 0921 1500 26ff00 7508 9540 9102 c0"
)


class Event(IntEnum):
    """Types of events, in either direction."""

    DESTROY = 1
    OUTPUT = 6
    GET_REPORT = 9
    GET_REPORT_REPLY = 10
    CREATE2 = 11
    INPUT2 = 12
    SET_REPORT = 13
    SET_REPORT_REPLY = 14


def encode_create(model: Model) -> bytes:
    """Return the event that makes the device."""
    name = f"{model.manufacturer} {model.product}".encode()
    return struct.pack(
        f"<I128s64s64sHHIIII{DATA}s",
        Event.CREATE2,
        name,
        b"",
        model.serial_number.encode(),
        len(REPORT_DESCRIPTOR),
        BUS_USB,
        model.vendor_id,
        model.product_id,
        0,
        0,
        REPORT_DESCRIPTOR,
    )


class Uhid:
    """One device; closing the descriptor takes it away."""

    def __init__(self, model: Model) -> None:
        """Begin unplugged."""
        self.model = model
        self.descriptor: int | None = None
        self.burst = 0

    def plug(self) -> None:
        """Make the device."""
        self.descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        os.write(self.descriptor, encode_create(self.model))

    def unplug(self) -> None:
        """Take the device away."""
        if self.descriptor is not None:
            os.write(self.descriptor, struct.pack("<I", Event.DESTROY))
            os.close(self.descriptor)
            self.descriptor = None

    def close(self) -> None:
        """Leave nothing behind."""

    def filenos(self) -> list[int]:
        """Return the descriptor."""
        return [] if self.descriptor is None else [self.descriptor]

    def receive(self, fileno: int) -> list[bytes]:
        """Return a host's packet; what the kernel asks for besides is refused."""
        event = os.read(fileno, EVENT)
        self.burst = 0
        kind = struct.unpack_from("<I", event)[0]
        if kind == Event.OUTPUT:
            size = struct.unpack_from("<H", event, 4 + DATA)[0]
            return [strip_report_number(event[4 : 4 + size])]
        if kind in (Event.GET_REPORT, Event.SET_REPORT):
            number = struct.unpack_from("<I", event, 4)[0]
            reply = Event(kind + 1)
            os.write(fileno, struct.pack("<IIHH", reply, number, errno.EIO, 0))
        return []

    def send(self, packet: bytes) -> None:
        """Send a packet to every host that has the device open."""
        if self.descriptor is None:
            return
        self.burst += 1
        if self.burst % BURST == 0:
            time.sleep(PAUSE)
        os.write(self.descriptor, struct.pack("<IH", Event.INPUT2, PACKET) + packet)
