# SPDX-License-Identifier: Apache-2.0
"""The daemon's side of a connection on a real event loop, with a module at the other end."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from agent_bench import MACHINE, FakeKey, enroll_key
from doubles import (
    NONCE,
    SEED,
    START,
    STEP,
    Clock,
    MemoryStore,
    code_of,
    count_descriptors,
    encode_answer,
    encode_frame,
    encode_request,
    enrolled,
    make_request,
)

from pam_mfa import verification
from pam_mfa.audit import Reason
from pam_mfa.errors import StateError
from pam_mfa.lockout import LockState
from pam_mfa.store import Change, Claim
from pam_mfa.verifier import connection as module
from pam_mfa.verifier import conversation, server
from pam_mfa.verifier.agent_socket import Closing
from pam_mfa.verifier.budget import Limits
from pam_mfa.verifier.committer import Committer, Done
from pam_mfa.verifier.connection import Connection
from pam_mfa.verifier.conversation import Services
from pam_mfa.verifier.packets import Peer
from pam_mfa.verifier.policy_file import PolicyFile
from pam_mfa.verifier.server import ROOT_LIMITS, Server
from pam_mfa.wire import Result, Style, build_prompt, build_verdict

REQUEST = encode_request(make_request())
PROMPT = build_prompt(NONCE, Style.ECHO_OFF, verification.PROMPT, is_code=True)
NEXT_PROMPT = build_prompt(NONCE, Style.ECHO_OFF, verification.NEXT_PROMPT, is_code=True)
CODE = code_of(SEED, STEP)
SUCCESS, DENIED, UNAVAILABLE = (
    build_verdict(NONCE, result) for result in (Result.SUCCESS, Result.DENIED, Result.UNAVAILABLE)
)
PATIENCE = 10.0  # seconds that a test may take on a loaded machine
ROOT = Peer(4321, 0)


class HeldCommitter(Committer):
    """A committer whose commits come only when the test says so."""

    def __init__(self, store: MemoryStore, loop: asyncio.AbstractEventLoop) -> None:
        """Hold nothing yet."""
        super().__init__(store, loop)
        self.held: list[tuple[Claim, Done]] = []

    def submit(self, claim: Claim, done: Done, *, is_alone: bool) -> None:
        """Hold a claim."""
        del is_alone
        self.held.append((claim, done))


class Daemon:
    """What a connection needs around it; also its owner."""

    def __init__(self, services: Services, store: MemoryStore) -> None:
        """Start with no connection."""
        self.store = store
        self.services = services
        self.forgotten = 0
        self.alone = False
        self.closing = Closing()
        self.loop = asyncio.get_running_loop()
        self.committer: Committer = Committer(store, self.loop)
        self._ends: list[socket.socket] = []
        self._connections: list[Connection] = []

    def forget(self, _connection: Connection) -> None:
        """Count a connection that is over."""
        self.forgotten += 1

    def is_alone(self) -> bool:
        """Whether commits wait for nobody."""
        return self.alone

    def connect(self, peer: Peer = ROOT) -> socket.socket:
        """Accept a connection; return the module's end."""
        theirs, ours = self.pair()
        self.accept(ours, peer)
        return theirs

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return the module's end and the daemon's of a connection that is not accepted yet."""
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self._ends.append(theirs)
        return theirs, ours

    def accept(self, ours: socket.socket, peer: Peer = ROOT) -> None:
        """Accept a connection."""
        connection = Connection(ours, peer, self.services, self.committer, self)
        self._connections.append(connection)
        connection.start()

    def tidy(self) -> None:
        """Close what a scene that failed has left open."""
        for connection in self._connections:
            connection.close()
        for end in self._ends:
            end.close()

    async def receive(self, end: socket.socket) -> bytes:
        """Return the next packet at the module's end; ``b""`` when the daemon has closed it."""
        try:
            return await self.loop.sock_recv(end, 40000)
        except ConnectionResetError:  # closed with something unread
            return b""

    async def frames(self, end: socket.socket) -> list[bytes]:
        """Return all packets until the daemon closes, and close this end."""
        packets = []
        while packet := await self.receive(end):
            packets.append(packet)
        end.close()
        return packets

    async def settle(self) -> None:
        """Let the loop turn until nothing is left to do at once."""
        for _ in range(10):
            await asyncio.sleep(0)

    def reasons(self) -> list[Reason]:
        """Return the reasons of the records."""
        return [event.reason for event in self.store.events]


