# SPDX-License-Identifier: Apache-2.0
"""The command line of security keys: ``enable fido``, ``keys`` and ``import u2f``."""

import io
import json
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from threading import Event, Timer
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from doubles import VECTORS, Clock, make_layout
from ports import MODEL, PIN, KeyHost, Ports, set_pin, want
from security_key.model import U2F_ONLY
from security_key.person import Touch

from pam_mfa.audit import Reason
from pam_mfa.cli import terminal
from pam_mfa.cli.__main__ import commands
from pam_mfa.cli.session import Session
from pam_mfa.errors import BrokenSystemError, KeyAccessError, PolicyError, RefusedError
from pam_mfa.importing.security_keys import KeyImporter, Origins
from pam_mfa.lifecycle import Actor
from pam_mfa.self_service.protocol import Operation, Petition
from pam_mfa.verification import Ask, Commit, Listen, Need, Tell, Work

MAPPINGS = VECTORS / "u2f_keys/u2f_mappings"
ENABLED = "Enabled fido/alice/yubikey-5-nfc for alice.\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyHost]:
    """What root acts on: ports, and a store under a temporary directory."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    ports = Ports(monkeypatch)
    host = KeyHost(make_layout(tmp_path), ports)

    def make_importer(_: Session, origins: Origins) -> KeyImporter:
        return KeyImporter(host.store, Clock(), Actor(0, 1, None), origins)

    monkeypatch.setattr(Session, "is_own", property(lambda _: False))
    monkeypatch.setattr(Session, "lifecycle", property(lambda _: host.lifecycle))
    monkeypatch.setattr(Session, "key_importer", make_importer)
    yield host
    host.store.close()
    ports.close()


@pytest.fixture
def petitions(host: KeyHost, monkeypatch: pytest.MonkeyPatch) -> list[Petition]:
    """What a user who is not root asks the service for."""
    del host  # it lets root act; from here on it is a user
    asked: list[Petition] = []

    def petition(_: Session, petition: Petition) -> list[dict[str, object]]:
        asked.append(petition)
        return []

    monkeypatch.setattr(Session, "is_own", property(lambda _: True))
    monkeypatch.setattr(Session, "petition", petition)
    return asked


def invoke(host: KeyHost, *arguments: str, stdin: str = "") -> Result:
    """Run a command, not under ``main``: a refusal is the result's exception."""
    root = str(host.layout.root)
    return CliRunner().invoke(commands, ["--root", root, *arguments], input=stdin)


def write_policy(host: KeyHost, text: str) -> None:
    """Put a policy in force."""
    host.layout.policy.write_text(f"version: 1\n{text}\n")
    host.layout.policy.chmod(0o644)


def test_enable(host: KeyHost) -> None:
    """A key is enabled by two touches, each of which is asked for."""
    host.ports.plug()
    result = invoke(host, "enable", "fido", "alice")
    assert (0, True) == (result.exit_code, result.output.endswith(ENABLED))
    assert 2 == result.output.lower().count("touch ")


def test_enable_by_name(host: KeyHost) -> None:
    """A name can be given."""
    host.ports.plug()
    result = invoke(host, "enable", "fido", "alice", "--name", "blue-key")
    assert result.output.endswith("Enabled fido/alice/blue-key for alice.\n")


def test_enable_with_pin(host: KeyHost) -> None:
    """The PIN comes from standard input where that is no terminal, and is not written."""
    set_pin(host.ports.plug())
    result = invoke(
        host, "enable", "fido", "alice", "--require-verification", stdin=f"0000\n{PIN}\n"
    )
    assert (0, True) == (result.exit_code, result.output.endswith(ENABLED))
    assert "7 attempts left" in result.output
    assert PIN not in result.output


def test_enable_without_pin(host: KeyHost) -> None:
    """Where nobody answers, nothing is enabled."""
    set_pin(host.ports.plug())
    result = invoke(host, "enable", "fido", "alice", "--require-verification")
    assert isinstance(result.exception, RefusedError)
    assert "there was no answer" in str(result.exception)


def test_enable_discoverable(host: KeyHost) -> None:
    """A discoverable credential is made where it is asked for."""
    injected = host.ports.plug()
    assert 0 == invoke(host, "enable", "fido", "alice", "--discoverable").exit_code
    assert injected.key.memory.credentials[0].is_discoverable


