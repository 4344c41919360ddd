# SPDX-License-Identifier: Apache-2.0
"""The shipped udev rule, as the machine's own udevd would read it."""

import grp
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from usb_machine import KEYBOARD, Machine, Plugged, run_outside

pytest_plugins = ["machine_fixtures"]

RULE = Path(__file__).resolve().parents[2] / "packaging/udev/71-pam-mfa.rules"
RULES = Path("/run/udev/rules.d")
# fido_id cannot see the machine of the test, so its verdict is written as a rule.
FIDO_ID = 'KERNEL=="hidraw1", ENV{ID_FIDO_TOKEN}="1", ENV{ID_SECURITY_TOKEN}="1"\n'
# As libfido2's own rules have it, where a distribution ships them.
U2F = 'KERNEL=="hidraw*", SUBSYSTEM=="hidraw", TAG+="uaccess", GROUP="tty", MODE="0600"\n'


@pytest.fixture
def rules(machine: Machine) -> Iterator[Machine]:
    """Install the rule on the machine, beside others; nothing of it reaches the real /dev."""
    RULES.mkdir()
    (RULES / "60-fido-id.rules").write_text(FIDO_ID)
    (RULES / "70-u2f.rules").write_text(U2F)
    (RULES / RULE.name).write_text(RULE.read_text("utf-8"))
    groups = Path("/run/group")
    groups.write_text(Path("/etc/group").read_text("utf-8") + "pam-mfa:x:60995:\n")
    run_outside("mount", "-t", "tmpfs", "tmpfs", "/dev/char")
    run_outside("mount", "--bind", groups, "/etc/group")
    try:
        yield machine
    finally:
        run_outside("umount", "/etc/group")
        run_outside("umount", "/dev/char")


def process(plugged: Plugged, action: str = "add") -> str:
    """Return what udev does with a device."""
    done = subprocess.run(
        ["udevadm", "test", f"--action={action}", f"/sys{plugged.syspath}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def ours(text: str) -> list[str]:
    """Return what udev says of the lines of our rule, without file and line number."""
    found = (line.partition(f"{RULE.name}:")[2] for line in text.splitlines())
    return [said.split(" ", 1)[1] for said in found if said]


def test_key(rules: Machine) -> None:
    """A key goes to the verifier's group, whatever rules before ours gave it to."""
    rules.plug(KEYBOARD)
    plugged = rules.plug()
    expected = [f"GROUP {grp.getgrnam('pam-mfa').gr_gid}", "MODE 0660"]
    assert [expected, expected] == [ours(process(plugged, each)) for each in ("add", "change")]


def test_other_device(rules: Machine) -> None:
    """A keyboard stays whose it was, and the rule has no faults."""
    assert [] == ours(process(rules.plug(KEYBOARD)))
