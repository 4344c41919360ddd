# SPDX-License-Identifier: Apache-2.0
"""CTAPHID, the device's side (CTAP 2.1, section 11.2): packets and the time in, packets out."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from security_key.exchange import Gesture, Need, Step
from security_key.faults import Fault
from security_key.key import SecurityKey
from security_key.status import Status

PACKET = 64
BROADCAST = 0xFFFFFFFF
FIRST_CHANNEL = 0x00010001
NONCE = 8
IN_FIRST, IN_NEXT = PACKET - 7, PACKET - 5
LONGEST = IN_FIRST + 128 * IN_NEXT
OVERSIZED = 0xFFFF
PROTOCOL_VERSION = 2
DEVICE_VERSION = (1, 0, 0)
NEXT_PACKET_WITHIN = 0.5
LONGEST_LOCK = 10
TICK = 0.01  # how often a person is looked at while something is asked


class Hid(IntEnum):
    """CTAPHID commands, without the bit that marks a first packet."""

    PING = 0x01
    MSG = 0x03
    LOCK = 0x04
    INIT = 0x06
    WINK = 0x08
    CBOR = 0x10
    CANCEL = 0x11
    KEEPALIVE = 0x3B
    ERROR = 0x3F


class Capability(IntFlag):
    """What the answer to INIT says."""

    WINK = 0x01
    CBOR = 0x04
    NMSG = 0x08


class KeepaliveStatus(IntEnum):
    """What a keepalive says."""

    PROCESSING = 1
    UPNEEDED = 2


FIRST = 0x80
LOCK_REFUSED = Status.INVALID_PARAMETER
CONSENT = (Need.TOUCH, Need.FINGER)


@dataclass
class Incoming:
    """A message of which packets are still to come."""

    channel: int
    command: int
    size: int
    data: bytes
    deadline: float
    sequence: int = 0


@dataclass
class Pending:
    """A command that is being answered."""

    channel: int
    command: int
    step: Step[bytes]
    need: Need | None = None
    since: float = 0.0
    next_keepalive: float = 0.0


@dataclass
class Lock:
    """A channel that has the key for itself."""

    channel: int = 0
    until: float = field(default=-1.0)


def frame(channel: int, command: int, data: bytes, size: int | None = None) -> Iterator[bytes]:
    """Cut a message into packets."""
    length = len(data) if size is None else size
    head = struct.pack(">IBH", channel, FIRST | command, length)
    yield (head + data[:IN_FIRST]).ljust(PACKET, b"\0")
    for number, at in enumerate(range(IN_FIRST, len(data), IN_NEXT)):
        head = struct.pack(">IB", channel, number & 0x7F)
        yield (head + data[at : at + IN_NEXT]).ljust(PACKET, b"\0")


class Engine:
    """The HID side of one key; one message at a time, as the specification has it."""

    def __init__(self, key: SecurityKey) -> None:
        """Begin with no channels."""
        self.key = key
        self.channels: set[int] = set()
        self.incoming: Incoming | None = None
        self.pending: Pending | None = None
        self.lock = Lock()

    def receive(self, packet: bytes) -> list[bytes]:
        """Take one packet and return those that answer it."""
        self.key.counters["packets"] += 1
        if len(packet) != PACKET or self.key.faults.is_on(Fault.MUTE):
            return []
        channel, kind = struct.unpack(">IB", packet[:5])
        if not kind & FIRST:
            return self._continue(channel, kind, packet[5:])
        size = struct.unpack(">H", packet[5:7])[0]
        return self._begin(channel, kind & ~FIRST, size, packet[7:])

    def tick(self) -> list[bytes]:
        """Return what is due by now: answers, keepalives, errors."""
        now = self.key.clock()
        if self.incoming and now >= self.incoming.deadline:
            late, self.incoming = self.incoming, None
            return self._error(late.channel, Status.TIMEOUT)
        return self._advance(now) if self.pending else []

    def find_patience(self) -> float | None:
        """Return within how many seconds to call tick(); None is when a packet comes."""
        return TICK if self.pending or self.incoming else None

    def is_blinking(self) -> bool:
        """Whether a person is asked for something; U2F asks by questions, and never for long."""
        return self.pending is not None and self.pending.need in CONSENT

    def power_cycle(self) -> None:
        """Forget channels and what was under way."""
        self._abort()
        self.channels.clear()
        self.lock = Lock()
        self.key.power_cycle()

    def _begin(self, channel: int, command: int, size: int, data: bytes) -> list[bytes]:
        """Take a message's first packet."""
        if command == Hid.INIT:
            return self._init(channel, size, data)
        if command == Hid.CANCEL and channel in self.channels:
            return self._cancel(channel)
        refusal = self._find_refusal(channel, size)
        if refusal:
            self._abort_incoming(channel)
            return self._error(channel, refusal)
        deadline = self.key.clock() + NEXT_PACKET_WITHIN
        self.incoming = Incoming(channel, command, size, data[:size], deadline)
        return self._complete()

    def _find_refusal(self, channel: int, size: int) -> Status | None:
        """Return why a new message on this channel is not taken."""
        if channel not in self.channels:
            return Status.INVALID_CHANNEL
        if self._is_busy(channel):
            return Status.CHANNEL_BUSY
        if self.incoming:
            return Status.INVALID_SEQ
        return Status.INVALID_LENGTH if size > LONGEST else None

    def _continue(self, channel: int, sequence: int, data: bytes) -> list[bytes]:
        """Take a message's later packet; one of no message is ignored."""
        incoming = self.incoming
        if incoming is None or incoming.channel != channel:
            return []
        if sequence != incoming.sequence:
            self.incoming = None
            return self._error(channel, Status.INVALID_SEQ)
        incoming.sequence += 1
        incoming.data += data[: incoming.size - len(incoming.data)]
        incoming.deadline = self.key.clock() + NEXT_PACKET_WITHIN
        return self._complete()

    def _complete(self) -> list[bytes]:
        """Answer a message if it is whole."""
        incoming = self.incoming
        if incoming is None or len(incoming.data) < incoming.size:
            return []
        self.incoming = None
        channel, command, data = incoming.channel, incoming.command, incoming.data
        model = self.key.model
        if command == Hid.CBOR and model.speaks_ctap2:
            return self._start(Pending(channel, command, self.key.run_cbor(data)))
        if command == Hid.MSG and model.speaks_u2f:
            return self._start(Pending(channel, command, self.key.run_apdu(data)))
        if command == Hid.LOCK:
            return self._lock(channel, data)
        if command in (Hid.PING, Hid.WINK):
            self.key.counters[Hid(command).name.lower()] += 1
            return list(frame(channel, command, data if command == Hid.PING else b""))
        return self._error(channel, Status.INVALID_COMMAND)

    def _init(self, channel: int, size: int, data: bytes) -> list[bytes]:
        """Give a channel, or begin anew on one that is given; never refused as busy."""
        if size != NONCE:
            return self._error(channel, Status.INVALID_LENGTH)
        if channel == BROADCAST:
            given = FIRST_CHANNEL + self.key.counters["channels"]
            self.key.counters["channels"] += 1
            self.channels.add(given)
        elif channel in self.channels:
            given = channel
            self._abort(channel)
        else:
            return self._error(channel, Status.INVALID_CHANNEL)
        capabilities = Capability.WINK
        if self.key.model.speaks_ctap2:
            capabilities |= Capability.CBOR
        if not self.key.model.speaks_u2f:
            capabilities |= Capability.NMSG
        answer = data[:NONCE] + struct.pack(
            ">IBBBBB", given, PROTOCOL_VERSION, *DEVICE_VERSION, capabilities
        )
        return list(frame(channel, Hid.INIT, answer))

    def _lock(self, channel: int, data: bytes) -> list[bytes]:
        """Have a channel keep the key for itself, or end that."""
        if len(data) != 1 or data[0] > LONGEST_LOCK:
            return self._error(channel, LOCK_REFUSED)
        self.lock = Lock(channel, self.key.clock() + data[0])
        return list(frame(channel, Hid.LOCK, b""))

    def _is_busy(self, channel: int) -> bool:
        """Whether a new message on this channel has to wait."""
        is_locked = self.lock.channel != channel and self.key.clock() < self.lock.until
        is_assembling = self.incoming is not None and self.incoming.channel != channel
        is_bad = self.key.faults.is_on(Fault.BUSY)
        return self.pending is not None or is_locked or is_assembling or is_bad

    def _abort(self, channel: int | None = None) -> None:
        """Drop what is under way on a channel, or on any."""
        if self.pending and channel in (None, self.pending.channel):
            self.pending.step.close()
            self.pending = None
            self.key.person.forget()
        self._abort_incoming(channel)

    def _abort_incoming(self, channel: int | None) -> None:
        """Drop a half message of a channel, or of any."""
        if self.incoming and channel in (None, self.incoming.channel):
            self.incoming = None

    def _cancel(self, channel: int) -> list[bytes]:
        """End the wait for a person; CANCEL itself has no answer, and a bad key is deaf to it."""
        self.key.counters["cancels"] += 1
        pending = self.pending
        if pending is None or pending.channel != channel or pending.need not in CONSENT:
            return []
        self.key.person.forget()
        return self._resume(pending, Gesture.CANCELLED)

    def _start(self, pending: Pending) -> list[bytes]:
        """Begin to answer a command."""
        self.pending = pending
        return self._resume(pending, None)

    def _resume(self, pending: Pending, gesture: Gesture | None) -> list[bytes]:
        """Go on with a command until it waits or is answered."""
        try:
            need = next(pending.step) if gesture is None else pending.step.send(gesture)
        except StopIteration as end:
            self.pending = None
            self.key.counters["answers"] += 1
            return self._answer(pending, end.value)
        now = self.key.clock()
        pending.need, pending.since, pending.next_keepalive = need, now, now
        return self._advance(now)

    def _advance(self, now: float) -> list[bytes]:
        """Give a command what it waits for, if that has come; else keep the host waiting."""
        pending = self.pending
        if pending is None or pending.need is None:
            return []
        keepalives = self._keepalive(pending, now)
        gesture = self._find_gesture(pending, now)
        return keepalives if gesture is None else keepalives + self._resume(pending, gesture)

    def _find_gesture(self, pending: Pending, now: float) -> Gesture | None:
        """Return what a command waits for, or None where it has not come."""
        model, person = self.key.model, self.key.person
        waited = now - pending.since
        if pending.need is Need.PROCESSING:
            return Gesture.GIVEN if waited >= model.processing else None
        if pending.need is Need.GLIMPSE:
            return person.find_gesture(Need.GLIMPSE, now) or Gesture.TIMED_OUT
        if pending.need in CONSENT:
            gesture = person.find_gesture(pending.need, now)
            if gesture is None and waited >= model.touch_timeout:
                person.forget()
                return Gesture.TIMED_OUT
            return gesture
        # A fault that is switched off again lets the command go on.
        is_over = not self.key.faults.is_on(
            Fault.HANG if pending.need is Need.SILENCE else Fault.ENDLESS_KEEPALIVES
        )
        return Gesture.GIVEN if is_over else None

    def _keepalive(self, pending: Pending, now: float) -> list[bytes]:
        """Return a keepalive if one is due."""
        if pending.need in (Need.SILENCE, Need.GLIMPSE) or now < pending.next_keepalive:
            return []
        pending.next_keepalive = now + self.key.model.keepalive
        self.key.counters["keepalives"] += 1
        is_processing = pending.need is Need.PROCESSING
        status = KeepaliveStatus.PROCESSING if is_processing else KeepaliveStatus.UPNEEDED
        return list(frame(pending.channel, Hid.KEEPALIVE, bytes((status,))))

    def _answer(self, pending: Pending, data: bytes) -> list[bytes]:
        """Return an answer's packets."""
        faults, channel = self.key.faults, pending.channel
        if faults.is_on(Fault.WRONG_CHANNEL):
            channel ^= 0xFF
        if faults.is_on(Fault.OVERSIZED_MESSAGE):
            return list(frame(channel, pending.command, data.ljust(OVERSIZED, b"\0")))
        return list(frame(channel, pending.command, data))

    def _error(self, channel: int, status: Status) -> list[bytes]:
        """Return an error."""
        self.key.counters["errors"] += 1
        return list(frame(channel, Hid.ERROR, bytes((status,))))
