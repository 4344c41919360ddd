# SPDX-License-Identifier: Apache-2.0
"""Users enabling their own SSH keys: the desk asks, the key and its agent stay with the user."""

import os
import pwd
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result
from doubles import NONCE, encode_frame, make_layout
from sk_keys import fingerprint_of, make_plain_key, make_sk_key, public_half
from sk_signing import running_agent, sign
from ssh_key_bench import LINE, Host

from pam_mfa import wire
from pam_mfa.cli import ssh_keys
from pam_mfa.cli.__main__ import commands
from pam_mfa.cli.session import Session
from pam_mfa.errors import PamMfaError, RefusedError, WireError
from pam_mfa.self_service import client, desk
from pam_mfa.self_service.client import Sign
from pam_mfa.self_service.desk import serve_petition
from pam_mfa.self_service.protocol import (
    End,
    Operation,
    Petition,
    SignRequest,
    build_petition,
    build_sign_request,
    build_signature,
    parse_petition,
    parse_reply,
    parse_signature,
)
from pam_mfa.ssh_possession import namespace_of

ME = pwd.getpwuid(os.getuid()).pw_name
NAMESPACE = namespace_of(os.uname().nodename)
ALLOWED = "self_service: {enable: true, deactivate: true}"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host whose policy lets users enable devices, after a password that is always right."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    host = Host(make_layout(tmp_path / "root"))
    host.set_policy(ALLOWED)
    monkeypatch.setattr(desk, "_check_password", lambda *_: None)
    monkeypatch.setattr(desk, "drop_privileges", lambda: None)
    monkeypatch.setattr(Session, "is_own", property(lambda _: True))
    yield host
    host.store.close()


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """The user's key."""
    return make_sk_key(tmp_path / "laptop")


class Talk:
    """What a user saw of a petition."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.told: list[str] = []
        self.signed: list[str] = []
        self.error: PamMfaError | None = None


def petition(host: Host, wanted: Petition, signature: Callable[[str], str | None]) -> Talk:
    """Petition, and answer what is to be signed."""
    ours, service = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    talk = Talk()
    serving = Thread(target=serve_petition, args=(service, host.layout))
    with ours, service:
        ours.settimeout(30)
        ours.send(build_petition(NONCE, wanted))
        serving.start()
        while True:
            reply = parse_reply(ours.recv(wire.FRAME_MAX + 1), NONCE)
            if isinstance(reply, End):
                talk.error = reply.error
                break
            if isinstance(reply, SignRequest):
                talk.signed.append(reply.challenge)
                ours.send(build_signature(NONCE, signature(reply.challenge)))
            else:
                talk.told.append(getattr(reply, "text", ""))
        serving.join(30)
    return talk


def ask_for(key: Path, **fields: str) -> Petition:
    """Return a petition for a key."""
    text = public_half(key).read_text()
    return Petition(Operation.ENABLE_SSH_KEY, ME, public_key=text, **fields)


def signer(key: Path, namespace: str = NAMESPACE) -> Callable[[str], str]:
    """Return what has a key sign."""
    return lambda challenge: sign(key, namespace, challenge)


def names(host: Host) -> list[str]:
    """Return the names of the user's devices."""
    return [device.name for device in host.lifecycle.list_devices(ME)]


def test_enable(host: Host, laptop: Path) -> None:
    """A user enables a key by its signature; the record says so, and who the user is."""
    talk = petition(host, ask_for(laptop, name="laptop"), signer(laptop))
    assert (None, f"Enabled ssh-key/{ME}/laptop for {ME}.") == (talk.error, talk.told[-1])
    record = host.records()[-1]
    detail = f"proven by a signature; {fingerprint_of(public_half(laptop))}"
    assert (os.getuid(), detail) == (record["caller_uid"], record["detail"])


def test_nobody_vouches(host: Host, laptop: Path) -> None:
    """Without a signature nothing is enabled: a user's word about a key of others is no proof."""
    talk = petition(host, ask_for(laptop), lambda _: None)
    assert "there was no signature of the key" in str(talk.error)
    assert ([], "no_conversation") == (names(host), host.records()[-1]["reason"])


@pytest.mark.parametrize("text", ["vouch", "\x1b[2J", "A" * 16000])
def test_no_signature(host: Host, laptop: Path, text: str) -> None:
    """What is no signature is refused, and leaves one record."""
    talk = petition(host, ask_for(laptop), lambda _: text)
    assert "the SSH key was refused: the signature: " in str(talk.error)
    assert ["unproven_registration"] == [one["reason"] for one in host.records()]


