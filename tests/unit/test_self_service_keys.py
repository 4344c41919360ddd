# SPDX-License-Identifier: Apache-2.0
"""Users enabling their own security keys: where they are, what they ask, when they leave."""

import os
import pwd
import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest
from doubles import NONCE, SEED, STEP, code_of, make_layout
from ports import PIN, KeyHost, Ports, set_pin
from security_key.faults import Fault
from security_key.person import Touch

from pam_mfa import wire
from pam_mfa.errors import BrokenSystemError, PamMfaError, RefusedError
from pam_mfa.key_enrolling import enable_key
from pam_mfa.self_service import changes, desk
from pam_mfa.self_service.desk import serve_petition
from pam_mfa.self_service.dialogue import Dialogue
from pam_mfa.self_service.protocol import (
    End,
    Operation,
    Petition,
    Prompt,
    build_petition,
    parse_petition,
    parse_reply,
)
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.verification import Need, Work
from pam_mfa.verifier import login_session
from pam_mfa.verifier.login_session import Presence, find_presence
from pam_mfa.verifier.packets import Peer
from pam_mfa.wire import Style

ME = pwd.getpwuid(os.getuid()).pw_name
SESSION = "UID=1000\nUSER=alice\nACTIVE=1\nREMOTE={remote}\nTYPE=tty\nCLASS=user\nSEAT=seat0\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyHost]:
    """A host whose policy lets users enable devices, after a password that is always right."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    ports = Ports(monkeypatch)
    host = KeyHost(make_layout(tmp_path), ports)
    host.layout.policy.write_text("version: 1\nself_service: {enable: true}\n")
    host.layout.policy.chmod(0o644)
    monkeypatch.setattr(desk, "_check_password", lambda *_: None)
    monkeypatch.setattr(desk, "drop_privileges", lambda: None)
    yield host
    host.store.close()
    ports.close()


class Talk:
    """What a user saw of a petition."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.told: list[str] = []
        self.error: PamMfaError | None = None


def petition(host: KeyHost, answers: tuple[str, ...] = (), wishes: str = "") -> Talk:
    """Petition for a key of one's own."""
    client, service = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    talk, left = Talk(), list(answers)
    serving = Thread(target=serve_petition, args=(service, host.layout))
    with client, service:
        client.settimeout(30)
        client.send(build_petition(NONCE, Petition(Operation.ENABLE_FIDO, ME, wishes=wishes)))
        serving.start()
        while True:
            reply = parse_reply(client.recv(wire.FRAME_MAX + 1), NONCE)
            if isinstance(reply, End):
                talk.error = reply.error
                break
            assert isinstance(reply, Prompt)
            talk.told.append(reply.text)
            if reply.style is Style.ECHO_OFF:
                client.send(wire.build_answer(NONCE, left.pop(0)))
        serving.join(30)
    return talk


def test_enable(host: KeyHost) -> None:
    """A user enables a key by two touches."""
    host.ports.plug()
    talk = petition(host)
    assert None is talk.error
    assert f"Enabled fido/{ME}/yubikey-5-nfc for {ME}." == talk.told[-1]
    assert os.getuid() == host.records()[-1]["caller_uid"]


def test_wishes(host: KeyHost) -> None:
    """A user's wishes reach the key: discoverable, and with its PIN at each login."""
    injected = host.ports.plug()
    set_pin(injected)
    assert None is petition(host, (PIN,), "discoverable verification").error
    assert [True] == [one.is_discoverable for one in injected.key.memory.credentials]
    (device,) = EmbeddedStore(host.layout).read_enrollment(ME).security_keys
    assert "required" == device.user_verification


def test_not_allowed(host: KeyHost) -> None:
    """Where policy does not let users enable devices, no key is asked."""
    host.ports.plug()
    host.layout.policy.write_text("version: 1\n")
    assert isinstance(petition(host).error, RefusedError)
    assert 0 == host.ports.opened


