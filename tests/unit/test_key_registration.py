# SPDX-License-Identifier: Apache-2.0
"""Credentials made on attached keys of software, through the product's own packets."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer

import pytest
from doubles import make_layout
from ports import IMPATIENT, MODEL, PIN, QUICK, KeyHost, Ports, set_pin, want
from security_key.ctap import Command
from security_key.faults import Fault
from security_key.model import CTAP2_0, FINGERPRINT, U2F_ONLY, Model
from security_key.person import Touch

from pam_mfa.errors import KeyAccessError, KeyFaultError
from pam_mfa.hardware.keys import Credential, End, KeyReport, Made, Method, Untouched
from pam_mfa.lifecycle import PendingKey
from pam_mfa.policy import Fido


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyHost]:
    """A host with ports and an empty store."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    ports = Ports(monkeypatch)
    host = KeyHost(make_layout(tmp_path), ports)
    yield host
    host.store.close()
    ports.close()


def examine(host: KeyHost, *credentials: Credential) -> KeyReport:
    """Return what the one key says."""
    (report,) = host.registrar.examine(credentials, Event())
    return report


def begin(host: KeyHost, fido: Fido = QUICK) -> PendingKey:
    """Prepare a key for Alice."""
    return host.lifecycle.begin_fido("alice", fido)


def fail(host: KeyHost, fido: Fido = IMPATIENT, **values: object) -> Untouched:
    """Have the one key asked for a credential that it does not make."""
    outcome = host.registrar.make(want(examine(host), begin(host, fido), **values), Event())
    assert isinstance(outcome, Untouched)
    return outcome


def enrolled(host: KeyHost) -> Credential:
    """Enable the key for Alice and return its credential."""
    device = host.enable()
    return Credential(device.credential_id, device.rp_id)


def test_report(host: KeyHost) -> None:
    """A key says what it is without a touch."""
    injected = host.ports.plug()
    report = examine(host)
    expected = ("YubiKey 5 NFC", None, True, ("U2F_V2", "FIDO_2_0", "FIDO_2_1"), MODEL)
    assert expected == (report.key.name, *report[1:5])
    assert (False, -1, False, False) == report[5:9]
    assert 0 == injected.counters["touches"]


def test_report_of_pin(host: KeyHost) -> None:
    """A key with a PIN says how often it may still be tried."""
    injected = host.ports.plug()
    set_pin(injected)
    injected.key.memory.pin_retries = 5
    report = examine(host)
    assert (True, 5) == (report.has_pin, report.pin_attempts_left)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (FINGERPRINT, (True, False, False)),
        (Model(always_uv=True), (False, True, True)),
        (CTAP2_0, (False, False, False)),
    ],
)
def test_report_of_verification(
    host: KeyHost, model: Model, expected: tuple[bool, bool, bool]
) -> None:
    """A key says how it verifies its user, and when it insists."""
    host.ports.plug(model)
    report = examine(host)
    found = (report.has_built_in_uv, report.is_always_uv, report.must_verify_user)
    assert expected == found


def test_older_key_with_a_pin_insists(host: KeyHost) -> None:
    """A key of CTAP 2.0 makes no credential without its PIN."""
    set_pin(host.ports.plug(CTAP2_0))
    assert examine(host).must_verify_user


def test_report_of_u2f_key(host: KeyHost) -> None:
    """A key of U2F alone says so, and holds what it made."""
    host.ports.plug(U2F_ONLY)
    report = examine(host, enrolled(host), Credential(bytes(64), "pam-mfa"))
    assert (("U2F_V2",), False, "") == (report.versions, report.is_ctap2, report.aaguid)
    assert 1 == len(report.held)


def test_held_among_many(host: KeyHost) -> None:
    """Of hundreds of credentials a key finds its own, in few questions and untouched."""
    injected = host.ports.plug()
    own = [enrolled(host), enrolled_for(host, "bob")]
    strangers = [Credential(bytes((number % 256,)) * 64, "pam-mfa") for number in range(300)]
    before = injected.counters.copy()
    report = examine(host, *strangers[:150], own[0], *strangers[150:], own[1])
    questions = injected.counters["get_assertion"] - before["get_assertion"]
    assert set(own) == set(report.held)
    assert 302 / 5 > questions
    assert before["touches"] == injected.counters["touches"]


def enrolled_for(host: KeyHost, user: str) -> Credential:
    """Enable the key for another user."""
    device = host.enable(user)
    return Credential(device.credential_id, device.rp_id)


def test_held_under_another_relying_party(host: KeyHost) -> None:
    """A credential is held under its own relying party only."""
    host.ports.plug()
    mine = enrolled(host)
    assert () == examine(host, mine._replace(rp_id="pam://example")).held