Scene = Callable[[Daemon], Coroutine[Any, Any, None]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The errors that are told to the system log, which hears nothing of them."""
    errors: list[str] = []
    for place in (module, conversation):
        monkeypatch.setattr(place, "tell_failure", lambda error: errors.append(str(error)))
    monkeypatch.setattr(module, "tell_fault", lambda error: errors.append(repr(error)))
    monkeypatch.setattr(server, "tell_error", errors.append)
    return errors


@pytest.fixture
def play(tmp_path: Path, told: list[str]) -> Callable[[Scene], None]:
    """Plays a scene with a daemon whose policy asks twice, and looks for descriptors left."""
    del told
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\ndefaults: {prompts: 2}\n")
    path.chmod(0o644)

    def run(scene: Scene) -> None:
        async def main() -> None:
            store = MemoryStore(alice=enrolled())
            services = Services(PolicyFile(path, lambda _: None), store, Clock())
            daemon = Daemon(services, store)
            try:
                await asyncio.wait_for(scene(daemon), PATIENCE)
            finally:
                daemon.tidy()

        before = count_descriptors()
        asyncio.run(main())
        assert before == count_descriptors()

    return run


Play = Callable[[Scene], None]


@pytest.mark.parametrize("alone", [True, False])
def test_success(play: Play, alone: bool) -> None:  # noqa: FBT001 - both values
    """A right code is answered by success, whether or not others are there."""

    async def scene(daemon: Daemon) -> None:
        daemon.alone = alone
        end = daemon.connect()
        end.send(REQUEST)
        assert PROMPT == await daemon.receive(end)
        end.send(encode_answer(CODE))
        assert [SUCCESS] == await daemon.frames(end)
        assert ([Reason.CODE_ACCEPTED], 1) == (daemon.reasons(), daemon.forgotten)

    play(scene)


def test_request_before_accepting(play: Play) -> None:
    """A request that is there already is read at once."""

    async def scene(daemon: Daemon) -> None:
        theirs, ours = daemon.pair()
        theirs.send(REQUEST)
        daemon.accept(ours)
        assert PROMPT == theirs.recv(40000)
        theirs.close()
        await daemon.settle()
        assert [Reason.ABANDONED] == daemon.reasons()

    play(scene)


def test_denied(play: Play) -> None:
    """Wrong codes are asked for again as often as policy says, then denied."""

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect()
        end.send(REQUEST)
        for prompt in (PROMPT, NEXT_PROMPT):
            assert prompt == await daemon.receive(end)
            end.send(encode_answer("000000"))
        assert [DENIED] == await daemon.frames(end)
        assert [Reason.WRONG_CODE] * 2 == daemon.reasons()

    play(scene)


def test_hang_up(play: Play) -> None:
    """A module that is gone at the prompt is recorded as such, once."""

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect()
        end.send(REQUEST)
        assert PROMPT == await daemon.receive(end)
        end.close()
        await daemon.settle()
        assert ([Reason.ABANDONED], 1) == (daemon.reasons(), daemon.forgotten)

    play(scene)


def test_hang_up_before_the_request(play: Play) -> None:
    """A module that is gone without a request leaves no record."""

    async def scene(daemon: Daemon) -> None:
        daemon.connect().close()
        await daemon.settle()
        assert ([], 1) == (daemon.reasons(), daemon.forgotten)

    play(scene)


@pytest.mark.parametrize("timeout", [0, 1])
def test_timeout(play: Play, timeout: int) -> None:
    """Whoever does not answer in the time that the module gives is denied and recorded."""

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect()
        end.send(encode_request(make_request(timeout=timeout)))
        assert [PROMPT, DENIED] == await daemon.frames(end)
        assert ([Reason.TIMED_OUT], 1) == (daemon.reasons(), daemon.forgotten)

    play(scene)


def test_longest(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a module asks for, the verifier has its own limit."""
    monkeypatch.setattr(module, "LONGEST", 0.05)

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect()
        end.send(encode_request(make_request(timeout=2**32 - 1)))
        assert [PROMPT, DENIED] == await daemon.frames(end)
        assert [Reason.TIMED_OUT] == daemon.reasons()

    play(scene)


def test_no_request_in_time(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects and says nothing is closed after a while."""
    monkeypatch.setattr(module, "FIRST_FRAME", 0.05)

    async def scene(daemon: Daemon) -> None:
        assert [] == await daemon.frames(daemon.connect())
        assert ([], 1) == (daemon.reasons(), daemon.forgotten)

    play(scene)


def test_time_runs_out_while_an_answer_is_judged(play: Play) -> None:
    """Where time runs out in the moment of an answer, no later prompt waits without an end."""

    async def scene(daemon: Daemon) -> None:
        theirs, ours = daemon.pair()
        theirs.send(encode_request(make_request(timeout=0)))
        theirs.send(encode_answer("000000"))  # read in the turn in which the time runs out
        daemon.accept(ours)
        packets = await asyncio.wait_for(daemon.frames(theirs), 2.0)
        assert (DENIED, 1) == (packets[-1], daemon.forgotten)

    play(scene)


@pytest.mark.parametrize(
    "packet",
    [b"x", REQUEST[:-1], REQUEST + b"\0", encode_answer(CODE), b"\2" + REQUEST[1:]],
    ids=["noise", "cut", "more", "answer", "version"],
)
def test_no_request(play: Play, told: list[str], packet: bytes) -> None:
    """What is no request is told no verdict, and the system log is told."""

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect()
        end.send(packet)
        assert [] == await daemon.frames(end)
        assert ([], 1, 1) == (daemon.reasons(), daemon.forgotten, len(told))

    play(scene)


@pytest.mark.parametrize(
    "packet",
    [b"x", encode_answer(CODE, nonce=bytes(16)), REQUEST, encode_answer(CODE)[:-1],
     encode_frame(0x82, [(1, b"\1")])],
    ids=["noise", "nonce", "request", "cut", "verdict"],
)  # fmt: skip
def test_no_answer(play: Play, packet: bytes) -> None:
    """What is no answer is told no verdict."""

    async def scene(daemon: Daemon) -> None:
        end = daemon.connect()
        end.send(REQUEST)
        assert PROMPT == await daemon.receive(end)
        end.send(packet)
        assert [] == await daemon.frames(end)
        assert ([], 1) == (daemon.reasons(), daemon.forgotten)

    play(scene)


def hold(daemon: Daemon) -> HeldCommitter:
    """Keep the daemon's commits back."""
    committer = HeldCommitter(daemon.store, daemon.loop)
    daemon.committer = committer
    return committer


async def answer(daemon: Daemon, end: socket.socket, code: str) -> None:
    """Answer the prompt and let the claim be handed in."""
    end.send(REQUEST)
    assert PROMPT == await daemon.receive(end)
    end.send(encode_answer(code))
    await daemon.settle()


def release(daemon: Daemon, committer: HeldCommitter) -> None:
    """Commit the one claim that is held."""
    [(claim, done)] = committer.held
    done(daemon.store.commit([claim])[0])


def test_no_verdict_before_the_commit(play: Play) -> None:
    """Before the commit is done, nothing is told."""

    async def scene(daemon: Daemon) -> None:
        committer = hold(daemon)
        end = daemon.connect()
        await answer(daemon, end, CODE)
        with pytest.raises(BlockingIOError):
            end.recv(40000)
        release(daemon, committer)
        assert [SUCCESS] == await daemon.frames(end)

    play(scene)


@pytest.mark.parametrize("packet", [encode_answer(CODE), REQUEST, b"x"])
def test_out_of_turn(play: Play, packet: bytes) -> None:
    """Who talks while an answer is judged gets no verdict; the answer is recorded."""

    async def scene(daemon: Daemon) -> None:
        committer = hold(daemon)
        end = daemon.connect()
        await answer(daemon, end, CODE)
        end.send(packet)
        await daemon.settle()
        release(daemon, committer)
        assert [] == await daemon.frames(end)
        assert ([Reason.CODE_ACCEPTED], 1) == (daemon.reasons(), daemon.forgotten)

    play(scene)


def test_hang_up_while_an_answer_is_judged(play: Play) -> None:
    """A module that is gone while its answer is judged does not keep it from being recorded."""

    async def scene(daemon: Daemon) -> None:
        committer = hold(daemon)
        end = daemon.connect()
        await answer(daemon, end, CODE)
        end.close()
        await daemon.settle()
        release(daemon, committer)
        assert ([Reason.CODE_ACCEPTED], 1) == (daemon.reasons(), daemon.forgotten)

    play(scene)


def test_broken_store(play: Play) -> None:
    """Where nothing can be committed, the verdict is "unavailable" for all who wait."""

    async def scene(daemon: Daemon) -> None:
        daemon.store.failure = StateError("the disk is full")
        ends = [daemon.connect() for _ in range(3)]
        for end in ends:
            end.send(REQUEST)
            end.send(encode_answer(CODE))
        frames = [await daemon.frames(end) for end in ends]
        assert [[PROMPT, UNAVAILABLE]] * 3 == frames

    play(scene)


class FaultyStore(MemoryStore):
    """A store with a fault in it."""

    def commit(self, claims: list[Claim]) -> list[Change]:
        """Raise what no caller counts on."""
        raise ValueError(len(claims))


def test_fault_in_a_commit(play: Play) -> None:
    """A fault of this program in a commit gives those who wait for it no verdict but that."""

    async def scene(daemon: Daemon) -> None:
        daemon.loop.set_exception_handler(lambda *_: None)
        daemon.committer = Committer(FaultyStore(), daemon.loop)
        end = daemon.connect()
        end.send(REQUEST)
        end.send(encode_answer(CODE))
        assert [PROMPT, UNAVAILABLE] == await asyncio.wait_for(daemon.frames(end), 2.0)
        assert 1 == daemon.forgotten

    play(scene)


def test_fault_in_one_conversation(
    play: Play, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in one conversation ends that one, and no other."""

    async def scene(daemon: Daemon) -> None:
        other = daemon.connect()
        other.send(REQUEST)
        assert PROMPT == await daemon.receive(other)
        with monkeypatch.context() as patch:
            patch.setattr(module, "converse", None)
            end = daemon.connect()
            end.send(REQUEST)
            assert [] == await daemon.frames(end)
        other.send(encode_answer(CODE))
        assert ([SUCCESS], 1) == (await daemon.frames(other), len(told))

    play(scene)


@pytest.mark.parametrize("count", [2, 50])
def test_one_code_for_many(play: Play, count: int) -> None:
    """Of many connections that send one code in one turn, one alone gets in."""

    async def scene(daemon: Daemon) -> None:
        ends = [daemon.connect() for _ in range(count)]
        for end in ends:
            end.send(REQUEST)
        for end in ends:
            assert PROMPT == await daemon.receive(end)
        for end in ends:
            end.send(encode_answer(CODE))
        firsts = [await daemon.receive(end) for end in ends]
        for end in ends:
            end.close()
        await daemon.settle()
        assert (1, count - 1) == (firsts.count(SUCCESS), firsts.count(NEXT_PROMPT))

    play(scene)


def test_guesses_of_many(play: Play) -> None:
    """Of many connections that guess in one turn, five guesses are judged and the rest locked."""

    async def scene(daemon: Daemon) -> None:
        ends = [daemon.connect() for _ in range(40)]
        for number, end in enumerate(ends):
            end.send(REQUEST)
            end.send(encode_answer(f"{number:06d}"))
        for end in ends:
            assert PROMPT == await daemon.receive(end)
        await daemon.settle()
        for end in ends:
            end.close()
        reasons = daemon.reasons()
        assert (5, LockState((), START + 900.0)) == (
            reasons.count(Reason.WRONG_CODE), daemon.store.locks["alice"],
        )  # fmt: skip

    play(scene)


@pytest.mark.parametrize("with_answer", [False, True])
def test_descriptors(play: Play, with_answer: bool) -> None:  # noqa: FBT001 - both values
    """Descriptors that come with whatever packet are closed at once."""

    async def scene(daemon: Daemon) -> None:
        reader, writer = os.pipe()
        end = daemon.connect()
        if with_answer:
            end.send(REQUEST)
            assert PROMPT == await daemon.receive(end)
        packet = encode_answer("000000") if with_answer else REQUEST
        socket.send_fds(end, [packet], [writer] * 4)
        assert (NEXT_PROMPT if with_answer else PROMPT) == await daemon.receive(end)
        os.close(writer)
        assert b"" == os.read(reader, 1)
        os.close(reader)
        end.close()
        await daemon.settle()

    play(scene)


class Listening:
    """A server on a socket in a directory."""

    def __init__(self, daemon: Daemon, path: Path, limits: Limits) -> None:
        """Listen."""
        self._path = str(path / "verify.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self._path)
        listener.listen(100)
        self.server = Server(listener, daemon.services, limits)

    def connect(self) -> socket.socket:
        """Connect as a module does."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        end.setblocking(False)
        try:
            end.connect(self._path)
        except OSError:
            end.close()
            raise
        return end


EACH = 16
OTHERS = Limits(connections=100, connections_each=EACH)


@pytest.mark.parametrize(("limits", "served"), [(ROOT_LIMITS, 3 * EACH), (OTHERS, EACH)])
def test_limit_of_a_user(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits, served: int
) -> None:
    """A user has so many connections at once; root, whose logins are everybody's, has more."""
    monkeypatch.setattr(server, "peer_of", lambda _: Peer(4321, 1000))

    async def scene(daemon: Daemon) -> None:
        listening = Listening(daemon, tmp_path, limits)
        ends = [listening.connect() for _ in range(3 * EACH)]
        await daemon.settle()
        closed = []
        for end in ends:
            try:
                closed.append(end.recv(1) == b"")
            except BlockingIOError:
                closed.append(False)
        for end in ends:
            end.close()
        await daemon.settle()
        await listening.server.stop()
        assert served == closed.count(False)

    play(scene)


def test_limit_is_by_connection(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once connections are over, their user may connect again."""
    monkeypatch.setattr(server, "peer_of", lambda _: Peer(4321, 1000))

    async def scene(daemon: Daemon) -> None:
        listening = Listening(daemon, tmp_path, OTHERS)
        for _ in range(3):
            ends = [listening.connect() for _ in range(EACH)]
            await daemon.settle()
            for end in ends:
                with pytest.raises(BlockingIOError):
                    end.recv(1)
                end.close()
            await daemon.settle()
        await listening.server.stop()

    play(scene)


def test_stop(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is stopped accepts no more, and lets who is there come to an end."""
    monkeypatch.setattr(server, "peer_of", lambda _: ROOT)

    async def scene(daemon: Daemon) -> None:
        listening = Listening(daemon, tmp_path, OTHERS)
        end = listening.connect()
        end.send(REQUEST)
        assert PROMPT == await daemon.receive(end)
        stopping = asyncio.ensure_future(listening.server.stop())
        await daemon.settle()
        with pytest.raises(ConnectionRefusedError):
            listening.connect()
        end.send(encode_answer(CODE))
        assert [SUCCESS] == await daemon.frames(end)
        await stopping

    play(scene)


def test_stop_without_patience(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is stopped does not wait for ever for who does not answer."""
    monkeypatch.setattr(server, "peer_of", lambda _: ROOT)
    monkeypatch.setattr(server, "_STOP_PATIENCE", 0.05)

    async def scene(daemon: Daemon) -> None:
        listening = Listening(daemon, tmp_path, OTHERS)
        end = listening.connect()
        end.send(REQUEST)
        assert PROMPT == await daemon.receive(end)
        await listening.server.stop()
        assert [] == await daemon.frames(end)

    play(scene)


@pytest.mark.parametrize("ends", ["verdict", "hang-up", "bad request"])
def test_agent_is_closed(play: Play, ends: str) -> None:
    """The agent's socket that comes with a request is closed, however the login ends."""

    async def scene(daemon: Daemon) -> None:
        ours, its = socket.socketpair()
        its.setblocking(False)
        request = encode_request(make_request(descriptor_kinds=b"\1"))
        end = daemon.connect()
        with ours:
            packet = encode_frame(1, [(99, b"")]) if ends == "bad request" else request
            socket.send_fds(end, [packet], [ours.fileno()])
        if ends != "bad request":
            assert PROMPT == await daemon.receive(end)
        if ends == "verdict":
            end.send(encode_answer(CODE))
            assert [SUCCESS] == await daemon.frames(end)
        if ends == "hang-up":
            end.close()
        assert b"" == await daemon.loop.sock_recv(its, 1)
        its.close()

    play(scene)


def test_agent_is_closed_after_it_was_asked(play: Play) -> None:
    """Whoever hangs up while the agent is asked ends that, and the socket is closed after it."""

    async def scene(daemon: Daemon) -> None:
        key = FakeKey()
        enrollment = daemon.store.enrollments["alice"]._replace(ssh_keys=(enroll_key(key),))
        daemon.store.enrollments["alice"] = enrollment
        daemon.services = daemon.services._replace(machine=MACHINE)
        ours, its = socket.socketpair()
        its.setblocking(False)
        end = daemon.connect()
        with ours:
            request = make_request(descriptor_kinds=b"\1", service="sudo", rhost="")
            socket.send_fds(end, [encode_request(request)], [ours.fileno()])
        assert b"\x0b" == (await daemon.loop.sock_recv(its, 100))[4:]  # asked for its keys
        end.close()
        assert b"" == await daemon.loop.sock_recv(its, 1)
        its.close()
        await daemon.settle()
        assert [Reason.ABANDONED] == daemon.reasons()[:1]

    play(scene)
