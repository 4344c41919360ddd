# SPDX-License-Identifier: Apache-2.0
"""A security key on its way to its user: the dialogue, the store, the record."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from doubles import SEED, STEP, code_of, make_layout
from ports import IMPATIENT, MODEL, PIN, QUICK, KeyHost, Ports, set_pin
from security_key.ctap import Command
from security_key.faults import Fault
from security_key.injected import InjectedKey
from security_key.model import CTAP2_0, FINGERPRINT, U2F_ONLY, CounterKind, Model
from security_key.person import Touch

from pam_mfa.audit import AuditLog, Reason
from pam_mfa.devices import DEVICES_MAX, FidoDevice
from pam_mfa.errors import (
    BrokenSystemError,
    KeyAccessError,
    KeyFaultError,
    RefusedError,
    StateError,
)
from pam_mfa.factors.security_key import client_data_hash
from pam_mfa.hardware.keys import Assertion, Credential, Holder, Method, Touched
from pam_mfa.hardware.keys import Touch as TouchAsked
from pam_mfa.key_enabling import name_from_product
from pam_mfa.lifecycle import DevicesChangedError, KeyWish, PendingKey
from pam_mfa.policy import Fido, SignCount, UserVerification
from pam_mfa.secret import Secret
from pam_mfa.store import Change, Claim

SERIAL = "fido/alice/yubikey-5-nfc"
TOUCH = "Touch the security key (YubiKey 5 NFC) to enable it for alice."
AGAIN = "Touch it once more, to prove that it works."
ASKED = "PIN of the security key (YubiKey 5 NFC): "


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyHost]:
    """A host with ports and an empty store."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    ports = Ports(monkeypatch)
    host = KeyHost(make_layout(tmp_path), ports)
    yield host
    host.store.close()
    ports.close()


def used_step(host: KeyHost, serial_number: str = SERIAL) -> int | None:
    """Return the sign count that is noted of a device."""
    state = host.store.read_devices([serial_number]).get(serial_number)
    return state.step if state else None


def test_two_touches(host: KeyHost) -> None:
    """Two touches enable a key; it is named after the product."""
    injected = host.ports.plug()
    device = host.enable()
    assert (SERIAL, "yubikey-5-nfc", "pam-mfa", MODEL, "") == (
        device.serial_number, device.name, device.rp_id, device.aaguid, device.user_verification,
    )  # fmt: skip
    assert [TOUCH, AGAIN] == host.told
    assert 2 == injected.counters["touches"]
    assert (device,) == host.lifecycle.list_devices("alice")


def test_record(host: KeyHost) -> None:
    """The record says who acted, which device it is and what the key says of its maker."""
    host.ports.plug()
    host.enable()
    record = host.records()[-1]
    expected = {
        "event_name": "EnableMfaDevice", "outcome": "success", "reason": "requested",
        "user": "alice", "caller_uid": 0, "caller_pid": 4321, "login_uid": 1000,
        "sign_count": 18, "detail": f"attestation: packed, certificate; model: {MODEL}",
        "device": {"serial_number": SERIAL, "type": "fido", "name": "yubikey-5-nfc"},
    }  # fmt: skip
    assert expected == {key: record[key] for key in expected}


def test_sign_count_is_kept(host: KeyHost) -> None:
    """The count of the second touch is the one that the next login must exceed."""
    injected = host.ports.plug()
    host.enable()
    assert injected.key.memory.sign_count == used_step(host)


def test_namesake_is_no_clone(host: KeyHost) -> None:
    """A new key under an old one's name begins with its own count."""
    host.ports.plug(Model(first_sign_count=500))
    host.enable(wish=KeyWish("key"))
    host.lifecycle.deactivate("alice", "fido/alice/key", leave_none=True)
    host.ports.close()
    host.ports.plugged.clear()
    host.ports.plug(Model(first_sign_count=3))
    host.enable(wish=KeyWish("key"))
    assert 5 == used_step(host, "fido/alice/key")


def test_deactivated_key_is_enabled_again(host: KeyHost) -> None:
    """A key that was taken from its user can come back, by a new credential."""
    host.ports.plug()
    first = host.enable()
    host.lifecycle.deactivate("alice", SERIAL, leave_none=True)
    assert first.credential_id != host.enable().credential_id


@pytest.mark.parametrize("model", [CTAP2_0, U2F_ONLY, FINGERPRINT, Model(algorithms=(-8,))])
def test_models(host: KeyHost, model: Model) -> None:
    """Keys of every kind are enabled."""
    host.ports.plug(model)
    assert SERIAL == host.enable().serial_number


