# SPDX-License-Identifier: Apache-2.0
"""Inside the guest: a HID device that looks like a security key and answers nothing.

Says `made` on standard output, and takes the device away when standard input ends. Structures are
those of the kernel's <linux/uhid.h>.
"""

import os
import struct
import sys

# A FIDO usage page with one input and one output report of 64 bytes (CTAP 2.1, 11.2.8.1).
REPORT_DESCRIPTOR = bytes.fromhex(
    "06d0f10901a1010920150026ff007508954081020921150026ff00750895409102c0"
)
UHID_CREATE2 = 11
BUS_USB = 3
VENDOR, PRODUCT = 0x1209, 0x0001  # pid.codes: for tests
CREATE = struct.Struct("<I 128s 64s 64s HH IIII 4096s")


def main() -> None:
    """Make the device, with a serial number that is the first argument."""
    device = os.open("/dev/uhid", os.O_RDWR)
    serial_number = sys.argv[1].encode()
    size = len(REPORT_DESCRIPTOR)
    place = (size, BUS_USB, VENDOR, PRODUCT, 0, 0, REPORT_DESCRIPTOR)
    os.write(device, CREATE.pack(UHID_CREATE2, b"Key of tests", b"", serial_number, *place))
    sys.stdout.write("made\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