def test_key_of_somebody_else(host: Host, laptop: Path, tmp_path: Path) -> None:
    """A public key that was found somewhere is not enabled by another key's signature."""
    talk = petition(host, ask_for(laptop), signer(make_sk_key(tmp_path / "other")))
    assert "signed by another key" in str(talk.error)
    assert [] == names(host)


def test_replayed(host: Host, laptop: Path) -> None:
    """A signature of an earlier petition enables nothing again."""
    texts: list[str] = []

    def keep(challenge: str) -> str:
        texts.append(sign(laptop, NAMESPACE, challenge))
        return texts[0]

    assert None is petition(host, ask_for(laptop), keep).error
    host.lifecycle.deactivate(ME, f"ssh-key/{ME}/ssh-key", leave_none=True)
    assert "not over a challenge that is good now" in str(
        petition(host, ask_for(laptop), keep).error
    )
    assert [] == names(host)


def test_not_allowed(host: Host, laptop: Path) -> None:
    """Where policy does not let users enable devices, nothing is asked."""
    host.set_policy("self_service: {deactivate: true}")
    talk = petition(host, ask_for(laptop), signer(laptop))
    assert ("not_allowed", []) == (host.records()[-1]["reason"], talk.signed)


def test_policy_asks_for_the_model(host: Host, laptop: Path) -> None:
    """Where policy asks for a model, users bring the attestation as administrators do."""
    host.set_policy(
        f"{ALLOWED}\nfido: {{attestation: {{aaguids: [00000000-0000-4000-8000-000000000001]}}}}"
    )
    talk = petition(host, ask_for(laptop), signer(laptop))
    assert ("no attestation was shown" in str(talk.error), []) == (True, talk.signed)
    files = {"attestation": "\0\udcff", "challenge": "\0"}
    talk = petition(host, ask_for(laptop, **files), signer(laptop))
    assert "no attestation file of ssh-keygen" in str(talk.error)
    assert [] == names(host)


def test_plain_key(host: Host, tmp_path: Path) -> None:
    """A key that lives in a file is refused before anything is signed."""
    key = make_plain_key(tmp_path / "plain")
    talk = petition(host, ask_for(key), signer(key))
    assert ("not the public key of a security key" in str(talk.error), []) == (True, talk.signed)


def test_first_device_comes_meanwhile(host: Host, laptop: Path) -> None:
    """A petition that began without a device ends where the user has got one meanwhile."""

    def enroll_first(challenge: str) -> str:
        host.lifecycle.enable_ssh_key(ME, LINE, "first")
        return sign(laptop, NAMESPACE, challenge)

    talk = petition(host, ask_for(laptop), enroll_first)
    assert "were changed meanwhile" in str(talk.error)
    assert (["first"], "devices_changed") == (names(host), host.records()[-1]["reason"])


def test_user_leaves(host: Host, laptop: Path) -> None:
    """Who hangs up instead of signing has enabled nothing, and that is recorded."""
    ours, service = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with service:
        with ours:
            ours.settimeout(30)
            ours.send(build_petition(NONCE, ask_for(laptop)))
            serving = Thread(target=_serve, args=(service, host))
            serving.start()
            assert isinstance(parse_reply(ours.recv(40000), NONCE), SignRequest)
        serving.join(30)
    assert ([], "abandoned") == (names(host), host.records()[-1]["reason"])


def _serve(service: socket.socket, host: Host) -> None:
    with pytest.raises(OSError, match="pipe"):
        serve_petition(service, host.layout)


