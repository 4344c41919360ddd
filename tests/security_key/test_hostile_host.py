# SPDX-License-Identifier: Apache-2.0
"""Whatever a host sends, the key answers or is silent; it does not break."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security_key.attestation import make_attestation
from security_key.cbor import Item, encode
from security_key.ctap import Command
from security_key.ctaphid import BROADCAST, FIRST_CHANNEL, PACKET, Engine, Hid, frame
from security_key.exchange import Gesture, finish
from security_key.key import SecurityKey
from security_key.memory import Memory
from security_key.model import FINGERPRINT
from security_key.pin_protocol import PinProtocol
from security_key.status import Status
from security_key.u2f import Word
from security_key.uhid import EVENT, encode_create

ATTESTATION = make_attestation(bytes(16))  # made once: it takes the most time
CHANNELS = st.sampled_from([0, FIRST_CHANNEL, FIRST_CHANNEL + 1, BROADCAST])
STATUSES = {int(status) for status in Status}
NAMES = st.sampled_from(
    ["id", "name", "type", "alg", "public-key", "rk", "up", "uv", "credProtect"]
)
LEAVES = st.one_of(st.integers(-300, 300), st.booleans(), st.binary(max_size=80), NAMES)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=4),
        st.dictionaries(st.sampled_from([1, 3, -1, -2, -3]), inner, max_size=5),
    ),
    max_leaves=6,
)
GESTURES = st.sampled_from(Gesture)
CHANGES = st.dictionaries(st.integers(1, 10), VALUES, max_size=1)
DESCRIPTORS: Item = [{"id": bytes(64), "type": "public-key"}]
POINT: Item = PinProtocol().public_key
GOOD: dict[Command, dict[int, Item]] = {
    Command.MAKE_CREDENTIAL: {
        1: bytes(32),
        2: {"id": "example.org"},
        3: {"id": b"alice"},
        4: [{"alg": -7, "type": "public-key"}],
        5: DESCRIPTORS,
        6: {"credProtect": 2},
        7: {"rk": True, "uv": True},
    },
    Command.GET_ASSERTION: {1: "example.org", 2: bytes(32), 3: DESCRIPTORS, 5: {"uv": True}},
    Command.CLIENT_PIN: {1: 2, 2: 9, 3: POINT, 6: bytes(32), 9: 3, 10: "example.org"},
}


def new_key() -> SecurityKey:
    """Return a key with a finger sensor."""
    return SecurityKey(FINGERPRINT, Memory(ATTESTATION, sign_count=1))


@given(st.sampled_from(Command), st.dictionaries(st.integers(1, 10), VALUES), GESTURES)
def test_parameters(command: Command, parameters: dict[int, Item], gesture: Gesture) -> None:
    """A command with any parameters ends with a status of CTAP's."""
    request = bytes((command,)) + encode(parameters)
    assert finish(new_key().authenticator.run(request), gesture)[0] in STATUSES


@given(st.sampled_from(list(GOOD)), st.integers(1, 10), CHANGES, GESTURES)
def test_one_bad_parameter(
    command: Command, left_out: int, changed: dict[int, Item], gesture: Gesture
) -> None:
    """A good command with parameters changed or left out ends with a status of CTAP's."""
    parameters = {key: value for key, value in GOOD[command].items() if key != left_out} | changed
    request = bytes((command,)) + encode(parameters)
    assert finish(new_key().authenticator.run(request), gesture)[0] in STATUSES


@pytest.mark.parametrize("command", list(GOOD))
def test_good_parameters(command: Command) -> None:
    """What the test before spoils is good, but that the key holds nothing and has no PIN."""
    answer = finish(new_key().authenticator.run(bytes((command,)) + encode(GOOD[command])))
    expected = {
        Command.MAKE_CREDENTIAL: Status.SUCCESS,
        Command.GET_ASSERTION: Status.NO_CREDENTIALS,
        Command.CLIENT_PIN: Status.PIN_NOT_SET,
    }
    assert expected[command] == answer[0]


@given(st.binary(max_size=200), GESTURES)
def test_no_cbor(request: bytes, gesture: Gesture) -> None:
    """Any bytes end with a status of CTAP's."""
    assert finish(new_key().authenticator.run(request), gesture)[0] in STATUSES


@given(st.binary(max_size=200), GESTURES)
def test_no_apdu(message: bytes, gesture: Gesture) -> None:
    """Any bytes end with a status word of U2F's."""
    answer = finish(new_key().u2f.run(message), gesture)
    assert int.from_bytes(answer[-2:], "big") in set(Word)


@given(st.lists(st.tuples(CHANNELS, st.binary(max_size=60)), max_size=12))
def test_packets(packets: list[tuple[int, bytes]]) -> None:
    """Any packets are answered by whole packets, and plugged in anew the key is as good as new."""
    engine = Engine(new_key())
    (init,) = frame(BROADCAST, Hid.INIT, b"12345678")
    engine.receive(init)
    for channel, body in packets:
        answers = engine.receive(channel.to_bytes(4, "big") + body.ljust(PACKET - 4, b"\0"))
        assert {PACKET} >= {len(answer) for answer in answers}
    engine.power_cycle()
    engine.receive(init)
    channel = FIRST_CHANNEL + engine.key.counters["channels"] - 1
    (ping,) = frame(channel, Hid.PING, b"there?")
    assert [ping] == engine.receive(ping)


@pytest.mark.parametrize("size", [0, 1, 63, 65])
def test_length_of_a_packet(size: int) -> None:
    """What is no packet is not answered."""
    assert [] == Engine(new_key()).receive(bytes(size))


def test_uhid_event_has_the_kernel_s_size() -> None:
    """What makes the device is as long as struct uhid_event."""
    assert EVENT == len(encode_create(FINGERPRINT))
