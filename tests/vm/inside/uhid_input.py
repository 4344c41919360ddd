# SPDX-License-Identifier: Apache-2.0
"""Inside the guest: a mouse and a keyboard, HID devices that are no security keys.

Says `made` on standard output, and takes the devices away when standard input ends. Structures are
those of the kernel's <linux/uhid.h>; the descriptors are the boot interfaces of HID 1.11, appendix
E.10 and B.1.
"""

import os
import struct
import sys

MOUSE = bytes.fromhex(
    "0501 0902 a101 0901 a100 0509 1901 2903 1500 2501 9503 7501 8102 9501 7505 8101"
    "0501 0930 0931 1581 257f 7508 9502 8106 c0c0"
)
KEYBOARD = bytes.fromhex(
    "0501 0906 a101 0507 19e0 29e7 1500 2501 7501 9508 8102 9501 7508 8101"
    "9506 7508 1500 2565 0507 1900 2965 8100 c0"
)
UHID_CREATE2 = 11
BUS_USB = 3
VENDOR, PRODUCT = 0x1209, 0x0002  # pid.codes: for tests
CREATE = struct.Struct("<I 128s 64s 64s HH IIII 4096s")


def main() -> None:
    """Make the devices."""
    devices = []
    for name, descriptor in ((b"Mouse of tests", MOUSE), (b"Keyboard of tests", KEYBOARD)):
        device = os.open("/dev/uhid", os.O_RDWR)
        place = (len(descriptor), BUS_USB, VENDOR, PRODUCT, 0, 0, descriptor)
        os.write(device, CREATE.pack(UHID_CREATE2, name, b"", b"", *place))
        devices.append(device)
    sys.stdout.write("made\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
