# SPDX-License-Identifier: Apache-2.0
"""Each fault shows what its name says, and leaves the rest right."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from fido2.attestation.base import InvalidData
from fido2.attestation.base import InvalidSignature as InvalidStatement
from fido2.ctap import CtapError
from fido2.ctap2.base import AssertionResponse, Ctap2
from fido2.ctap2.pin import ClientPin
from fido2.hid import ConnectionFailure

from security_key.conftest import PlugIn
from security_key.ctap import Command
from security_key.faults import Fault
from security_key.host import (
    Flag,
    credential_of,
    list_id,
    pin_parameters,
    register,
    sign_in,
    verify_assertion,
    verify_attestation,
)
from security_key.injected import InjectedKey
from security_key.person import Touch

PIN = "1234"
ASSERT = ClientPin.PERMISSION.GET_ASSERTION


class Enrolled:
    """A key with a discoverable credential, a PIN, and a host that has it open."""

    def __init__(self, injected: InjectedKey) -> None:
        """Register while the key is still good."""
        self.injected = injected
        self.faults = injected.faults
        self.ctap = Ctap2(injected.connect())
        self.credential = credential_of(register(self.ctap, options={"rk": True}))
        ClientPin(self.ctap).set_pin(PIN)

    def sign_in(self, *, verified: bool = False, **more: Any) -> AssertionResponse:  # noqa: ANN401
        """Get an assertion, with a PIN or without."""
        parameters = pin_parameters(self.ctap, PIN, ASSERT) if verified else {}
        return sign_in(self.ctap, self.credential.credential_id, **parameters, **more)

    def verify(self, response: AssertionResponse) -> None:
        """Verify the signature by the key that was registered."""
        verify_assertion(response, self.credential.public_key)


@pytest.fixture
def enrolled(injected: InjectedKey) -> Enrolled:
    """A key that is enrolled somewhere."""
    return Enrolled(injected)


@pytest.mark.parametrize(
    "fault",
    [Fault.GARBAGE, Fault.EMPTY, Fault.UNKNOWN_STATUS, Fault.DEEP_CBOR, Fault.LONG_CBOR],
)
def test_answer_is_no_answer(enrolled: Enrolled, fault: Fault) -> None:
    """What is no CTAP answer is an error of some kind to python-fido2, and passes."""
    enrolled.faults.switch_on(fault)
    expected = (CtapError, ValueError, IndexError, KeyError, TypeError, RecursionError)
    with pytest.raises(expected):
        enrolled.sign_in()
    enrolled.faults.switch_off(fault)
    enrolled.verify(enrolled.sign_in())


def test_other_credential(enrolled: Enrolled) -> None:
    """A credential that nobody registered answers, well signed, to the silent question too."""
    enrolled.faults.switch_on(Fault.OTHER_CREDENTIAL)
    for options in ({"up": False}, {"up": True}):
        response = enrolled.sign_in(options=options)
        assert enrolled.credential.credential_id != response.credential["id"]
        with pytest.raises(InvalidSignature):
            enrolled.verify(response)


def test_credential_of_another_user(enrolled: Enrolled) -> None:
    """Asked for one user's credential, the key signs well with another's that it holds."""
    other = credential_of(register(enrolled.ctap, b"bob"))
    enrolled.faults.switch_on(Fault.OTHER_CREDENTIAL)
    response = enrolled.sign_in()
    verify_assertion(response, other.public_key)
    assert other.credential_id == response.credential["id"]


def test_unasked_credential_id(enrolled: Enrolled) -> None:
    """The right key signs, under an id that was not asked for."""
    enrolled.faults.switch_on(Fault.UNASKED_CREDENTIAL_ID)
    response = enrolled.sign_in()
    enrolled.verify(response)
    assert enrolled.credential.credential_id != response.credential["id"]


def test_wrong_rp_id_hash(enrolled: Enrolled) -> None:
    """The right key signs for somebody else."""
    right = enrolled.sign_in().auth_data.rp_id_hash
    enrolled.faults.switch_on(Fault.WRONG_RP_ID_HASH)
    response = enrolled.sign_in()
    enrolled.verify(response)
    assert right != response.auth_data.rp_id_hash


def test_wrong_user_handle(enrolled: Enrolled) -> None:
    """The right key signs, and names another user."""
    right = enrolled.sign_in().user
    enrolled.faults.switch_on(Fault.WRONG_USER_HANDLE)
    response = enrolled.sign_in()
    enrolled.verify(response)
    assert {"id": b"alice"} == right
    assert right != response.user


@pytest.mark.parametrize(
    ("fault", "flags"),
    [
        (Fault.NO_USER_PRESENCE, Flag.UV),
        (Fault.NO_USER_VERIFICATION, Flag.UP),
    ],
)
def test_missing_flag(enrolled: Enrolled, fault: Fault, flags: Flag) -> None:
    """After a touch and a PIN, the right key signs that one of them was not."""
    assert Flag.UP | Flag.UV == enrolled.sign_in(verified=True).auth_data.flags
    enrolled.faults.switch_on(fault)
    response = enrolled.sign_in(verified=True)
    enrolled.verify(response)
    assert flags == response.auth_data.flags


def test_bad_signature(enrolled: Enrolled) -> None:
    """All is as it should be, but the signature."""
    enrolled.faults.switch_on(Fault.BAD_SIGNATURE)
    response = enrolled.sign_in()
    assert enrolled.credential.credential_id == response.credential["id"]
    with pytest.raises(InvalidSignature):
        enrolled.verify(response)


@pytest.mark.parametrize(
    ("fault", "count"), [(Fault.SIGN_COUNT_BACK, 1), (Fault.SIGN_COUNT_ZERO, 0)]
)
def test_sign_count(enrolled: Enrolled, fault: Fault, count: int) -> None:
    """The right key signs a counter that was there before, every time."""
    assert enrolled.sign_in().auth_data.counter > 1
    enrolled.faults.switch_on(fault)
    responses = [enrolled.sign_in() for _ in range(2)]
    for response in responses:
        enrolled.verify(response)
    assert [count, count] == [response.auth_data.counter for response in responses]


def test_truncated_auth_data(enrolled: Enrolled) -> None:
    """Authenticator data ends within the relying party's hash."""
    enrolled.faults.switch_on(Fault.TRUNCATED_AUTH_DATA)
    with pytest.raises(Exception, match="Not enough data"):
        enrolled.sign_in()