@pytest.mark.parametrize("kind", list(CounterKind))
def test_counters(host: KeyHost, kind: CounterKind) -> None:
    """Keys that count in all, and keys that count each credential, are enabled."""
    host.ports.plug(Model(sign_counter=kind))
    assert SERIAL == host.enable().serial_number


def test_key_without_a_counter(host: KeyHost) -> None:
    """A key whose count is always 0 is enabled."""
    host.ports.plug().faults.switch_on(Fault.SIGN_COUNT_ZERO)
    host.enable()
    assert 0 == used_step(host)


def test_one_key_for_two_users(host: KeyHost) -> None:
    """One key may serve several users, each by a credential of its own."""
    host.ports.plug()
    alice, bob = host.enable(), host.enable("bob")
    assert alice.credential_id != bob.credential_id
    enrolled = host.lifecycle.enrolled_keys()
    assert {"alice", "bob"} == {user for owners in enrolled.values() for user, _ in owners}


def test_same_key_again(host: KeyHost) -> None:
    """A key that the user has is not enabled twice, and the user is told whose it is."""
    host.ports.plug()
    host.enable()
    with pytest.raises(RefusedError, match="is enabled for alice already"):
        host.enable()
    assert 1 == len(host.lifecycle.list_devices("alice"))


def test_second_key_of_a_product(host: KeyHost) -> None:
    """Two keys of one product have two names."""
    first, second = host.ports.plug(), host.ports.plug()
    second.person.touch = Touch.WAIT
    one = host.enable()
    first.person.touch, second.person.touch = Touch.WAIT, Touch.YES
    two = host.enable()
    assert ("yubikey-5-nfc", "yubikey-5-nfc-2") == (one.name, two.name)
    assert "Several security keys are attached: touch the one to enable." == host.told[0]


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("YubiKey 5 NFC", "yubikey-5-nfc"),
        ("Yubico YubiKey OTP+FIDO+CCID", "yubico-yubikey-otp-fido-ccid"),
        ("", "security-key"),
        ("///..", "security-key"),
        ("\u00e9\u00e8", "security-key"),
        ("a" * 60, "a" * 40),
        (f"{'a' * 39} b", "a" * 39),
        ("../../etc/passwd", "etc-passwd"),
    ],
)
def test_name_from_product(product: str, name: str) -> None:
    """A name is made of whatever a key calls itself, and is always one."""
    assert name == name_from_product(product)


def test_name_is_taken(host: KeyHost) -> None:
    """A name that a device of the user has is refused before anybody touches anything."""
    injected = host.ports.plug()
    host.enable(wish=KeyWish("key"))
    with pytest.raises(RefusedError, match="named key already"):
        host.enable(wish=KeyWish("key"))
    assert 2 == injected.counters["touches"]


def test_eight_devices(host: KeyHost) -> None:
    """A user with eight devices gets no ninth."""
    injected = host.ports.plug()
    for number in range(DEVICES_MAX):
        seed = Secret(bytes((number,)) * 20)
        pending = host.lifecycle.begin_virtual("alice", f"phone-{number}", seed=seed)
        host.lifecycle.enable(pending, code_of(seed, STEP), code_of(seed, STEP + 1))
    with pytest.raises(RefusedError, match="8 devices"):
        host.enable()
    assert 0 == injected.counters["touches"]


def test_no_key(host: KeyHost) -> None:
    """Without a key there is an invitation, a wait and an end."""
    with pytest.raises(RefusedError, match="no security key is attached"):
        host.enable(fido=IMPATIENT)
    assert ["Attach the security key within 0 seconds."] == host.told