@pytest.fixture
def command(host: Host, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command as a user, with a desk at the other end."""

    def send(path: Path, wanted: Petition, answer: object, sign: Sign) -> list[object]:
        del answer
        assert host.layout.self_service_socket == path
        talk = petition(host, wanted, sign)
        if talk.error:
            raise talk.error
        return []

    def run(*words: str, stdin: str = "") -> Result:
        arguments = ["--root", str(host.layout.root), "enable", "ssh-key", ME, *words]
        return CliRunner().invoke(commands, arguments, input=stdin)

    monkeypatch.setattr("pam_mfa.cli.session.send_petition", send)
    return run


def test_command_with_the_agent(
    host: Host,
    command: Callable[..., Result],
    laptop: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The user's own command asks the user's own agent; the service gets the signature."""
    with running_agent(tmp_path_factory.mktemp("a") / "s", laptop) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        result = command("--from-agent")
    assert (None, ["ssh-key"]) == (result.exception, names(host))
    assert "Touch the security key on your own computer" in result.output


def test_command_with_a_signature(
    host: Host, command: Callable[..., Result], laptop: Path, tmp_path: Path
) -> None:
    """Without an agent the challenge is shown, and the signature brought by a second run."""
    words = ("--public-key", str(public_half(laptop)))
    shown = command(*words)
    assert "there was no signature" in str(shown.exception)
    assert f"for {ME} on " in shown.output
    challenge = shown.output.partition("printf '%s\\n' '")[2].partition("'")[0]
    (tmp_path / "signature").write_text(sign(laptop, NAMESPACE, f"{challenge}\n"))
    done = command(*words, "--signature", str(tmp_path / "signature"))
    assert (None, ["ssh-key"]) == (done.exception, names(host))


def test_command_that_vouches(host: Host, command: Callable[..., Result], laptop: Path) -> None:
    """A user cannot vouch."""
    error = command("--public-key", str(public_half(laptop)), "--vouch").exception
    assert "only an administrator can vouch" in str(error)
    assert [] == names(host)


def test_pasted(
    host: Host, command: Callable[..., Result], laptop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal the signature is pasted; the word that vouches is no signature here."""
    import sys  # noqa: PLC0415 - what CliRunner has put in its place

    class Terminal:
        """Standard input that is a terminal."""

        @staticmethod
        def isatty() -> bool:
            """Say so."""
            return True

        @staticmethod
        def readline(limit: int) -> str:
            """Read from what CliRunner was given."""
            return sys.stdin.readline(limit)

    class System:
        """What the module knows of the interpreter."""

        stdin = Terminal

    monkeypatch.setattr(ssh_keys, "sys", System)
    words = ("--public-key", str(public_half(laptop)))
    refused = command(*words, stdin="vouch\n")
    assert ("the signature" in str(refused.exception), []) == (True, names(host))
    challenge = refused.output.partition("printf '%s\\n' '")[2].partition("'")[0]
    done = command(*words, stdin=sign(laptop, NAMESPACE, f"{challenge}\n"))
    assert (None, ["ssh-key"]) == (done.exception, names(host))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        build_signature(bytes(16), "text"),
        encode_frame(0x12, [(2, b"text")]),
        encode_frame(0x12, [(1, b"text"), (2, b"more")]),
        encode_frame(0x02, [(2, b"text")]),
        encode_frame(0x12, [(1, b"text")], version=2),
        encode_frame(0x12, [(1, b"text")])[:-1],
    ],
    ids=["empty", "nonce", "tag", "more", "answer", "version", "cut"],
)
def test_no_frame_of_a_signature(packet: bytes) -> None:
    """What is no whole answer to a request to sign is refused."""
    with pytest.raises(WireError):
        parse_signature(packet, NONCE)


@pytest.mark.parametrize("text", ["x", "\u00e4\udcff", "-----BEGIN SSH SIGNATURE-----\n"])
def test_signature_comes_through(text: str) -> None:
    """A signature's text comes out as it went in; none is none."""
    assert text == parse_signature(build_signature(NONCE, text), NONCE)
    assert None is parse_signature(build_signature(NONCE, None), NONCE)
    assert SignRequest(text) == parse_reply(build_sign_request(NONCE, text), NONCE)


@pytest.mark.parametrize(
    "packet",
    [encode_frame(0x93, []), encode_frame(0x93, [(1, b"")]), encode_frame(0x93, [(2, b"x")])],
)
def test_no_request_to_sign(packet: bytes) -> None:
    """A request without a challenge is none."""
    with pytest.raises(WireError):
        parse_reply(packet, NONCE)


@pytest.mark.parametrize(("tag", "size"), [(12, 8192), (13, 8192), (14, 1024)])
def test_long_fields(tag: int, size: int) -> None:
    """A public key and an attestation may be longer than other texts, and no longer."""
    fields = [(1, b"enable-ssh-key"), (2, b"alice")]
    _, wanted = parse_petition(encode_frame(0x11, [*fields, (tag, b"\xff" * size)]))
    assert size == len(wanted[tag - 1])
    with pytest.raises(WireError, match="too long"):
        parse_petition(encode_frame(0x11, [*fields, (tag, b"\xff" * (size + 1))]))


def test_client_signs_nothing_unasked() -> None:
    """A service that asks for a signature where none was offered gets none."""
    assert None is client.sign_nothing("challenge")  # type: ignore[func-returns-value]


def test_petition_shows_no_evidence() -> None:
    """A petition is printed by its operation and user alone."""
    text = repr(Petition(Operation.ENABLE_SSH_KEY, "alice", public_key="k", attestation="a"))
    assert "Petition(enable-ssh-key, 'alice')" == text


def test_refused_error_is_refused(host: Host, laptop: Path) -> None:
    """A key that the user has already is refused, by the name that it has."""
    host.lifecycle.enable_ssh_key(ME, public_half(laptop).read_text(), "first")
    with pytest.raises(RefusedError, match=f"has this key already, as ssh-key/{ME}/first"):
        host.lifecycle.begin_ssh_key(ME, public_half(laptop).read_text())
