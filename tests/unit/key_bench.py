# SPDX-License-Identifier: Apache-2.0
"""A machine with software keys attached, a user with credentials on them, and logins at it.

Only the opening of /dev/hidraw and udev's list are replaced: packets, CTAP and all above are the
product's own.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any, Self

import pytest
from doubles import SEED, STEP, Clock, MemoryStore, code_of, make_request, open_device
from fido2 import cbor
from fido2.cose import ES256
from fido2.ctap1 import Ctap1
from fido2.ctap2.base import Ctap2
from security_key.faults import Fault
from security_key.injected import InjectedKey
from security_key.key import SecurityKey
from security_key.memory import Memory
from security_key.model import Model

from pam_mfa.audit import Reason
from pam_mfa.devices import FidoDevice
from pam_mfa.errors import KeyBusyError
from pam_mfa.factors.security_key import RP_ID, user_handle
from pam_mfa.hardware import attached_keys, connection, exchange, security_key
from pam_mfa.hardware.attached_keys import AttachedKeys
from pam_mfa.hardware.hotplug import Changes
from pam_mfa.hardware.keys import Touch, Touched, Untouched
from pam_mfa.hardware.node_opening import gone_error
from pam_mfa.hardware.nodes import AttachedKey
from pam_mfa.hardware.report_descriptor import FidoReports
from pam_mfa.policy import Fido, Policy
from pam_mfa.store import Enrollment, OpenDevice, Standing, Store
from pam_mfa.verification import (
    Ask,
    Attempt,
    Caller,
    Commit,
    Listen,
    Machine,
    Tell,
    Verdict,
    Work,
    attempt,
)
from pam_mfa.wire import Result

HOST = "host.example"
PIN = "4711"
CODE = code_of(SEED, STEP)
ROOT = Caller(1, 0, may_verify=True)
SUCCESS = Verdict(Result.SUCCESS, Reason.TOUCH_ACCEPTED)
BY_CODE = Verdict(Result.SUCCESS, Reason.CODE_ACCEPTED)
CODE_PROMPT = "Verification code: "
KEY_OR_CODE_PROMPT = "Verification code, or attach your security key and press Enter: "
TOUCH_TEXT = "Touch your security key (blue-key)."
PIN_PROMPT = "PIN of your security key (blue-key): "
PATIENCE = 20.0  # seconds that a loaded machine may take
LONG_ENOUGH = 120.0  # seconds, for a touch that comes; longer than any test may take
SHORT = 0.15  # seconds, for what is seconds on a real key
POLICY = Policy(fido=Fido(touch=LONG_ENOUGH, insert=SHORT))


class BenchKeys(AttachedKeys):
    """The product's own, with what a test does before and after a touch."""

    def __init__(self, bench: "Bench") -> None:
        """Belong to a bench."""
        self.bench = bench

    def touch(self, touch: Touch, canceled: Event) -> Touched | Untouched:
        """Have keys touched."""
        self.bench.before_touch()
        return self.bench.after_touch(super().touch(touch, canceled))