def test_key_is_attached_when_asked(host: KeyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is attached when it is asked for is enabled."""

    def plug(_seconds: float) -> object:
        host.ports.plug()
        return host.ports.list_keys()

    monkeypatch.setattr("pam_mfa.hardware.registration.wait_for_key", plug)
    assert SERIAL == host.enable().serial_number


def test_closed_node(host: KeyHost) -> None:
    """A key that may not be opened says so, with the way out and exit status 3."""
    host.ports.plug()
    host.ports.is_closed = True
    with pytest.raises(KeyAccessError) as raised:
        host.enable()
    assert (3, "Install the udev rule.") == (raised.value.exit_status, raised.value.hint)


def test_broken_key_beside_a_good_one(host: KeyHost) -> None:
    """A key that cannot be asked is told of, and the other one is enabled."""
    host.ports.plug(name="Broken").faults.switch_on(Fault.GARBAGE)
    host.ports.plug()
    assert SERIAL == host.enable().serial_number
    assert "The security key Broken (/dev/hidraw0) answered garbage" in host.told[0]


def test_broken_key_alone(host: KeyHost) -> None:
    """A key that cannot be asked, and no other, is the end."""
    host.ports.plug().faults.switch_on(Fault.GARBAGE)
    with pytest.raises(KeyFaultError):
        host.enable()


def test_no_choice(host: KeyHost) -> None:
    """Of two keys none is touched: none is enabled."""
    for _ in range(2):
        host.ports.plug().person.touch = Touch.WAIT
    with pytest.raises(RefusedError, match="no security key was touched"):
        host.enable(fido=IMPATIENT)


@pytest.mark.parametrize("touch", [Touch.WAIT, Touch.ONCE, Touch.NO])
def test_touch_that_does_not_come(host: KeyHost, touch: Touch) -> None:
    """Without both touches nothing is enabled, and the key can be enabled afterwards."""
    injected = host.ports.plug()
    injected.person.touch = touch
    with pytest.raises(RefusedError, match="nothing was enabled"):
        host.enable(fido=IMPATIENT)
    assert () == host.lifecycle.list_devices("alice")
    injected.person.touch = Touch.YES
    assert SERIAL == host.enable().serial_number


def test_pulled_out_between_the_touches(host: KeyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is pulled out between the touches is not enabled."""
    injected = host.ports.plug()
    accept = host.lifecycle.accept_registration

    def pull_out(*arguments: object) -> PendingKey:
        accepted: PendingKey = accept(*arguments)  # type: ignore[arg-type]
        injected.unplug()
        return accepted

    monkeypatch.setattr(host.lifecycle, "accept_registration", pull_out)
    with pytest.raises(RefusedError, match="was pulled out"):
        host.enable()
    assert () == host.lifecycle.list_devices("alice")


@pytest.mark.parametrize(
    ("fault", "during"),
    [
        (Fault.WRONG_RP_ID_HASH, Command.MAKE_CREDENTIAL),
        (Fault.NO_USER_PRESENCE, Command.MAKE_CREDENTIAL),
        (Fault.BAD_SIGNATURE, Command.MAKE_CREDENTIAL),
        (Fault.WRONG_AAGUID, Command.MAKE_CREDENTIAL),
        (Fault.WRONG_RP_ID_HASH, Command.GET_ASSERTION),
        (Fault.NO_USER_PRESENCE, Command.GET_ASSERTION),
        (Fault.BAD_SIGNATURE, Command.GET_ASSERTION),
        (Fault.SIGN_COUNT_BACK, Command.GET_ASSERTION),
        (Fault.UNASKED_CREDENTIAL_ID, Command.GET_ASSERTION),
    ],
)
def test_lies(host: KeyHost, fault: Fault, during: Command) -> None:
    """A key that lies at either touch is not enabled, and that is recorded."""
    host.ports.plug().faults.switch_on(fault, during=during)
    with pytest.raises(RefusedError, match="the security key was refused"):
        host.enable()
    record = host.records()[-1]
    assert ("EnableMfaDevice", "denied", "unproven_registration", "alice") == (
        record["event_name"], record["outcome"], record["reason"], record["user"],
    )  # fmt: skip
    assert () == host.lifecycle.list_devices("alice")
    assert None is used_step(host)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.GARBAGE, Fault.EMPTY, Fault.UNKNOWN_STATUS, Fault.DEEP_CBOR, Fault.LONG_CBOR,
        Fault.TRUNCATED_AUTH_DATA,
    ],
)  # fmt: skip
@pytest.mark.parametrize("during", [Command.MAKE_CREDENTIAL, Command.GET_ASSERTION])
def test_garbage(host: KeyHost, fault: Fault, during: Command) -> None:
    """A key that answers garbage at either touch is not enabled."""
    host.ports.plug().faults.switch_on(fault, during=during)
    with pytest.raises(RefusedError, match="nothing was enabled"):
        host.enable()
    assert () == host.lifecycle.list_devices("alice")


