# SPDX-License-Identifier: Apache-2.0
"""CTAPHID packet by packet, by a clock of the test's own."""

import pytest

from security_key.ctaphid import BROADCAST, LONGEST, PACKET, Engine, Hid, frame
from security_key.injected import InjectedKey
from security_key.key import SecurityKey
from security_key.model import Model
from security_key.person import Touch
from security_key.status import Status

NONCE = b"12345678"
GET_INFO, SELECTION = b"\x04", b"\x0b"


class Clock:
    """A clock that goes on when told."""

    def __init__(self) -> None:
        """Begin at some time."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Bench:
    """An engine, its clock, and words for what a host does."""

    def __init__(self, model: Model | None = None) -> None:
        """Plug a key in."""
        self.clock = Clock()
        self.key = SecurityKey(model, clock=self.clock)
        self.engine = Engine(self.key)

    def send(self, channel: int, command: int, data: bytes = b"") -> list[tuple[int, int, bytes]]:
        """Send a message and return what comes at once."""
        answers: list[bytes] = []
        for packet in frame(channel, command, data):
            answers += self.engine.receive(packet)
        return join(answers)

    def open(self) -> int:
        """Return a new channel."""
        ((_, _, data),) = self.send(BROADCAST, Hid.INIT, NONCE)
        return int.from_bytes(data[8:12], "big")

    def after(self, seconds: float) -> list[tuple[int, int, bytes]]:
        """Return what comes after some seconds."""
        self.clock.now += seconds
        return join(self.engine.tick())


def join(packets: list[bytes]) -> list[tuple[int, int, bytes]]:
    """Return messages as channel, command and data."""
    found: list[tuple[int, int, bytes]] = []
    sizes: list[int] = []
    for packet in packets:
        assert PACKET == len(packet)
        channel = int.from_bytes(packet[:4], "big")
        if packet[4] & 0x80:
            sizes.append(int.from_bytes(packet[5:7], "big"))
            found.append((channel, packet[4] & 0x7F, packet[7:]))
        else:
            found[-1] = (*found[-1][:2], found[-1][2] + packet[5:])
    return [(*each[:2], each[2][:size]) for each, size in zip(found, sizes, strict=True)]


def error(channel: int, status: Status) -> list[tuple[int, int, bytes]]:
    """Return an error as it comes."""
    return [(channel, Hid.ERROR, bytes((status,)))]


@pytest.fixture
def bench() -> Bench:
    """The usual key, whose person waits to be told."""
    bench = Bench()
    bench.key.person.touch = Touch.WAIT
    return bench


def test_init(bench: Bench) -> None:
    """INIT repeats the nonce, and gives each host a channel of its own."""
    ((channel, command, data),) = bench.send(BROADCAST, Hid.INIT, NONCE)
    assert (BROADCAST, Hid.INIT, NONCE, 17) == (channel, command, data[:8], len(data))
    assert bench.open() != bench.open()


@pytest.mark.parametrize("size", [0, 1, 57, 58, 200, LONGEST])
def test_ping(bench: Bench, size: int) -> None:
    """A message of any size comes back whole."""
    channel, data = bench.open(), bytes(number % 251 for number in range(size))
    assert [(channel, Hid.PING, data)] == bench.send(channel, Hid.PING, data)


def test_too_long(bench: Bench) -> None:
    """A message longer than packets can be numbered is refused by its first packet."""
    channel = bench.open()
    packet = next(frame(channel, Hid.PING, b"", LONGEST + 1))
    assert error(channel, Status.INVALID_LENGTH) == join(bench.engine.receive(packet))


@pytest.mark.parametrize("channel", [0, BROADCAST, 0x12345678])
def test_unknown_channel(bench: Bench, channel: int) -> None:
    """On a channel that nobody was given, nothing but INIT for all is answered."""
    assert error(channel, Status.INVALID_CHANNEL) == bench.send(channel, Hid.PING)


def test_unknown_command(bench: Bench) -> None:
    """A command that CTAPHID does not have is refused."""
    channel = bench.open()
    assert error(channel, Status.INVALID_COMMAND) == bench.send(channel, 0x55)


def test_wink(bench: Bench) -> None:
    """A wink is answered and counted."""
    channel = bench.open()
    assert [(channel, Hid.WINK, b"")] == bench.send(channel, Hid.WINK)
    assert 1 == bench.key.counters["wink"]


def test_wrong_sequence(bench: Bench) -> None:
    """A packet out of turn ends the message."""
    channel = bench.open()
    packets = list(frame(channel, Hid.PING, bytes(200)))
    assert [] == bench.engine.receive(packets[0])
    assert error(channel, Status.INVALID_SEQ) == join(bench.engine.receive(packets[2]))
    assert [] == bench.engine.receive(packets[1])


def test_rest_does_not_come(bench: Bench) -> None:
    """A message whose rest does not come is given up, and another host may go on."""
    channel, other = bench.open(), bench.open()
    bench.engine.receive(next(frame(channel, Hid.PING, bytes(200))))
    assert error(other, Status.CHANNEL_BUSY) == bench.send(other, Hid.PING)
    assert error(channel, Status.TIMEOUT) == bench.after(0.5)
    assert [(other, Hid.PING, b"")] == bench.send(other, Hid.PING)


def test_init_begins_anew(bench: Bench) -> None:
    """INIT on a channel ends what was under way there and keeps the channel."""
    channel = bench.open()
    bench.send(channel, Hid.CBOR, SELECTION)
    ((_, _, data),) = bench.send(channel, Hid.INIT, NONCE)
    assert channel.to_bytes(4, "big") == data[8:12]
    assert [] == bench.after(1)
    assert [(channel, Hid.PING, b"")] == bench.send(channel, Hid.PING)


def test_busy(bench: Bench) -> None:
    """While one host waits for a touch, others get a channel but are told to wait."""
    channel, other = bench.open(), bench.open()
    bench.send(channel, Hid.CBOR, SELECTION)
    assert error(other, Status.CHANNEL_BUSY) == bench.send(other, Hid.CBOR, GET_INFO)
    bench.key.person.touch = Touch.YES
    assert (channel, Hid.CBOR, b"\x00") == bench.after(0.01)[-1]
    assert Hid.CBOR == bench.send(other, Hid.CBOR, GET_INFO)[0][1]


def test_keepalives(bench: Bench) -> None:
    """A keepalive comes at once and then every tenth of a second, until the key gives up."""
    channel = bench.open()
    keepalive = (channel, Hid.KEEPALIVE, b"\x02")
    assert [keepalive] == bench.send(channel, Hid.CBOR, SELECTION)
    assert [] == bench.after(0.05)
    assert [keepalive] == bench.after(0.06)
    assert (channel, Hid.CBOR, bytes((Status.USER_ACTION_TIMEOUT,))) == bench.after(30)[-1]


def test_cancel(bench: Bench) -> None:
    """CANCEL has no answer of its own, and only the host that waits can cancel."""
    channel, other = bench.open(), bench.open()
    bench.send(channel, Hid.CBOR, SELECTION)
    assert [] == bench.send(other, Hid.CANCEL)
    cancelled = [(channel, Hid.CBOR, bytes((Status.KEEPALIVE_CANCEL,)))]
    assert cancelled == bench.send(channel, Hid.CANCEL)
    assert [] == bench.send(channel, Hid.CANCEL)


def test_lock(bench: Bench) -> None:
    """A host may have the key for itself for some seconds."""
    channel, other = bench.open(), bench.open()
    assert [(channel, Hid.LOCK, b"")] == bench.send(channel, Hid.LOCK, b"\x02")
    assert error(other, Status.CHANNEL_BUSY) == bench.send(other, Hid.PING)
    assert [(channel, Hid.PING, b"")] == bench.send(channel, Hid.PING)
    bench.after(2)
    assert [(other, Hid.PING, b"")] == bench.send(other, Hid.PING)


def test_power_cycle(bench: Bench) -> None:
    """After unplugging no channel is left."""
    channel = bench.open()
    bench.engine.power_cycle()
    assert error(channel, Status.INVALID_CHANNEL) == bench.send(channel, Hid.PING)


def test_every_host_hears_all(injected: InjectedKey) -> None:
    """As with hidraw, whoever has the key open gets the answers to others too."""
    first, second = injected.open(), injected.open()
    (packet,) = frame(BROADCAST, Hid.INIT, NONCE)
    first.send(packet)
    assert first.recv(PACKET) == second.recv(PACKET)


def test_report_number(injected: InjectedKey) -> None:
    """A packet may have hidraw's report number before it."""
    end = injected.open()
    (packet,) = frame(BROADCAST, Hid.INIT, NONCE)
    end.send(b"\0" + packet)
    assert NONCE == end.recv(PACKET)[7:15]