def test_refused_key_is_recorded_once(host: KeyHost) -> None:
    """A key that lies leaves the one record that says so."""
    host.ports.plug().faults.switch_on(Fault.BAD_SIGNATURE)
    assert "the security key was refused" in str(petition(host).error)
    assert ["unproven_registration"] == [record["reason"] for record in host.records()]


def test_closed_node_is_recorded(host: KeyHost) -> None:
    """A key that the service may not open leaves a record, and its user the way out."""
    host.ports.plug()
    host.ports.is_closed = True
    error = petition(host).error
    assert error is not None
    assert "Install the udev rule." == error.hint
    assert ["key_unusable"] == [record["reason"] for record in host.records()]


def test_nobody_touches(host: KeyHost) -> None:
    """A key that is not touched leaves a record as well."""
    host.layout.policy.write_text("version: 1\nself_service: {enable: true}\nfido: {touch: 1s}\n")
    host.ports.plug().person.touch = Touch.WAIT
    assert "was not touched in time" in str(petition(host).error)
    assert ["not_possible"] == [record["reason"] for record in host.records()]


def test_first_device_comes_meanwhile(host: KeyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A petition that began without a device ends where the user has got one meanwhile."""
    injected = host.ports.plug()
    run = enable_key

    def enroll_first(*arguments: Any) -> Generator[Need, Any, object]:  # noqa: ANN401 - as it is called
        pending = host.lifecycle.begin_virtual(ME, seed=SEED)
        host.lifecycle.enable(pending, code_of(SEED, STEP), code_of(SEED, STEP + 1))
        return (yield from run(*arguments))

    monkeypatch.setattr(changes, "enable_key", enroll_first)
    assert "were changed meanwhile" in str(petition(host).error)
    assert "devices_changed" == host.records()[-1]["reason"]
    assert 2 == injected.counters["touches"]


def test_from_another_machine(host: KeyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes from another machine is not asked for a key in this one; that is recorded."""
    host.ports.plug()
    monkeypatch.setattr(desk, "find_presence", lambda _: Presence.REMOTE)
    talk = petition(host)
    assert "logged in from another machine" in str(talk.error)
    assert 0 == host.ports.opened
    record = host.records()[-1]
    assert ("denied", "not_allowed") == (record["outcome"], record["reason"])


def test_key_verifies_who_is_here(host: KeyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has a key only and is at the machine is verified by it before enabling another one."""
    monkeypatch.setattr(desk, "find_presence", lambda _: Presence.LOCAL)
    first, second = host.ports.plug(), host.ports.plug(name="Second Key")
    second.person.touch = Touch.WAIT
    host.enable(ME)
    first.person.touch, second.person.touch = Touch.ONCE, Touch.YES
    talk = petition(host)
    assert None is talk.error
    assert "Touch your security key (yubikey-5-nfc)." in talk.told
    assert f"Enabled fido/{ME}/second-key for {ME}." == talk.told[-1]


@pytest.mark.parametrize("where", [Presence.REMOTE, Presence.UNKNOWN])
def test_key_verifies_nobody_else(
    host: KeyHost, monkeypatch: pytest.MonkeyPatch, where: Presence
) -> None:
    """Who may come from elsewhere is asked for a code, and no key blinks for it."""
    injected = host.ports.plug()
    host.enable(ME)
    before = injected.counters["touches"]
    monkeypatch.setattr(desk, "find_presence", lambda _: where)
    talk = petition(host, ("", "", "", "", "", ""))
    assert isinstance(talk.error, RefusedError)
    assert before == injected.counters["touches"]


def test_petition_is_read_back() -> None:
    """A petition for a key is read as it was written."""
    asked = Petition(Operation.ENABLE_FIDO, "alice", name="blue", wishes="discoverable")
    assert (NONCE, asked) == parse_petition(build_petition(NONCE, asked))


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc with one process, 42, in session 7, and logind's records."""
    (tmp_path / "proc/42").mkdir(parents=True)
    (tmp_path / "proc/42/sessionid").write_text("7")
    (tmp_path / "sessions").mkdir()
    monkeypatch.setattr(login_session, "PROCESSES", tmp_path / "proc")
    monkeypatch.setattr(login_session, "SESSIONS", tmp_path / "sessions")
    return tmp_path


def write_session(processes: Path, text: str, name: str = "7") -> None:
    """Write logind's record of a session, this process's user being its user."""
    (processes / "sessions" / name).write_text(text.replace("UID=1000", f"UID={os.getuid()}"))


@pytest.mark.parametrize(
    ("remote", "expected"),
    [("0", Presence.LOCAL), ("1", Presence.REMOTE), ("", Presence.UNKNOWN)],
)
def test_presence(processes: Path, remote: str, expected: Presence) -> None:
    """The record that logind has of the process's session says where its user is."""
    write_session(processes, SESSION.format(remote=remote))
    assert expected is find_presence(Peer(42, os.getuid()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "UID=4294967294\nREMOTE=0\nCLASS=user\n",
        "UID=1000\nREMOTE=0\nCLASS=greeter\n",
        "UID=1000\nCLASS=user\n",
    ],
)
def test_unknown_presence(processes: Path, text: str) -> None:
    """A record that is another user's, or none of a login, says nothing."""
    write_session(processes, text)
    assert Presence.UNKNOWN is find_presence(Peer(42, os.getuid()))


@pytest.mark.parametrize("session", ["4294967295", "../7", "", "seven"])
def test_no_session(processes: Path, session: str) -> None:
    """A process of no session is nowhere."""
    (processes / "proc/42/sessionid").write_text(session)
    write_session(processes, SESSION.format(remote="0"))
    assert Presence.UNKNOWN is find_presence(Peer(42, os.getuid()))


@pytest.mark.parametrize("peer", [Peer(43, os.getuid()), Peer(42, os.getuid() + 1)])
def test_other_process(processes: Path, peer: Peer) -> None:
    """A process that is gone, or another user's by now, says nothing."""
    write_session(processes, SESSION.format(remote="0"))
    assert Presence.UNKNOWN is find_presence(peer)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The user's end of a conversation and the service's."""
    user, service = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with user, service:
        yield user, service


Ends = tuple[socket.socket, socket.socket]


def work(do: Any) -> Generator[Need, Any, object]:  # noqa: ANN401 - what blocks
    """Need something that blocks."""
    reply = yield Work(do)
    return reply


def drive(service: socket.socket, do: Any, seconds: float = 30.0) -> object:  # noqa: ANN401
    """Carry a need that blocks out in a conversation."""
    dialogue = Dialogue(service, NONCE, monotonic() + seconds)
    reply, _ = dialogue.drive(work(do), None)  # type: ignore[arg-type]
    return reply


def wait(canceled: Event) -> bool:
    """Block until canceled."""
    return canceled.wait(30)


def test_work_is_done(ends: Ends) -> None:
    """What a conversation needs done is done, and its result comes back."""
    assert "done" == drive(ends[1], lambda _: "done")


def test_user_leaves(ends: Ends) -> None:
    """When the user leaves, what blocks is canceled: the key stops blinking."""

    def leave(canceled: Event) -> bool:
        ends[0].close()
        return wait(canceled)

    assert drive(ends[1], leave)


def test_user_types_ahead(ends: Ends) -> None:
    """What a user types while a key blinks cancels nothing, and waits for its question."""

    def type_ahead(canceled: Event) -> bool:
        ends[0].send(b"early")
        return canceled.wait(0.2)

    assert not drive(ends[1], type_ahead)
    assert b"early" == ends[1].recv(100)


def test_time_is_over(ends: Ends) -> None:
    """At the conversation's deadline what blocks is canceled."""
    assert drive(ends[1], wait, seconds=0.1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_work_that_breaks(ends: Ends) -> None:
    """What breaks in its thread is an error of the conversation, not a hang."""

    def fail(_: Event) -> None:
        raise OSError("broken")

    with pytest.raises(BrokenSystemError):
        drive(ends[1], fail)