def test_counter_that_goes_back_may_only_warn(host: KeyHost) -> None:
    """Where policy only warns of counters, such a key is enabled."""
    injected = host.ports.plug()
    injected.faults.switch_on(Fault.SIGN_COUNT_BACK, during=Command.GET_ASSERTION)
    host.enable(fido=QUICK._replace(sign_count=SignCount.WARN))
    assert 1 == used_step(host)


def test_required_verification(host: KeyHost) -> None:
    """Where policy requires it, the PIN is asked for once and goes with both touches."""
    injected = host.ports.plug()
    set_pin(injected)
    fido = QUICK._replace(user_verification=UserVerification.REQUIRED)
    device = host.enable(fido=fido, answers=[PIN])
    assert [ASKED, TOUCH, AGAIN] == host.told
    assert "" == device.user_verification


def test_wished_verification(host: KeyHost) -> None:
    """A wish for this credential alone is kept with it."""
    set_pin(host.ports.plug())
    wish = KeyWish(must_verify_user=True)
    assert "required" == host.enable(wish=wish, answers=[PIN]).user_verification


@pytest.mark.parametrize("fault", [Command.MAKE_CREDENTIAL, Command.GET_ASSERTION])
def test_verification_that_is_claimed_only(host: KeyHost, fault: Command) -> None:
    """Where it is required, a key that did not verify its user is refused, at either touch."""
    injected = host.ports.plug()
    set_pin(injected)
    injected.faults.switch_on(Fault.NO_USER_VERIFICATION, during=fault)
    with pytest.raises(RefusedError, match="did not verify its user"):
        host.enable(wish=KeyWish(must_verify_user=True), answers=[PIN])


def test_preferred_verification(host: KeyHost) -> None:
    """Where policy prefers it, a key with a PIN is asked for it, and one without is not."""
    fido = QUICK._replace(user_verification=UserVerification.PREFERRED)
    injected = host.ports.plug()
    host.enable(fido=fido)
    set_pin(injected)
    host.told.clear()
    host.enable("bob", fido, answers=[PIN])
    assert ASKED == host.told[0]


def test_older_key_needs_its_pin_once(host: KeyHost) -> None:
    """A CTAP 2.0 key with a PIN wants it for the credential; the touch after needs none."""
    injected = host.ports.plug(CTAP2_0)
    set_pin(injected)
    host.enable(answers=[PIN])
    assert [ASKED, TOUCH, AGAIN] == host.told
    assert 2 == injected.counters["touches"]


def test_key_that_insists(host: KeyHost) -> None:
    """A key that always verifies its user is asked for its PIN, whatever policy says."""
    set_pin(host.ports.plug(Model(always_uv=True)))
    host.enable(answers=[PIN])
    assert ASKED == host.told[0]


@pytest.mark.parametrize("model", [Model(), Model(always_uv=True), U2F_ONLY])
def test_no_pin(host: KeyHost, model: Model) -> None:
    """A key without a PIN is refused where one is required, before a touch, with the way out."""
    injected = host.ports.plug(model)
    with pytest.raises(RefusedError, match="has no PIN, and one is required") as raised:
        host.enable(wish=KeyWish(must_verify_user=True))
    way = "fido2-token -S /dev/hidraw0" if model.speaks_ctap2 else "U2F key"
    assert way in raised.value.hint
    assert 0 == injected.counters["touches"]


def test_wrong_pins(host: KeyHost) -> None:
    """A wrong PIN says what is left; an empty one is not tried; the third try may be right."""
    injected = host.ports.plug()
    set_pin(injected)
    host.enable(wish=KeyWish(must_verify_user=True), answers=["0000", "", PIN])
    wrong = (
        "Wrong PIN of the security key (YubiKey 5 NFC); 7 attempts left before the key blocks "
        "itself."
    )
    empty = "The PIN is empty, so it was not tried."
    assert [ASKED, TOUCH, wrong, ASKED, empty, ASKED, TOUCH, AGAIN] == host.told
    assert 8 == injected.key.memory.pin_retries


def test_three_wrong_pins(host: KeyHost) -> None:
    """After three wrong PINs in a row the key wants to be pulled out; nobody is asked again."""
    set_pin(host.ports.plug())
    with pytest.raises(RefusedError, match="pull your security key"):
        host.enable(wish=KeyWish(must_verify_user=True), answers=["0000"] * 3)


def test_blocked_pin(host: KeyHost) -> None:
    """A blocked PIN is said to be blocked."""
    injected = host.ports.plug()
    set_pin(injected)
    injected.key.memory.pin_retries = 1
    with pytest.raises(RefusedError, match="is blocked"):
        host.enable(wish=KeyWish(must_verify_user=True), answers=["0000"])


