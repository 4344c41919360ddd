# SPDX-License-Identifier: Apache-2.0
"""Security keys enabled at a port, and taken over from the real pamu2fcfg."""

import hashlib
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import pytest
from security_key.key import SecurityKey as SoftwareKey
from security_key.model import U2F_ONLY, Model
from security_key.person import Touch as Finger
from usb_machine import Machine

from pam_mfa.devices import FidoDevice
from pam_mfa.factors.security_key import Ceremony, client_data_hash, verify_assertion
from pam_mfa.hardware.attached_keys import AttachedKeys
from pam_mfa.hardware.keys import Credential, Method, Touch, Touched
from pam_mfa.hardware.registration import AttachedKeyRegistrar
from pam_mfa.importing.security_keys import KeyImporter, Origins, Result
from pam_mfa.importing.u2f_keys import parse_u2f_keys
from pam_mfa.key_enrolling import enable_key
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.policy import Fido
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.verification import Need, Tell, Work

pytest_plugins = ["machine_fixtures"]

PATIENCE = 20.0  # seconds that a loaded machine may take
PIN = "4711"
ACTOR = Actor(0, 1, None)


class Host(NamedTuple):
    """A store, and what can be done in it."""

    store: EmbeddedStore
    lifecycle: Lifecycle


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host where nobody is enrolled."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    layout = Layout(tmp_path)
    for directory in (layout.devices, layout.audit_log.parent):
        directory.mkdir(parents=True)
    layout.library.chmod(0o700)
    store = EmbeddedStore(layout)
    yield Host(store, Lifecycle(store, time.time, ACTOR))
    store.close()


def drive(
    running: Generator[Need, Any, FidoDevice], told: list[str], attach: Callable[[], object]
) -> FidoDevice:
    """Carry a dialogue without questions to its end; attach a key when one is asked for."""
    reply: object = None
    while True:
        try:
            need = running.send(reply)
        except StopIteration as end:
            device: FidoDevice = end.value
            return device
        if isinstance(need, Tell):
            told.append(need.text)
            if need.text.startswith("Attach the security key"):
                attach()
        assert isinstance(need, Tell | Work)
        reply = need.do(Event()) if isinstance(need, Work) else None


def enable(host: Host, told: list[str], attach: Callable[[], object] = lambda: None) -> FidoDevice:
    """Enable a key for Alice."""
    pending = host.lifecycle.begin_fido("alice", Fido(touch=PATIENCE, insert=PATIENCE))
    running = enable_key(host.lifecycle, pending, AttachedKeyRegistrar(), AttachedKeys())
    return drive(running, told, attach)


@pytest.mark.parametrize("model", [Model(), U2F_ONLY])
def test_enable(machine: Machine, host: Host, model: Model) -> None:
    """A key in a port is enabled by two touches, and named after its product."""
    machine.plug(key=SoftwareKey(model))
    told: list[str] = []
    assert "fido/alice/acme-blue-key" == enable(host, told).serial_number
    assert 2 == len(told)


def test_enable_when_it_is_plugged_in(machine: Machine, host: Host) -> None:
    """A key that is plugged in when it is asked for is enabled."""
    told: list[str] = []
    device = enable(host, told, lambda: machine.plug(key=SoftwareKey()))
    assert "fido/alice/acme-blue-key" == device.serial_number
    assert 3 == len(told)


def test_one_of_two(machine: Machine, host: Host) -> None:
    """Of two keys the one that is touched is enabled; both are free again."""
    idle, touched = SoftwareKey(), SoftwareKey()
    idle.person.touch = Finger.WAIT
    machine.plug(key=idle)
    machine.plug(key=touched)
    enable(host, [])
    assert ([], 1) == (idle.memory.credentials, len(touched.memory.credentials))
    idle.person.touch, touched.person.touch = Finger.YES, Finger.WAIT
    assert "fido/alice/acme-blue-key-2" == enable(host, []).serial_number


@pytest.mark.parametrize(
    ("model", "options", "method"),
    [
        (Model(), (), Method.NONE),
        (Model(), ("-P",), Method.NONE),
        (Model(), ("-N",), Method.PIN),
        (Model(), ("-V",), Method.PIN),
        (U2F_ONLY, (), Method.NONE),
    ],
)
def test_pamu2fcfg(
    machine: Machine, host: Host, model: Model, options: tuple[str, ...], method: Method
) -> None:
    """A line of the real pamu2fcfg is imported, and the key that made it verifies its user."""
    key = SoftwareKey(model)
    if method is Method.PIN:
        key.memory.pin_hash = hashlib.sha256(PIN.encode()).digest()[:16]
    machine.plug(key=key)
    # A session of its own: it asks for the PIN on a terminal where there is one.
    done = subprocess.run(
        ["setsid", "pamu2fcfg", "-u", "alice", "-o", "pam://example", *options],
        input=f"{PIN}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = parse_u2f_keys(done.stdout.encode(), "u2f_keys")
    importer = KeyImporter(host.store, time.time, ACTOR, Origins("pam://example", ""))
    assert [Result.IMPORT] == [row.result for row in importer.carry_out(said.credentials, "x")]
    (device,) = host.store.read_enrollment("alice").security_keys
    assert (method is Method.PIN) is bool(device.user_verification)
    keys, ceremony = AttachedKeys(), Ceremony(bytes(32), "host", "sudo", "alice")
    (holder,) = keys.look((Credential(device.credential_id, device.rp_id),), Event()).holders
    touch = Touch((holder,), client_data_hash(ceremony), method, PIN, PATIENCE)
    touched = keys.touch(touch, Event())
    assert isinstance(touched, Touched)
    verify_assertion(device, touched.assertion, ceremony, must_verify_user=method is Method.PIN)
