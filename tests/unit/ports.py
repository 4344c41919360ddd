# SPDX-License-Identifier: Apache-2.0
"""Security keys of software, plugged into this process: only node and udev are stood in for.

What speaks to them is the product's own code, from packets up.
"""

import hashlib
from collections.abc import Generator, Iterable, Iterator
from threading import Event
from typing import Any, TypeVar

import pytest
from audit_records import read_records
from doubles import Clock
from security_key.injected import InjectedKey
from security_key.key import SecurityKey
from security_key.memory import Memory
from security_key.model import Model

from pam_mfa.audit import Reason
from pam_mfa.devices import FidoDevice
from pam_mfa.errors import KeyAccessError
from pam_mfa.factors.attestation import NEW_ALGORITHMS
from pam_mfa.factors.security_key import RP_ID, client_data_hash, user_handle
from pam_mfa.hardware import attached_keys, registration
from pam_mfa.hardware import security_key as opening
from pam_mfa.hardware.keys import KeyReport, Made, Method, NewCredential
from pam_mfa.hardware.node_opening import gone_error
from pam_mfa.hardware.nodes import AttachedKey
from pam_mfa.hardware.report_descriptor import FidoReports
from pam_mfa.key_enrolling import enable_key
from pam_mfa.lifecycle import Actor, KeyWish, Lifecycle, PendingKey
from pam_mfa.policy import Fido
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.verification import Ask, Listen, Need, Tell, Work

_Result = TypeVar("_Result")
PIN = "4711"
MODEL = "5ec0de00-c0de-4a11-900d-feedfacebeef"  # of the software key
QUICK = Fido(touch=5.0, insert=0.1)
IMPATIENT = Fido(touch=0.3, insert=0.1)


class Ports:
    """A machine's ports, and what is plugged into them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Begin with nothing plugged in."""
        self.plugged: dict[str, tuple[AttachedKey, InjectedKey]] = {}
        self.is_closed = False  # whether nobody may open a node
        self.opened = 0
        monkeypatch.setattr(opening, "open_node", self._open_node)
        monkeypatch.setattr(attached_keys, "list_keys", self.list_keys)
        monkeypatch.setattr(registration, "list_keys", self.list_keys)
        monkeypatch.setattr(registration, "wait_for_key", lambda _: self.list_keys())

    def plug(
        self, model: Model | None = None, memory: Memory | None = None, name: str = "YubiKey 5 NFC"
    ) -> InjectedKey:
        """Plug a key in."""
        injected = InjectedKey(SecurityKey(model, memory))
        number = len(self.plugged)
        path = f"/dev/hidraw{number}"
        attached = AttachedKey(
            path=path,
            sysname=f"hidraw{number}",
            syspath=f"/sys/devices/{number}",
            device_number=number,
            name=name,
            serial_number="",
            vendor_id=0x1209,
            product_id=1,
            location="",
            reports=FidoReports(64, 64),
        )
        self.plugged[path] = (attached, injected)
        return injected

    def list_keys(self) -> tuple[AttachedKey, ...]:
        """Return what is plugged in."""
        return tuple(attached for attached, _ in self.plugged.values())

    def close(self) -> None:
        """Pull everything out."""
        for _, injected in self.plugged.values():
            injected.close()

    def _open_node(self, key: AttachedKey) -> int:
        if self.is_closed:
            raise KeyAccessError(
                f"user id 1000 may not open {key.path}", hint="Install the udev rule."
            )
        injected = self.plugged[key.path][1]
        try:
            end = injected.open()
        except OSError as error:
            raise gone_error(key) from error
        self.opened += 1
        injected.given.remove(end)
        return end.detach()


def set_pin(injected: InjectedKey, pin: str = PIN) -> None:
    """Give a key a PIN."""
    injected.key.memory.pin_hash = hashlib.sha256(pin.encode()).digest()[:16]


class KeyHost:
    """A host with a store and ports, on which keys are enabled."""

    def __init__(self, layout: Layout, ports: Ports) -> None:
        """Open the store."""
        self.layout = layout
        self.ports = ports
        self.clock = Clock()
        self.store = EmbeddedStore(layout)
        self.lifecycle = Lifecycle(self.store, self.clock, Actor(0, 4321, 1000))
        self.registrar = registration.AttachedKeyRegistrar()
        self.keys = attached_keys.AttachedKeys()
        self.told: list[str] = []

    def enable(
        self,
        user: str = "alice",
        fido: Fido = QUICK,
        wish: KeyWish = KeyWish(),  # noqa: B008 - immutable
        answers: Iterable[str | Reason] = (),
    ) -> FidoDevice:
        """Enable a key; what is told and asked stands in ``told``."""
        pending = self.lifecycle.begin_fido(user, fido, wish)
        running = enable_key(self.lifecycle, pending, self.registrar, self.keys)
        return drive_dialogue(running, self.told, iter(answers))

    def register(
        self,
        injected: InjectedKey,
        pending: PendingKey,
        **values: Any,  # noqa: ANN401 - any field of what is asked for
    ) -> Made:
        """Have a key make a credential, without a dialogue."""
        reports = self.registrar.examine((), Event())
        paths = [path for path, (_, one) in self.ports.plugged.items() if one is injected]
        report = next(one for one in reports if one.key.path == paths[0])
        made = self.registrar.make(want(report, pending, **values), Event())
        assert isinstance(made, Made)
        return made

    def records(self) -> list[dict[str, Any]]:
        """Return the records in the log."""
        return read_records(self.layout.audit_log)


def want(report: KeyReport, pending: PendingKey, **values: Any) -> NewCredential:  # noqa: ANN401 - any field
    """Return what a key is asked for on its way to a user."""
    wanted = NewCredential(
        report=report,
        client_data_hash=client_data_hash(pending.creation, "webauthn.create"),
        rp_id=RP_ID,
        user_handle=user_handle(pending.user),
        user=pending.user,
        algorithms=NEW_ALGORITHMS,
        excluded=pending.own,
        method=Method.NONE,
        seconds=pending.fido.touch,
    )
    return wanted._replace(**values)


def drive_dialogue(
    running: Generator[Need, Any, _Result], told: list[str], answers: Iterator[str | Reason]
) -> _Result:
    """Carry a dialogue to its end; write down what is told and asked."""
    reply: object = None
    while True:
        try:
            need = running.send(reply)
        except StopIteration as end:
            result: _Result = end.value
            return result
        reply = None
        if isinstance(need, Tell | Ask):
            told.append(need.text)
        elif isinstance(need, Listen):
            reply = next(answers)
        else:
            assert isinstance(need, Work)
            reply = need.do(Event())