def test_empty_pins(host: KeyHost) -> None:
    """Three empty PINs are the end (CVE-2021-31924)."""
    injected = host.ports.plug()
    set_pin(injected)
    with pytest.raises(RefusedError, match="was not accepted"):
        host.enable(wish=KeyWish(must_verify_user=True), answers=[""] * 3)
    assert (8, []) == (injected.key.memory.pin_retries, injected.key.memory.credentials)


def test_no_answer(host: KeyHost) -> None:
    """Whoever goes away instead of typing the PIN has enabled nothing."""
    set_pin(host.ports.plug())
    with pytest.raises(RefusedError, match="there was no answer"):
        host.enable(wish=KeyWish(must_verify_user=True), answers=[Reason.ABANDONED])


def test_fingerprint(host: KeyHost) -> None:
    """A key with a fingerprint reader is not asked for a PIN."""
    set_pin(host.ports.plug(FINGERPRINT))
    host.enable(wish=KeyWish(must_verify_user=True))
    assert [TOUCH, AGAIN] == host.told


def test_wrong_finger(host: KeyHost) -> None:
    """A finger that is not recognized leads to the PIN, which then serves both touches."""
    injected = host.ports.plug(FINGERPRINT)
    set_pin(injected)
    injected.person.is_finger_right = False
    host.enable(wish=KeyWish(must_verify_user=True), answers=[PIN])
    unknown = "Your security key (YubiKey 5 NFC) did not recognize you."
    assert [TOUCH, unknown, ASKED, TOUCH, AGAIN] == host.told


def test_discoverable(host: KeyHost) -> None:
    """A wish for a discoverable credential is kept to; it needs the PIN of a key that has one."""
    injected = host.ports.plug()
    set_pin(injected)
    host.enable(wish=KeyWish(is_discoverable=True), answers=[PIN])
    assert [True] == [one.is_discoverable for one in injected.key.memory.credentials]


@pytest.mark.parametrize("model", [Model(resident_keys=False), U2F_ONLY])
def test_no_discoverable(host: KeyHost, model: Model) -> None:
    """A key that keeps no credentials says so before a touch."""
    injected = host.ports.plug(model)
    with pytest.raises(RefusedError, match="cannot keep discoverable credentials"):
        host.enable(wish=KeyWish(is_discoverable=True))
    assert 0 == injected.counters["touches"]


def test_full_key(host: KeyHost) -> None:
    """A key without room says so."""
    host.ports.plug(Model(max_discoverable=0))
    with pytest.raises(RefusedError, match="has no room"):
        host.enable(wish=KeyWish(is_discoverable=True))


def touch_twice(host: KeyHost, injected: InjectedKey) -> tuple[PendingKey, Assertion]:
    """Have a key touched twice, and enable nothing yet."""
    pending = host.lifecycle.begin_fido("alice", QUICK)
    made = host.register(injected, pending)
    accepted = host.lifecycle.accept_registration(pending, made, "Key")
    return accepted, sign(host, accepted)


def sign(host: KeyHost, accepted: PendingKey) -> Assertion:
    """Have the only key touched for the second time."""
    assert accepted.device is not None
    (attached,) = host.ports.list_keys()
    credential = Credential(accepted.device.credential_id, accepted.device.rp_id)
    asked = client_data_hash(accepted.proof)
    outcome = host.keys.touch(
        TouchAsked((Holder(attached, credential),), asked, Method.NONE), Event()
    )
    assert isinstance(outcome, Touched)
    return outcome.assertion


def test_one_registration_enables_once(host: KeyHost) -> None:
    """The same two touches do not enable a second device, for nobody."""
    accepted, assertion = touch_twice(host, host.ports.plug())
    host.lifecycle.enable_fido(accepted, assertion)
    assert accepted.device is not None
    again = accepted._replace(device=accepted.device._replace(name="b", serial_number="fido/a/b"))
    with pytest.raises(RefusedError, match="enabled on this host already"):
        host.lifecycle.enable_fido(again, assertion)


def test_credential_of_somebody_else(host: KeyHost) -> None:
    """A credential that is enabled for one user is accepted for no other."""
    injected = host.ports.plug()
    pending = host.lifecycle.begin_fido("alice", QUICK)
    made = host.register(injected, pending)
    accepted = host.lifecycle.accept_registration(pending, made)
    host.lifecycle.enable_fido(accepted, sign(host, accepted))
    with pytest.raises(RefusedError, match="enabled on this host already"):
        host.lifecycle.accept_registration(pending._replace(user="bob"), made)


