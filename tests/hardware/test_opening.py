# SPDX-License-Identifier: Apache-2.0
"""Opening a key's node: that node and no other thing, whatever stands at its path."""

import contextlib
import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fido2.ctap import CtapError
from fido2.ctap1 import Ctap1
from fido2.ctap2.base import Ctap2
from security_key.faults import Fault
from security_key.host import credential_of, register, sign_in, verify_assertion
from security_key.key import SecurityKey as SoftwareKey
from security_key.model import U2F_ONLY
from security_key.person import Touch
from usb_machine import KEYBOARD, KEYBOARD_DESCRIPTOR, Machine, Plugged, Product

from pam_mfa.errors import (
    KeyAccessError,
    KeyBusyError,
    KeyFaultError,
    KeyGoneError,
    KeySilentError,
    SecurityKeyError,
    UnsafeNodeError,
)
from pam_mfa.hardware import connection, security_key
from pam_mfa.hardware.nodes import AttachedKey, list_keys
from pam_mfa.hardware.security_key import open_key, open_when_free

pytest_plugins = ["machine_fixtures"]

NOBODY = 65534
PATIENCE = 20.0  # seconds that a loaded machine may take


def listed(plugged: Plugged) -> AttachedKey:
    """Return a key as it is listed."""
    (key,) = [key for key in list_keys() if key.path == plugged.path]
    return key


def open_nodes() -> list[str]:
    """Return what this process has open of the machine's /dev; umockdev has more elsewhere."""
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            links.append(str(entry.readlink()))
    return sorted(link for link in links if "/umockdev." in link and "/dev/" in link)


@contextlib.contextmanager
def same_descriptors() -> Iterator[None]:
    """Expect that what is opened in the block is closed in it."""
    before = open_nodes()
    yield
    assert before == open_nodes()