class Bench:
    """The ports of a machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Start with nothing attached."""
        self.ports: dict[str, InjectedKey] = {}
        self.nodes_made = 0
        self.opened = 0
        self.is_locked = False  # whether another program has the nodes' locks
        self.before_touch: Callable[[], object] = lambda: None
        self.after_touch: Callable[[Touched | Untouched], Touched | Untouched] = lambda one: one
        self.while_waiting: Callable[[], object] = lambda: None
        self._keys: list[InjectedKey] = []
        monkeypatch.setattr(attached_keys, "list_keys", self.list_keys)
        monkeypatch.setattr(attached_keys, "Monitor", lambda: BenchMonitor(self))
        monkeypatch.setattr(security_key, "open_node", self._open)
        self._monkeypatch = monkeypatch
        self.machine = Machine(HOST, os.urandom, lambda: BenchKeys(self))

    def hurry(self) -> None:
        """Wait only shortly for a key that does not answer, as no good key is treated."""
        patch = self._monkeypatch.setattr
        patch(attached_keys, "PATIENCE", SHORT)
        patch(exchange, "PATIENCE", SHORT)
        patch(attached_keys, "LOOK_MAX", 2 * SHORT)
        patch(security_key, "BUSY_MAX", SHORT)
        patch(connection, "SILENCE_MAX", 2 * SHORT)
        patch(connection, "GRACE", SHORT)

    def make(self, model: Model | None = None, memory: Memory | None = None) -> InjectedKey:
        """Return a key that is in no port yet; it is put away at the end."""
        key = InjectedKey(SecurityKey(model, memory), PATIENCE)
        self._keys.append(key)
        return key

    def attach(self, *keys: InjectedKey) -> None:
        """Put keys into ports, each time under a new node's name."""
        for key in keys:
            self.ports[f"hidraw{self.nodes_made}"] = key
            self.nodes_made += 1

    def detach(self, key: InjectedKey) -> None:
        """Pull a key out."""
        for name in [name for name, one in self.ports.items() if one is key]:
            del self.ports[name]
        key.unplug()

    def replug(self, key: InjectedKey) -> None:
        """Put a key that was pulled out in again: it comes up under another name."""
        key.plug()
        self.attach(key)

    def list_keys(self) -> tuple[AttachedKey, ...]:
        """Return the keys as ``hardware.nodes`` lists them."""
        return tuple(_describe(name, key) for name, key in list(self.ports.items()))

    def put_away(self) -> None:
        """End all keys."""
        for key in self._keys:
            key.close()

    def _open(self, key: AttachedKey) -> int:
        if self.is_locked:
            raise KeyBusyError(f"another program is using the security key {key.name}", hint="")
        try:
            injected = self.ports[key.sysname]
            end = injected.open()
        except (KeyError, OSError) as error:
            raise gone_error(key) from error
        injected.given.remove(end)
        end.setblocking(False)
        self.opened += 1
        return end.detach()


