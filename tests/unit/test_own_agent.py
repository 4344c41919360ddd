# SPDX-License-Identifier: Apache-2.0
"""Enabling a key that the caller's own ssh-agent holds: OpenSSH's agent, and hostile ones."""

import os
import socket
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from doubles import count_descriptors
from sk_keys import TYPES, certify, fingerprint_of, make_plain_key, make_sk_key, public_half
from sk_signing import ask_agent, lock_agent, running_agent
from ssh_key_bench import KEY, Host, invoke, make_host

from pam_mfa.cli import own_agent
from pam_mfa.errors import RefusedError
from pam_mfa.ssh_keys import key_blob, parse_key
from pam_mfa.ssh_wire import pack_strings
from pam_mfa.verifier.packets import Peer

ENABLE = ("enable", "ssh-key", "alice", "--from-agent")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host where nobody is enrolled, which the command line acts on."""
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(own_agent, "belongs_to", lambda *_: True)
    host = make_host(tmp_path, monkeypatch)
    yield host
    host.store.close()


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name leaves room for a socket's."""
    return tmp_path_factory.mktemp("a")


@pytest.fixture
def start(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Start the caller's agent with keys."""
    running = []

    def start_agent(*keys: Path) -> Path:
        agent = running_agent(place / "s", *keys)
        path = agent.__enter__()
        running.append(agent)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        return path

    yield start_agent
    for agent in running:
        agent.__exit__(None, None, None)


def refusal(result: Result) -> str:
    """Return the sentence and the hint that a command was refused with."""
    assert isinstance(result.exception, RefusedError), result.exception
    return f"{result.exception} {result.exception.hint}"


def act_as(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    """Have what asks the agent take itself for a user's."""
    parts = {"environ": os.environ, "fsencode": os.fsencode, "geteuid": lambda: uid}
    monkeypatch.setattr(own_agent, "os", types.SimpleNamespace(**parts))


@pytest.mark.parametrize("kind", TYPES)
def test_only_key(host: Host, start: Callable[..., Path], place: Path, kind: str) -> None:
    """The one key of a security key that the agent holds is enabled, proven by one signature."""
    key = make_sk_key(place / "key", kind)
    start(key, make_plain_key(place / "plain"))
    result = invoke(host, *ENABLE, "--name", "laptop")
    fingerprint = fingerprint_of(public_half(key))
    assert f"Enabled ssh-key/alice/laptop for alice: {fingerprint}." in result.output
    assert f"proven by a signature; {fingerprint}" == host.records()[-1]["detail"]


def test_certificate_beside_its_key(host: Host, start: Callable[..., Path], place: Path) -> None:
    """A key and its certificate in the agent are one key."""
    key = make_sk_key(place / "key")
    certify(make_plain_key(place / "authority"), key, "alice")
    path = start(key)
    assert 2 == len(ask_agent(path, "-L").splitlines())
    assert 0 == invoke(host, *ENABLE).exit_code
    (device,) = host.lifecycle.list_devices("alice")
    assert parse_key(public_half(key).read_text()) == getattr(device, "key", None)


def test_only_new_key(host: Host, start: Callable[..., Path], place: Path) -> None:
    """Of two keys the one that the user does not have yet is meant; then there is none left."""
    first, second = make_sk_key(place / "first"), make_sk_key(place / "second")
    host.lifecycle.enable_ssh_key("alice", public_half(first).read_text())
    start(first, second)
    assert fingerprint_of(public_half(second)) in invoke(host, *ENABLE).output
    assert "no key of a security key that is not enrolled already" in refusal(invoke(host, *ENABLE))


def test_several_keys(host: Host, start: Callable[..., Path], place: Path) -> None:
    """Of several, a script must say which, by the fingerprint."""
    keys = [make_sk_key(place / name) for name in ("one", "two")]
    start(*keys)
    fingerprints = [fingerprint_of(public_half(key)) for key in keys]
    sentence = refusal(invoke(host, *ENABLE))
    assert [True, True] == [one in sentence for one in fingerprints]
    assert 0 == invoke(host, *ENABLE, "--fingerprint", fingerprints[1]).exit_code
    assert fingerprints[1] in host.records()[-1]["detail"]
    assert "with this fingerprint" in refusal(invoke(host, *ENABLE, "--fingerprint", "SHA256:x"))


def test_several_keys_on_a_terminal(
    host: Host, start: Callable[..., Path], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal they are listed, and one is chosen by its number."""
    keys = [make_sk_key(place / name) for name in ("one", "two")]
    start(*keys)

    class Terminal:
        """Standard input that is a terminal."""

        @staticmethod
        def isatty() -> bool:
            """Say so."""
            return True

    class System:
        """What the module knows of the interpreter."""

        stdin = Terminal

    monkeypatch.setattr(own_agent, "sys", System)
    result = invoke(host, *ENABLE, stdin="7\n2\n")
    assert (0, True) == (result.exit_code, "Which key" in result.output)
    listed = [line for line in result.output.splitlines() if line.startswith("  2  ")]
    assert listed[0].split()[-1] in host.records()[-1]["detail"]


def test_no_key(host: Host, start: Callable[..., Path], place: Path) -> None:
    """An agent without a key of a security key is told so, with what to do."""
    start(make_plain_key(place / "plain"))
    assert "holds no key of a security key Add it where the agent runs" in refusal(
        invoke(host, *ENABLE)
    )


def test_locked(host: Host, start: Callable[..., Path], place: Path) -> None:
    """An agent that is locked shows no keys; the hint names that."""
    path = start(make_sk_key(place / "key"))
    lock_agent(path)
    assert "ssh-add -X" in refusal(invoke(host, *ENABLE))


def test_untouched_key(host: Host, start: Callable[..., Path], place: Path) -> None:
    """A key that signs without a touch is refused, through an agent as well."""
    start(make_sk_key(place / "key", "ed25519-sk", "no-touch-required"))
    assert "nobody touched" in refusal(invoke(host, *ENABLE))
    assert "unproven_registration" == host.records()[-1]["reason"]


@pytest.mark.parametrize(
    "path", ["", "relative/s", "/" + "x" * 200, "/nonexistent/s", "/etc/passwd"]
)
def test_no_agent(host: Host, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Where SSH_AUTH_SOCK is no agent's, that is said."""
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    assert "ssh -A" in refusal(invoke(host, *ENABLE))
    assert () == host.lifecycle.list_devices("alice")


def test_unset(host: Host) -> None:
    """Without SSH_AUTH_SOCK, as under sudo, the hint says how to keep it."""
    assert "sudo --preserve-env=SSH_AUTH_SOCK" in refusal(invoke(host, *ENABLE))


def test_somebody_elses_agent(
    host: Host, start: Callable[..., Path], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's agent is not asked anything."""
    start(make_sk_key(place / "key"))
    monkeypatch.setattr(own_agent, "peer_of", lambda _: Peer(1, 4242))
    assert "is of user id 4242, not yours" in refusal(invoke(host, *ENABLE))


def test_agent_of_who_called_sudo(
    host: Host, start: Callable[..., Path], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For root under sudo it is the agent of the user who called sudo, and that is told."""
    start(make_sk_key(place / "key"))
    monkeypatch.setattr(own_agent, "peer_of", lambda _: Peer(1, 4242))
    act_as(monkeypatch, 0)
    monkeypatch.setenv("SUDO_UID", "4242")
    assert "Asking the ssh-agent of user id 4242." in invoke(host, *ENABLE).output


def test_administrators_key_becomes_nobody_elses(
    host: Host, start: Callable[..., Path], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key in an administrator's own agent becomes another user's only where it is named."""
    key = make_sk_key(place / "key")
    start(key)
    monkeypatch.setattr(own_agent, "belongs_to", lambda uid, user: (uid, user) == (4242, "bob"))
    assert "the key would become alice's" in refusal(invoke(host, *ENABLE))
    named = invoke(host, *ENABLE, "--fingerprint", fingerprint_of(public_half(key)))
    assert 0 == named.exit_code


def test_socket_of_roots_under_sudo(
    host: Host, start: Callable[..., Path], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who calls sudo cannot have root write to a socket of root's in the place of an agent."""
    start(make_sk_key(place / "key"))
    monkeypatch.setattr(own_agent, "peer_of", lambda _: Peer(1, 0))
    act_as(monkeypatch, 0)
    monkeypatch.setenv("SUDO_UID", "4242")
    assert "is of user id 0, not yours" in refusal(invoke(host, *ENABLE))


@pytest.mark.parametrize("said", ["4242", "x", "", "-1", "\u0664", "9" * 9999])
def test_sudo_uid_of_others(
    host: Host,
    start: Callable[..., Path],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
) -> None:
    """Who is not root gains nothing by setting SUDO_UID, and root nothing by nonsense in it."""
    start(make_sk_key(place / "key"))
    monkeypatch.setattr(own_agent, "peer_of", lambda _: Peer(1, 4242))
    act_as(monkeypatch, 1000 if said == "4242" else 0)
    monkeypatch.setenv("SUDO_UID", said)
    assert "not yours" in refusal(invoke(host, *ENABLE))


IDENTITIES = pack_strings(
    bytes((12,)) + (1).to_bytes(4, "big") + pack_strings(key_blob(KEY), b"\x1b[2J")
)


@pytest.fixture
def hostile(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Start an agent that sends these answers, one a request, and then closes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(place / "h"))
    listener.listen(1)
    threads = []

    def serve(answers: tuple[bytes, ...]) -> None:
        connection, _ = listener.accept()
        with connection:
            for answer in answers:
                connection.recv(65536)
                connection.sendall(answer)

    def start_hostile(*answers: bytes) -> None:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place / "h"))
        threads.append(threading.Thread(target=serve, args=(answers,)))
        threads[-1].start()

    yield start_hostile
    for thread in threads:
        thread.join(30)
    listener.close()


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ((), "is gone"),
        ((b"\xff\xff\xff\xff",), "what no agent answers"),
        ((pack_strings(b"\5"),), "refused"),
        ((pack_strings(b"\x0c\xff\xff\xff\xff"),), "what no agent answers"),
        ((pack_strings(b"\x0c\0\0\0\0"),), "holds no key"),
        ((IDENTITIES, pack_strings(b"\5")), "refused"),
        ((IDENTITIES,), "is gone"),
        ((IDENTITIES, pack_strings(b"\x0e" + pack_strings(b"x" * 9000))), "too long"),
        ((IDENTITIES, pack_strings(b"\x0e" + pack_strings(b"x" * 9))), "the signature"),
    ],
    ids=["closes", "4 GB", "failure", "many", "none", "no signature", "gone", "long", "nonsense"],
)  # fmt: skip
def test_hostile_agent(
    host: Host, hostile: Callable[..., None], answers: tuple[bytes, ...], sentence: str
) -> None:
    """Whatever an agent sends, it is told in a sentence of our own, and enables nothing."""
    hostile(*answers)
    result = invoke(host, *ENABLE)
    assert sentence in refusal(result)
    assert "\x1b" not in f"{result.output}{refusal(result)}"
    assert () == host.lifecycle.list_devices("alice")


def test_descriptors_that_come_along(
    host: Host, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descriptors that a hostile agent sends along are closed."""
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place / "d"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(place / "d"))
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                socket.send_fds(connection, [pack_strings(b"\5")], [0, 1, 2])

        counts = []
        for _ in range(2):
            thread = threading.Thread(target=serve)
            thread.start()
            assert "what no agent answers" in refusal(invoke(host, *ENABLE))
            thread.join(30)
            counts.append(count_descriptors())
        assert counts[0] == counts[1]


def test_descriptor_is_closed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is not asked leaves no descriptor open."""
    made: list[socket.socket] = []

    class Noted(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            super().__init__(family, kind)
            made.append(self)

    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent/s")
    monkeypatch.setattr(socket, "socket", Noted)
    invoke(host, *ENABLE)
    assert [-1] == [one.fileno() for one in made]