def test_wrong_aaguid(enrolled: Enrolled) -> None:
    """A new credential is of another model than the certificate says."""
    enrolled.faults.switch_on(Fault.WRONG_AAGUID)
    response = register(enrolled.ctap, b"bob")
    with pytest.raises(InvalidData, match="AAGUID"):
        verify_attestation(response)


def test_bad_attestation_signature(enrolled: Enrolled) -> None:
    """A bad signature is one at registration too."""
    enrolled.faults.switch_on(Fault.BAD_SIGNATURE)
    response = register(enrolled.ctap, b"bob")
    with pytest.raises(InvalidStatement):
        verify_attestation(response)


@pytest.mark.parametrize("fault", [Fault.SHORT_PIN_TOKEN, Fault.BAD_KEY_AGREEMENT])
def test_pin_protocol_output(enrolled: Enrolled, fault: Fault) -> None:
    """What the PIN protocol gives cannot be worked with."""
    enrolled.faults.switch_on(fault)
    with pytest.raises(ValueError, match=r"."):
        enrolled.sign_in(verified=True)


def test_wrong_pin_token(enrolled: Enrolled) -> None:
    """A token looks like one, and is worth nothing to the key that gave it."""
    enrolled.faults.switch_on(Fault.WRONG_PIN_TOKEN)
    with pytest.raises(CtapError) as raised:
        enrolled.sign_in(verified=True)
    assert CtapError.ERR.PIN_AUTH_INVALID == raised.value.code