class BenchMonitor:
    """A bench's ports as ``hotplug.Monitor`` watches them."""

    def __init__(self, bench: Bench) -> None:
        """Look at what is attached."""
        self._bench = bench
        self.keys = bench.list_keys()
        bench.while_waiting()

    def wait(self, timeout: float) -> Changes:
        """Wait until something changes."""
        give_up_at = time.monotonic() + timeout
        while (now := self._bench.list_keys()) == self.keys and time.monotonic() < give_up_at:
            threading.Event().wait(0.005)
        before, self.keys = self.keys, now
        return Changes(
            tuple(key for key in now if key not in before),
            tuple(key for key in before if key not in now),
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


def _describe(sysname: str, key: InjectedKey) -> AttachedKey:
    model = key.key.model
    return AttachedKey(
        f"/dev/{sysname}", sysname, f"/sys/{sysname}", 0, model.product, "", model.vendor_id,
        model.product_id, "", FidoReports(64, 64),
    )  # fmt: skip


MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def enroll(
    key: InjectedKey, name: str = "blue-key", user: str = "alice", **options: bool
) -> FidoDevice:
    """Make a credential of a user on a key, by python-fido2; return its device."""
    # Closed: a host that has the key open and does not read keeps it waiting.
    with contextlib.closing(key.connect()) as device:
        response = Ctap2(device).make_credential(
            bytes(32),
            {"id": RP_ID, "name": RP_ID},
            {"id": user_handle(user), "name": user},
            [{"type": "public-key", "alg": -7}],
            options=options or None,
        )
    made = response.auth_data.credential_data
    assert made is not None
    return FidoDevice(
        serial_number=f"fido/{user}/{name}",
        name=name,
        enabled_at=MOMENT,
        credential_id=made.credential_id,
        public_key=cbor.encode(dict(made.public_key)),
        rp_id=RP_ID,
        aaguid=str(made.aaguid),
        user_verification="",
    )


def enroll_by_u2f(key: InjectedKey, name: str = "blue-key", rp_id: str = RP_ID) -> FidoDevice:
    """Make a U2F credential on a key."""
    with contextlib.closing(key.connect()) as device:
        made = Ctap1(device).register(bytes(32), hashlib.sha256(rp_id.encode()).digest())
    public_key = cbor.encode(dict(ES256.from_ctap1(made.public_key)))  # type: ignore[no-untyped-call]
    return FidoDevice(
        f"fido/alice/{name}", name, MOMENT, made.key_handle, public_key, rp_id, "", ""
    )  # fmt: skip


def set_pin(key: InjectedKey, pin: str = PIN) -> None:
    """Give a key a PIN."""
    key.key.memory.pin_hash = hashlib.sha256(pin.encode()).digest()[:16]


Answer = str | Reason | Callable[[], str]


@dataclasses.dataclass
class Shown:
    """What an attempt showed and asked, and how it ended."""

    texts: list[str]
    prompts: list[str]
    verdict: Verdict
    needs: list[object]


class Login:
    """Alice's logins at the machine's console."""

    def __init__(self, bench: Bench) -> None:
        """Have a machine."""
        self.bench = bench
        self.store = MemoryStore()
        self.clock = Clock()
        self.policy = POLICY

    def enroll(self, *devices: FidoDevice, codes: bool = True) -> None:
        """Enable these keys for Alice, and a phone to fall back on."""
        opened: tuple[OpenDevice, ...] = (open_device(),) if codes else ()
        enrollment = Enrollment("alice", Standing.ENROLLED, opened, security_keys=devices)
        self.store.enrollments["alice"] = enrollment

    def use(self, **fido: Any) -> None:  # noqa: ANN401 - any field
        """Change what policy says of keys."""
        self.policy = self.policy._replace(fido=self.policy.fido._replace(**fido))

    def begin(self, **items: object) -> Attempt:
        """Begin a login; by default at the console."""
        return self.begin_on(self.store, **items)

    def begin_on(self, store: Store, **items: object) -> Attempt:
        """Begin a login that another store judges."""
        fields: dict[str, Any] = {"service": "login", "rhost": "", "tty": "tty1"} | items
        request = make_request(**fields)
        machine = self.bench.machine
        return attempt(request, ROOT, self.policy, store, self.clock, machine)

    def run(self, *answers: Answer, **items: object) -> Shown:
        """Log in; whatever happens, each answer has to be asked for."""
        replies = iter(answers)
        shown = carry(self.begin(**items), self.store, replies)
        assert [] == list(replies)
        return shown

    def reasons(self) -> list[Reason]:
        """Return the reasons of all records."""
        return [event.reason for event in self.store.events]

    def details(self) -> str:
        """Return the details of all records."""
        return "; ".join(event.detail for event in self.store.events)


def carry(running: Attempt, store: Store, replies: Iterator[Answer]) -> Shown:
    """Carry an attempt to its end, answering its prompts; an answer may be made by a call."""
    texts: list[str] = []
    prompts: list[str] = []
    needs: list[object] = []
    reply: object = None
    while True:
        try:
            need = running.send(reply)
        except StopIteration as end:
            return Shown(texts, prompts, end.value, needs)
        needs.append(need)
        reply = None
        if isinstance(need, Ask):
            prompts.append(need.text)
        elif isinstance(need, Tell):
            texts.append(need.text)
        elif isinstance(need, Work):
            reply = need.do(Event())
        elif isinstance(need, Commit):
            reply = store.commit([need.claim])[0]
        else:
            assert isinstance(need, Listen)
            answer = next(replies)
            reply = answer() if callable(answer) else answer


@contextlib.contextmanager
def login_at_bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    """Give a test a login at a machine without keys."""
    bench = Bench(monkeypatch)
    try:
        yield Login(bench)
    finally:
        bench.put_away()


def give_key(login: Login, model: Model | None = None, pin: str = "") -> InjectedKey:
    """Give Alice a key, and attach it."""
    key = login.bench.make(model)
    login.enroll(enroll(key))
    if pin:
        set_pin(key, pin)
    login.bench.attach(key)
    key.counters.clear()
    return key


def go_wrong_at_touch(login: Login, key: InjectedKey, *faults: Fault) -> None:
    """Have a key go wrong from the touch on; until then it is good."""
    login.bench.before_touch = lambda: key.faults.switch_on(*faults)


def wait_until(condition: Callable[[], bool]) -> bool:
    """Wait for what comes soon; return whether it came."""
    give_up_at = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < give_up_at:
        threading.Event().wait(0.005)
    return condition()