def test_first_touch_is_not_the_second(host: KeyHost) -> None:
    """What was not judged at the first touch is not enabled at the second."""
    accepted, assertion = touch_twice(host, host.ports.plug())
    with pytest.raises(RefusedError, match="has not been judged"):
        host.lifecycle.enable_fido(accepted._replace(device=None), assertion)


def test_proof_of_another_ceremony(host: KeyHost) -> None:
    """An assertion for another challenge proves nothing."""
    accepted, assertion = touch_twice(host, host.ports.plug())
    other = accepted._replace(proof=accepted.proof._replace(challenge=bytes(32)))
    with pytest.raises(RefusedError, match="its signature is wrong"):
        host.lifecycle.enable_fido(other, assertion)


def test_name_taken_meanwhile(host: KeyHost) -> None:
    """A name that was taken between the touches is not given twice."""
    accepted, assertion = touch_twice(host, host.ports.plug())
    pending = host.lifecycle.begin_virtual("alice", "key", seed=SEED)
    host.lifecycle.enable(pending, code_of(SEED, STEP), code_of(SEED, STEP + 1))
    with pytest.raises(RefusedError, match="named key already"):
        host.lifecycle.enable_fido(accepted, assertion)


def test_devices_changed_meanwhile(host: KeyHost) -> None:
    """What was begun without a device is not finished beside the user's first one."""
    accepted, assertion = touch_twice(host, host.ports.plug())
    pending = host.lifecycle.begin_virtual("alice", "phone", seed=SEED)
    host.lifecycle.enable(pending, code_of(SEED, STEP), code_of(SEED, STEP + 1))
    with pytest.raises(DevicesChangedError):
        host.lifecycle.enable_fido(accepted._replace(beside=frozenset()), assertion)
    assert 1 == len(host.lifecycle.list_devices("alice"))
    host.lifecycle.enable_fido(
        accepted._replace(beside=frozenset(("virtual/alice/phone",))), assertion
    )


def test_no_device_without_its_file(host: KeyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file cannot be written the credential is free again."""
    accepted, assertion = touch_twice(host, host.ports.plug())

    def refuse(*_: object) -> None:
        raise BrokenSystemError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(host.store.documents, "write", refuse)
        with pytest.raises(BrokenSystemError):
            host.lifecycle.enable_fido(accepted, assertion)
    assert () == host.lifecycle.list_devices("alice")
    host.lifecycle.enable_fido(accepted, assertion)


def test_no_device_without_its_record(host: KeyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the record cannot be made there is no device."""
    accepted, assertion = touch_twice(host, host.ports.plug())
    commit = host.store.commit

    def refuse(claims: list[Claim]) -> list[Change]:
        if claims[0].inventory is None:
            raise StateError("the disk is full")
        return commit(claims)

    monkeypatch.setattr(host.store, "commit", refuse)
    with pytest.raises(StateError):
        host.lifecycle.enable_fido(accepted, assertion)
    assert () == host.lifecycle.list_devices("alice")


def test_nothing_is_done_without_a_log(host: KeyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no record could be written nothing is enabled."""
    accepted, assertion = touch_twice(host, host.ports.plug())

    def refuse(_: AuditLog) -> None:
        raise BrokenSystemError("the log is a directory")

    monkeypatch.setattr(AuditLog, "require_usable", refuse)
    with pytest.raises(BrokenSystemError):
        host.lifecycle.enable_fido(accepted, assertion)
    assert ((), None) == (host.lifecycle.list_devices("alice"), used_step(host, "fido/alice/key"))


def test_enabled_key_is_found_and_verifies(host: KeyHost) -> None:
    """What was enabled is what a look finds, and its device file reads back."""
    host.ports.plug()
    device = host.enable()
    sight = host.keys.look((Credential(device.credential_id, device.rp_id),), Event())
    assert 1 == len(sight.holders)
    enrollment = host.store.read_enrollment("alice")
    assert (device,) == enrollment.security_keys
    assert isinstance(enrollment.security_keys[0], FidoDevice)


def test_fido_has_defaults(host: KeyHost) -> None:
    """Without a policy the API asks for a touch and no PIN."""
    pending = host.lifecycle.begin_fido("alice")
    assert (Fido(), False) == (pending.fido, pending.must_verify_user)