def test_policy_decides(host: KeyHost) -> None:
    """The policy in force says which models may be enabled."""
    host.ports.plug()
    write_policy(host, "fido: {attestation: {aaguids: [00000000-0000-4000-8000-000000000001]}}")
    result = invoke(host, "enable", "fido", "alice")
    assert isinstance(result.exception, RefusedError)
    assert f"policy does not list its model, {MODEL}" in str(result.exception)


def test_broken_policy(host: KeyHost) -> None:
    """With a policy that cannot be read nothing is enabled."""
    injected = host.ports.plug()
    write_policy(host, "fido: {attestation: {aaguid: x}}")
    result = invoke(host, "enable", "fido", "alice")
    assert isinstance(result.exception, BrokenSystemError)
    assert not isinstance(result.exception, PolicyError)
    assert 0 == injected.counters["touches"]


def test_closed_node(host: KeyHost) -> None:
    """A key that may not be opened is the system's fault, and the way out is told."""
    host.ports.plug()
    host.ports.is_closed = True
    result = invoke(host, "enable", "fido", "alice")
    assert isinstance(result.exception, KeyAccessError)
    assert (3, True) == (result.exception.exit_status, bool(result.exception.hint))


@pytest.mark.parametrize(
    ("options", "name", "wishes"),
    [
        ((), "", ""),
        (("--name", "blue"), "blue", ""),
        (("--discoverable",), "", "discoverable"),
        (("--require-verification",), "", "verification"),
        (("--discoverable", "--require-verification"), "", "discoverable verification"),
    ],
)
def test_own_key(
    host: KeyHost, petitions: list[Petition], options: tuple[str, ...], name: str, wishes: str
) -> None:
    """Who is not root asks the service for a key of his own."""
    invoke(host, "enable", "fido", "alice", *options)
    assert [Petition(Operation.ENABLE_FIDO, "alice", name=name, wishes=wishes)] == petitions


def test_no_keys(host: KeyHost) -> None:
    """Where no key is attached, that is said."""
    assert "No security key is attached to this machine.\n" == invoke(host, "keys").output


def test_keys(host: KeyHost) -> None:
    """Every attached key is listed with what it is and whose it is."""
    injected = host.ports.plug()
    host.enable()
    host.enable("bob")
    set_pin(injected)
    host.ports.plug(U2F_ONLY, name="Old Key")
    first, second = json.loads(invoke(host, "keys", "--json").output)
    expected = {
        "node": "/dev/hidraw0", "product": "YubiKey 5 NFC",
        "users": "alice: yubikey-5-nfc, bob: yubikey-5-nfc",
        "versions": "U2F_V2 FIDO_2_0 FIDO_2_1", "aaguid": MODEL, "pin": "set",
        "pin_attempts_left": 8, "built_in_verification": "", "problem": "",
    }  # fmt: skip
    assert expected == first
    assert ("Old Key", "", "U2F_V2", "none") == (
        second["product"], second["users"], second["versions"], second["pin"],
    )  # fmt: skip
    assert 4 == injected.counters["touches"]


def test_keys_in_a_table(host: KeyHost) -> None:
    """For people the keys are a table."""
    host.ports.plug()
    lines = invoke(host, "keys").output.splitlines()
    assert lines[0].startswith("NODE")
    assert "/dev/hidraw0" in lines[1]


def test_key_that_cannot_be_opened(host: KeyHost) -> None:
    """A key that cannot be opened is listed with the reason and the way out."""
    host.ports.plug()
    host.ports.is_closed = True
    (row,) = json.loads(invoke(host, "keys", "--json").output)
    assert "user id 1000 may not open /dev/hidraw0. Install the udev rule." == row["problem"]
    assert ("", "") == (row["pin"], row["versions"])


@pytest.mark.usefixtures("petitions")
def test_keys_without_root(host: KeyHost) -> None:
    """Who is not root sees the keys, and not whose they are."""
    host.ports.plug()
    host.enable()
    (row,) = json.loads(invoke(host, "keys", "--json").output)
    assert ("YubiKey 5 NFC", "") == (row["product"], row["users"])


def import_u2f(host: KeyHost, *options: str, file: Path = MAPPINGS) -> Result:
    """Import a file."""
    return invoke(host, "import", "u2f", str(file), *options)