@contextlib.contextmanager
def held_by_another_program(plugged: Plugged) -> Iterator[int]:
    """Use a key as libfido2 does, with its lock."""
    descriptor = os.open(plugged.path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def test_register_and_sign_in(machine: Machine) -> None:
    """python-fido2 registers and signs in with a key that is opened here, across openings."""
    plugged = machine.plug(key=SoftwareKey())
    attached = listed(plugged)
    with same_descriptors():
        with open_key(attached) as key:
            credential = credential_of(register(Ctap2(key)))
        with open_key(attached) as key:
            assertion = sign_in(Ctap2(key), credential.credential_id)
    verify_assertion(assertion, credential.public_key)


def test_u2f(machine: Machine) -> None:
    """A key of the old kind is opened as well."""
    with open_key(listed(machine.plug(key=SoftwareKey(U2F_ONLY)))) as key:
        assert "U2F_V2" == Ctap1(key).get_version()


def test_symbolic_link(machine: Machine) -> None:
    """A link in the place of the node is refused, and what it points to is not opened."""
    keyboard, plugged = machine.plug(KEYBOARD), machine.plug(key=SoftwareKey())
    attached = listed(plugged)
    machine.take_away(plugged)
    plugged.place.symlink_to(keyboard.place)
    with same_descriptors(), pytest.raises(UnsafeNodeError, match="symbolic link"):
        open_key(attached)
    assert keyboard.path not in machine.opened


@pytest.mark.parametrize("kind", ["file", "fifo", "other device"])
def test_other_thing_at_the_path(machine: Machine, kind: str) -> None:
    """A file, a fifo or another device in the place of the node gets no byte."""
    plugged = machine.plug(key=SoftwareKey())
    attached = listed(plugged)
    if kind == "other device":
        machine.put(plugged, Path("/dev/full"))  # would refuse a byte with another error
    else:
        machine.take_away(plugged)
        plugged.place.touch() if kind == "file" else os.mkfifo(plugged.place)
    with same_descriptors(), pytest.raises(UnsafeNodeError, match=plugged.path):
        open_key(attached)
    if kind == "file":
        assert b"" == plugged.place.read_bytes()


@pytest.mark.parametrize("descriptor", [KEYBOARD_DESCRIPTOR, b"\xfe", b""])
def test_another_device_took_the_number(machine: Machine, descriptor: bytes) -> None:
    """A device that came to the key's number after it was listed gets no byte."""
    plugged = machine.plug()
    attached = listed(plugged)
    plugged.descriptor = descriptor
    with same_descriptors(), pytest.raises(KeyGoneError, match="another device"):
        open_key(attached)
    assert [plugged.path] == machine.opened


def test_another_key_took_the_number(machine: Machine) -> None:
    """A key of another model in the place of the listed one is not taken for it."""
    plugged = machine.plug()
    attached = listed(plugged)._replace(product_id=0x0001)
    with same_descriptors(), pytest.raises(KeyGoneError, match="another device"):
        open_key(attached)


def test_no_permission(machine: Machine) -> None:
    """A node that this user may not open is said so, with the rule that mends it."""
    attached = listed(machine.plug(key=SoftwareKey()))
    machine.let_others_in()
    os.seteuid(NOBODY)
    try:
        with pytest.raises(KeyAccessError, match="65534") as caught:
            open_key(attached)
    finally:
        os.seteuid(0)
    assert "71-pam-mfa.rules" in caught.value.hint
    assert 3 == caught.value.exit_status


def test_pulled_out_before(machine: Machine) -> None:
    """A key that is gone when it is to be opened is said so."""
    plugged = machine.plug(key=SoftwareKey())
    attached = listed(plugged)
    machine.take_away(plugged)
    with pytest.raises(KeyGoneError, match="Acme Blue Key"):
        open_key(attached)


def test_pulled_out_while_open(machine: Machine) -> None:
    """A key that is pulled out waiting for a touch is gone, and comes back under another name."""
    inside = SoftwareKey()
    inside.person.touch = Touch.WAIT
    plugged = machine.plug(key=inside)

    def pull(_: object) -> None:
        machine.unplug(plugged)

    with same_descriptors(), open_key(listed(plugged)) as key, pytest.raises(KeyGoneError):
        Ctap2(key).selection(on_keepalive=pull)
    again = machine.plug(key=inside)
    assert [again.path] == [key.path for key in list_keys()]
    with open_key(listed(again)) as key:
        assert Ctap2(key).info.versions


def test_busy_with_another_program(machine: Machine) -> None:
    """A key that another program has locked is busy, and opens once it is released."""
    plugged = machine.plug(key=SoftwareKey())
    attached = listed(plugged)
    with held_by_another_program(plugged), same_descriptors(), pytest.raises(KeyBusyError):
        open_key(attached)
    open_key(attached).close()


def test_waiting_for_a_busy_key(machine: Machine) -> None:
    """The wait for a busy key says so once, and ends when the key is free."""
    plugged = machine.plug(key=SoftwareKey())
    attached = listed(plugged)
    told = threading.Event()
    messages: list[str] = []

    def say_busy() -> None:
        messages.append("busy")
        told.set()

    def use_it_a_while() -> None:
        with held_by_another_program(plugged):
            ready.set()
            told.wait(PATIENCE)

    ready = threading.Event()
    user = threading.Thread(target=use_it_a_while)
    user.start()
    assert ready.wait(PATIENCE)
    open_when_free(attached, PATIENCE, say_busy).close()
    user.join()
    assert ["busy"] == messages


def test_waiting_in_vain(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for a busy key ends after its time, however often it was tried, with one message."""
    monkeypatch.setattr(security_key, "RETRY_INTERVAL", 0.01)
    plugged = machine.plug(key=SoftwareKey())
    attached = listed(plugged)
    messages: list[str] = []
    with held_by_another_program(plugged), same_descriptors(), pytest.raises(KeyBusyError):
        open_when_free(attached, 0.2, lambda: messages.append("busy"))
    assert ["busy"] == messages
    assert [plugged.path] * 3 == machine.opened[:3]


def test_waiting_is_canceled(machine: Machine) -> None:
    """The wait for a busy key ends when it is canceled."""
    plugged = machine.plug(key=SoftwareKey())
    attached = listed(plugged)
    canceled = threading.Event()
    with held_by_another_program(plugged), same_descriptors(), pytest.raises(KeyBusyError):
        open_when_free(attached, PATIENCE, canceled.set, canceled)
    assert canceled.is_set()


def test_libfido2_waits_for_us(machine: Machine) -> None:
    """A program on libfido2, as pam_u2f and ssh are, waits until we release the key."""
    plugged = machine.plug(key=SoftwareKey())
    key = open_key(listed(plugged))
    tool = subprocess.Popen(
        ["fido2-token", "-I", plugged.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with pytest.raises(subprocess.TimeoutExpired):
        tool.wait(0.5)
    key.close()
    output, _ = tool.communicate(timeout=PATIENCE)
    assert 0 == tool.returncode
    assert b"FIDO_2" in output


def test_hanging_key(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that hangs is given up and released."""
    inside = SoftwareKey()
    inside.faults.switch_on(Fault.MUTE)
    attached = listed(machine.plug(key=inside))
    monkeypatch.setattr(connection, "SILENCE_MAX", 0.05)
    monkeypatch.setattr(connection, "GRACE", 0.05)
    with same_descriptors(), pytest.raises(KeySilentError):
        open_key(attached)


def test_endless_keepalives(machine: Machine) -> None:
    """A key that never ends its keepalives, nor heeds the cancel, is given up."""
    inside = SoftwareKey()
    plugged = machine.plug(key=inside)
    with open_key(listed(plugged)) as key:
        ctap = Ctap2(key)
        inside.faults.switch_on(Fault.ENDLESS_KEEPALIVES)
        key.call_max = 0.2
        with pytest.raises(KeySilentError):
            ctap.selection()


def test_untouched_key(machine: Machine) -> None:
    """A touch that does not come ends as the key's own timeout does, and the key is usable."""
    inside = SoftwareKey()
    inside.person.touch = Touch.WAIT
    with open_key(listed(machine.plug(key=inside))) as key:
        ctap = Ctap2(key)
        key.call_max = 0.2
        with pytest.raises(CtapError) as caught:
            ctap.selection()
        assert CtapError.ERR.USER_ACTION_TIMEOUT == caught.value.code
        inside.person.touch = Touch.YES
        ctap.selection()


def test_refusing_channels(machine: Machine) -> None:
    """A key that announces an endless message is faulty, and the error is one of a key's."""
    inside = SoftwareKey()
    with open_key(listed(machine.plug(key=inside))) as key:
        ctap = Ctap2(key)
        inside.faults.switch_on(Fault.OVERSIZED_MESSAGE)
        with pytest.raises(KeyFaultError) as caught:
            ctap.get_info()
    assert isinstance(caught.value, SecurityKeyError)


def test_tagged_product_without_name(machine: Machine) -> None:
    """A key without a name is told by its ids."""
    plugged = machine.plug(Product(name=""), SoftwareKey())
    attached = listed(plugged)
    with held_by_another_program(plugged), pytest.raises(KeyBusyError, match="1209:beef"):
        open_key(attached)
