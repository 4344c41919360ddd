# SPDX-License-Identifier: Apache-2.0
"""Inside the guest: a USB device that looks like a security key, behind a controller of software.

Says `made` on standard output, and unplugs and removes the device when standard input ends. The
files are those of the kernel's Documentation/usb/gadget_configfs.rst and gadget_hid.rst.
"""

import contextlib
import sys
from pathlib import Path

# A FIDO usage page with one input and one output report of 64 bytes (CTAP 2.1, 11.2.8.1).
REPORT_DESCRIPTOR = bytes.fromhex(
    "06d0f10901a1010920150026ff007508954081020921150026ff00750895409102c0"
)
GADGET = Path("/sys/kernel/config/usb_gadget/key")
FUNCTION = GADGET / "functions/hid.0"
CONFIGURATION = GADGET / "configs/c.1"
FILES = {
    GADGET / "idVendor": b"0x1209",  # pid.codes: for tests
    GADGET / "idProduct": b"0x0001",
    GADGET / "strings/0x409/manufacturer": b"Tests",
    GADGET / "strings/0x409/product": b"Key of tests",
    FUNCTION / "report_length": b"64",
    FUNCTION / "report_desc": REPORT_DESCRIPTOR,
}


def main() -> None:
    """Make the device and plug it in, with a serial number that is the first argument."""
    for folder in (GADGET / "strings/0x409", FUNCTION, CONFIGURATION):
        folder.mkdir(parents=True)
    for path, content in FILES.items():
        path.write_bytes(content)
    (GADGET / "strings/0x409/serialnumber").write_text(sys.argv[1])
    link = CONFIGURATION / "hid.0"
    link.symlink_to(FUNCTION)
    controller = next(Path("/sys/class/udc").iterdir()).name
    (GADGET / "UDC").write_text(controller)
    sys.stdout.write("made\n")
    sys.stdout.flush()
    sys.stdin.read()
    with contextlib.suppress(OSError):  # unplugged meanwhile
        (GADGET / "UDC").write_text("\n")
    link.unlink()
    for folder in (CONFIGURATION, FUNCTION, GADGET / "strings/0x409", GADGET):
        folder.rmdir()


if __name__ == "__main__":
    main()