def test_hang(plug_in: PlugIn) -> None:
    """The key takes a command and never answers; only pulling it out helps."""
    enrolled = Enrolled(plug_in(patience=0.3))
    enrolled.faults.switch_on(Fault.HANG)
    before = enrolled.injected.counters["keepalives"]
    with pytest.raises(TimeoutError):
        enrolled.sign_in()
    assert before == enrolled.injected.counters["keepalives"]
    enrolled.injected.unplug()
    enrolled.injected.plug()
    enrolled.faults.switch_off()
    assert (
        Flag.UP
        == sign_in(
            Ctap2(enrolled.injected.connect()), enrolled.credential.credential_id
        ).auth_data.flags
    )


def test_mute(plug_in: PlugIn) -> None:
    """The key does not even give a channel."""
    key = plug_in(patience=0.1)
    key.faults.switch_on(Fault.MUTE)
    with pytest.raises(TimeoutError):
        key.connect()


def test_endless_keepalives(enrolled: Enrolled) -> None:
    """The key says for ever that it waits, is not moved by a touch, and is deaf to CANCEL."""
    enrolled.faults.switch_on(Fault.ENDLESS_KEEPALIVES)
    event = threading.Event()
    counters = enrolled.injected.counters
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(enrolled.sign_in, event=event, on_keepalive=lambda _: event.set())
        assert event.wait(10)
        before = counters["cancels"]
        while counters["cancels"] < before + 3:
            with pytest.raises(TimeoutError):
                future.result(0.05)
        enrolled.injected.unplug()
        with pytest.raises(OSError, match="unplugged"):
            future.result(10)


def test_oversized_message(enrolled: Enrolled) -> None:
    """An answer of 65,535 bytes, more than CTAPHID can number packets for."""
    enrolled.faults.switch_on(Fault.OVERSIZED_MESSAGE)
    answer = enrolled.ctap.device.call(0x10, b"\x04")
    assert 65535 == len(answer)


def test_wrong_channel(enrolled: Enrolled) -> None:
    """The answer goes to a channel that nobody has."""
    enrolled.faults.switch_on(Fault.WRONG_CHANNEL)
    with pytest.raises(ConnectionFailure, match="Wrong channel"):
        enrolled.ctap.get_info()


def test_busy_for_a_while(enrolled: Enrolled) -> None:
    """The key is busy and then is not; python-fido2 asks until it is answered."""
    errors = enrolled.injected.counters["errors"]
    enrolled.faults.switch_on(Fault.BUSY, seconds=0.05)
    enrolled.verify(enrolled.sign_in())
    assert enrolled.injected.counters["errors"] > errors


def test_during_one_command(enrolled: Enrolled) -> None:
    """A fault may show in one command alone."""
    enrolled.faults.switch_on(Fault.EMPTY, during=Command.GET_ASSERTION)
    assert enrolled.ctap.get_info().versions
    with pytest.raises(IndexError):
        enrolled.sign_in()


def test_good_again(enrolled: Enrolled) -> None:
    """With all faults switched off, the key is a good one."""
    enrolled.faults.switch_on(*Fault)
    enrolled.faults.switch_off()
    response = enrolled.sign_in(verified=True)
    enrolled.verify(response)
    assert Flag.UP | Flag.UV == response.auth_data.flags
    assert list_id(enrolled.credential.credential_id) == [response.credential]


def test_switched_on_while_waiting(enrolled: Enrolled) -> None:
    """A fault that is switched on while the person is waited for shows in that very answer."""
    enrolled.injected.person.touch = Touch.WAIT

    def spoil(_: object) -> None:
        enrolled.faults.switch_on(Fault.SIGN_COUNT_ZERO)
        enrolled.injected.person.touch = Touch.YES

    assert 0 == enrolled.sign_in(on_keepalive=spoil).auth_data.counter