def test_import(host: KeyHost) -> None:
    """An import says what became of each credential."""
    result = import_u2f(host, "--origin", "pam://example")
    summary = "Imported 5 security keys; 0 were there already; 1 are left out, 0 are bad.\n"
    assert (0, True) == (result.exit_code, result.output.endswith(summary))
    assert 5 == result.output.count("ES256, pam://example") - 1
    assert ["alice", "bob"] == host.lifecycle.users()


def test_import_default_origin(host: KeyHost) -> None:
    """Without an origin it is this host's name, as pam_u2f has it."""
    assert f"pam://{os.uname().nodename}" in import_u2f(host).output


def test_import_dry_run(host: KeyHost) -> None:
    """A dry run changes nothing."""
    result = import_u2f(host, "--dry-run", "--json")
    rows = json.loads(result.stdout)
    assert ["import"] * 2 + ["left out"] + ["import"] * 3 == [row["result"] for row in rows]
    assert "nothing was changed" in result.stderr
    assert [] == host.lifecycle.users()


def test_import_of_one_user(host: KeyHost) -> None:
    """One user's credentials can be taken alone."""
    import_u2f(host, "--user", "bob")
    assert ["bob"] == host.lifecycle.users()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A file with a bad entry."""
    path = tmp_path / "u2f_keys"
    path.write_bytes(MAPPINGS.read_bytes() + b"carol:nonsense\n")
    path.chmod(0o600)
    return path


def test_import_with_bad_entries(host: KeyHost, mixed: Path) -> None:
    """A file with a bad entry is refused as a whole, and the entry is named."""
    result = import_u2f(host, file=mixed)
    assert isinstance(result.exception, RefusedError)
    assert f"{mixed}, line 3: a credential has not the two fields" in result.output
    assert [] == host.lifecycle.users()


def test_import_without_bad_entries(host: KeyHost, mixed: Path) -> None:
    """Where it is said, the others of a file are taken."""
    result = import_u2f(host, "--skip-bad", file=mixed)
    assert result.output.endswith("1 are left out, 1 are bad.\n")
    assert ["alice", "bob"] == host.lifecycle.users()


def test_import_of_a_file_that_others_may_write(host: KeyHost, mixed: Path) -> None:
    """A file that others may write could give anybody another user's logins."""
    mixed.chmod(0o666)
    assert isinstance(import_u2f(host, file=mixed).exception, BrokenSystemError)


def test_import_needs_root(host: KeyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root imports."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert isinstance(import_u2f(host).exception, RefusedError)


def test_ctrl_c(host: KeyHost) -> None:
    """Ctrl-C ends the wait for a touch, and the key is free for the next."""
    injected = host.ports.plug()
    injected.person.touch = Touch.WAIT
    pending = host.lifecycle.begin_fido("alice")

    def dialogue() -> Generator[Need, Any, object]:
        reply = yield Work(blink)
        return reply

    def blink(canceled: Event) -> object:
        (report,) = host.registrar.examine((), canceled)
        Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        return host.registrar.make(want(report, pending, seconds=60.0), canceled)

    with pytest.raises(click.Abort):
        terminal.drive(dialogue())
    injected.person.touch = Touch.YES
    assert "fido/alice/yubikey-5-nfc" == host.enable().serial_number


def talk() -> Generator[Need, Any, object]:
    """Say something, ask something, return the answer."""
    yield Tell("Hello.")
    yield Ask("PIN: ")
    answer = yield Listen()
    return answer


def test_terminal_hides_what_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the PIN is read without an echo."""
    asked: list[tuple[str, bool]] = []

    def prompt(text: str, *, hide_input: bool, **_: object) -> str:
        asked.append((text, hide_input))
        return "secret"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "prompt", prompt)
    assert "secret" == terminal.drive(talk())
    assert [("PIN", True)] == asked


def test_terminal_without_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of standard input there is no answer."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert Reason.NO_CONVERSATION is terminal.drive(talk())


def test_terminal_commits_nothing() -> None:
    """A dialogue on a terminal makes nothing durable by itself."""

    def dialogue() -> Generator[Need, Any, None]:
        yield Commit(None)  # type: ignore[arg-type]

    with pytest.raises(BrokenSystemError):
        terminal.drive(dialogue())