def test_lying_about_what_is_held(host: KeyHost) -> None:
    """A key that names a credential which nobody asked for holds none."""
    injected = host.ports.plug()
    mine = enrolled(host)
    injected.faults.switch_on(Fault.UNASKED_CREDENTIAL_ID)
    assert () == examine(host, mine, Credential(bytes(64), "pam-mfa")).held


def test_closed_node(host: KeyHost) -> None:
    """A key whose node may not be opened is listed with the reason and the way out."""
    host.ports.plug()
    host.ports.is_closed = True
    problem = examine(host).problem
    assert isinstance(problem, KeyAccessError)
    assert problem.hint


@pytest.mark.parametrize(
    "fault", [Fault.GARBAGE, Fault.EMPTY, Fault.UNKNOWN_STATUS, Fault.DEEP_CBOR, Fault.LONG_CBOR]
)
def test_garbage_is_a_problem(host: KeyHost, fault: Fault) -> None:
    """A key that answers garbage is listed as such, and takes nothing down."""
    host.ports.plug().faults.switch_on(fault)
    assert isinstance(examine(host).problem, KeyFaultError)


def test_wait(host: KeyHost) -> None:
    """A key that is plugged in ends the wait; none does when the time is over."""
    assert () == host.registrar.wait(0.05, Event())
    host.ports.plug()
    assert 1 == len(host.registrar.wait(5.0, Event()))


def test_wait_is_canceled(host: KeyHost) -> None:
    """A wait ends when nobody waits any more."""
    canceled = Event()
    canceled.set()
    assert () == host.registrar.wait(60.0, canceled)


def test_make(host: KeyHost) -> None:
    """A touch makes a credential."""
    injected = host.ports.plug()
    host.register(injected, begin(host))
    assert 1 == injected.counters["touches"]
    assert [False] == [one.is_discoverable for one in injected.key.memory.credentials]


def test_make_by_u2f(host: KeyHost) -> None:
    """A key of U2F alone makes one, when it is touched in the end."""
    injected = host.ports.plug(U2F_ONLY)
    injected.person.touch, injected.person.delay = Touch.YES, 0.3
    host.register(injected, begin(host))
    assert 1 == injected.counters["touches"]


@pytest.mark.parametrize("model", [Model(), U2F_ONLY])
def test_no_touch(host: KeyHost, model: Model) -> None:
    """Without a touch there is no credential."""
    injected = host.ports.plug(model)
    injected.person.touch = Touch.WAIT
    assert End.TIMED_OUT is fail(host).end
    assert [] == injected.key.memory.credentials


def test_refusing_touch(host: KeyHost) -> None:
    """Whoever presses the button that refuses has refused."""
    host.ports.plug().person.touch = Touch.NO
    assert End.DENIED is fail(host, QUICK).end


@pytest.mark.parametrize("model", [Model(), U2F_ONLY])
def test_cancel(host: KeyHost, model: Model) -> None:
    """Canceled, the key stops blinking and is free for the next."""
    injected = host.ports.plug(model)
    injected.person.touch = Touch.WAIT
    canceled = Event()
    timer = Timer(0.2, canceled.set)
    timer.start()
    outcome = host.registrar.make(want(examine(host), begin(host), seconds=60.0), canceled)
    timer.join()
    assert Untouched(End.CANCELED) == outcome
    injected.person.touch = Touch.YES
    host.register(injected, begin(host))


@pytest.mark.parametrize("model", [Model(), U2F_ONLY])
def test_excluded(host: KeyHost, model: Model) -> None:
    """A key that holds one of the user's credentials makes no second one."""
    injected = host.ports.plug(model)
    mine = enrolled(host)
    before = len(injected.key.memory.credentials)
    assert End.EXCLUDED is fail(host, QUICK, excluded=(mine,)).end
    assert before == len(injected.key.memory.credentials)


def test_long_list_of_excluded(host: KeyHost) -> None:
    """A list of credentials that is too long for one message excludes all the same."""
    host.ports.plug(Model(max_message_size=1024))
    mine = enrolled(host)
    others = tuple(Credential(bytes((n,)) * 200, "pam-mfa") for n in range(7))
    assert End.EXCLUDED is fail(host, QUICK, excluded=(*others, mine)).end


def test_other_relying_party_excludes_nothing(host: KeyHost) -> None:
    """A credential of another relying party keeps no key from being enabled."""
    host.ports.plug()
    mine = enrolled(host)._replace(rp_id="pam://example")
    outcome = host.registrar.make(want(examine(host), begin(host), excluded=(mine,)), Event())
    assert isinstance(outcome, Made)


