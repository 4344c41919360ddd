# SPDX-License-Identifier: Apache-2.0
"""A security key in the guest, made of software behind the kernel's own devices, and its owner.

The key is `tests/security_key`; it lives in the guest and ends with its standard input.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vm.guest import Guest

MODULES = ("uhid", "dummy_hcd", "usb_f_hid", "libcomposite")
PLACE = "/opt/security_key"
_FOLDER = Path(__file__).resolve().parent
_PROGRAM = _FOLDER / "inside/software_key.py"
_STOP_SECONDS = 30.0


class SoftwareKey:
    """A key that a test commands; see `security_key.control` for the words."""

    def __init__(self, guest: Guest, process: subprocess.Popen[bytes]) -> None:
        """Take a process of `inside/software_key.py`."""
        self._guest = guest
        self._process = process

    def tell(self, *words: str) -> dict[str, Any]:
        """Say words to it and return how it is.

        Raises:
            AssertionError: it does not do that.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(words).encode() + b"\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        assert answer["ok"], answer
        return answer

    def touch(self, when: str = "once") -> None:
        """Have its owner touch it: yes, no, wait, or once."""
        self.tell("touch", when)

    def is_blinking(self) -> bool:
        """Whether it waits for a touch."""
        return bool(self.tell("status")["is_blinking"])

    def count(self, what: str) -> int:
        """Return how often something has happened to it, such as touches or packets."""
        return int(self.tell("status")["counters"].get(what, 0))

    def plug(self) -> None:
        """Plug it in; udev has seen to it when this returns."""
        self.tell("plug")
        self._guest.run(["udevadm", "settle"])

    def unplug(self) -> None:
        """Pull it out."""
        self.tell("unplug")


@contextlib.contextmanager
def software_key(
    guest: Guest, name: str, transport: str = "uhid", *options: str
) -> Iterator[SoftwareKey]:
    """Make a key of this name, unplugged; what it holds stays for the next one of the name."""
    words = ("--state", f"/root/{name}.json", "--transport", transport, "--unplugged", *options)
    process = guest.start(_PROGRAM, f"/run/{name}.sock", *words)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield SoftwareKey(guest, process)
    finally:
        process.communicate(timeout=_STOP_SECONDS)


def install_software_keys(guest: Guest) -> None:
    """Put what keys are made of into a guest."""
    guest.put(_FOLDER.parent / "security_key", PLACE)
    guest.run(["modprobe", "--all", *MODULES])