@pytest.mark.parametrize("pin", ["", "0000"])
def test_wrong_pin(host: KeyHost, pin: str) -> None:
    """A wrong PIN makes nothing; an empty one is not even tried (CVE-2021-31924)."""
    injected = host.ports.plug()
    set_pin(injected)
    outcome = fail(host, method=Method.PIN, pin=pin)
    assert (End.WRONG_PIN, -1 if not pin else 7) == (outcome.end, outcome.attempts_left)
    assert (8 if not pin else 7) == injected.key.memory.pin_retries


def test_right_pin(host: KeyHost) -> None:
    """The right PIN verifies the user."""
    set_pin(host.ports.plug())
    outcome = host.registrar.make(
        want(examine(host), begin(host), method=Method.PIN, pin=PIN), Event()
    )
    assert isinstance(outcome, Made)


def test_blocked_pin(host: KeyHost) -> None:
    """A PIN without attempts left is said to be blocked."""
    injected = host.ports.plug()
    set_pin(injected)
    injected.key.memory.pin_retries = 1
    assert End.PIN_BLOCKED is fail(host, method=Method.PIN, pin="0000").end


def test_no_discoverable_by_u2f(host: KeyHost) -> None:
    """A U2F key makes neither a discoverable credential nor one that verifies its user."""
    host.ports.plug(U2F_ONLY)
    assert End.UNSUPPORTED is fail(host, is_discoverable=True).end
    assert End.UNSUPPORTED is fail(host, method=Method.PIN, pin=PIN).end


def test_discoverable(host: KeyHost) -> None:
    """A discoverable credential lies on the key; a full key says so."""
    injected = host.ports.plug(Model(max_discoverable=1))
    wanted = want(examine(host), begin(host), is_discoverable=True)
    assert isinstance(host.registrar.make(wanted, Event()), Made)
    assert injected.key.memory.credentials[0].is_discoverable
    assert End.FULL is fail(host, QUICK, is_discoverable=True, user_handle=b"bob").end


def test_unsupported_algorithm(host: KeyHost) -> None:
    """A key that makes none of our kinds of credential says so."""
    host.ports.plug()
    assert End.UNSUPPORTED is fail(host, algorithms=(-257,)).end


@pytest.mark.parametrize(
    "fault", [Fault.GARBAGE, Fault.EMPTY, Fault.DEEP_CBOR, Fault.TRUNCATED_AUTH_DATA]
)
def test_garbage_makes_nothing(host: KeyHost, fault: Fault) -> None:
    """Whatever a key answers, there is an end to it."""
    injected = host.ports.plug()
    injected.faults.switch_on(fault, during=Command.MAKE_CREDENTIAL)
    assert End.FAULTY is fail(host, QUICK).end


def test_endless_keepalives_end(host: KeyHost) -> None:
    """A key that is busy for ever is left when the time for a touch is over."""
    injected = host.ports.plug()
    injected.faults.switch_on(Fault.ENDLESS_KEEPALIVES, during=Command.MAKE_CREDENTIAL)
    assert fail(host).end in {End.TIMED_OUT, End.FAULTY}


def test_pulled_out(host: KeyHost) -> None:
    """A key that is pulled out while it blinks is gone."""
    injected = host.ports.plug()
    injected.person.touch = Touch.WAIT
    wanted = want(examine(host), begin(host), seconds=60.0)
    timer = Timer(0.2, injected.unplug)
    timer.start()
    outcome = host.registrar.make(wanted, Event())
    timer.join()
    assert Untouched(End.GONE) == outcome


@pytest.mark.parametrize("model", [Model(), CTAP2_0, U2F_ONLY])
def test_choose(host: KeyHost, model: Model) -> None:
    """Of two keys that blink the one that is touched is chosen, and the other one stops."""
    host.ports.plug().person.touch = Touch.WAIT
    host.ports.plug(model, name="the other one").person.touch = Touch.YES
    reports = host.registrar.examine((), Event())
    chosen = host.registrar.choose(reports, 20.0, Event())
    assert chosen is not None
    assert "the other one" == chosen.key.name


def test_choose_none(host: KeyHost) -> None:
    """Without a touch none is chosen."""
    for model in (Model(), CTAP2_0, U2F_ONLY):
        host.ports.plug(model).person.touch = Touch.WAIT
    reports = host.registrar.examine((), Event())
    assert None is host.registrar.choose(reports, 0.3, Event())


def test_pin_is_not_shown(host: KeyHost) -> None:
    """What is asked of a key shows no PIN when it is printed."""
    host.ports.plug()
    wanted = want(examine(host), begin(host), method=Method.PIN, pin="secret")
    assert "secret" not in repr(wanted)
