# SPDX-License-Identifier: Apache-2.0
"""The command line: usage, help, refusals and their exit status, and what commands print."""

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from doubles import REPOSITORY, SEED, STEP, Clock, code_of, make_layout

from pam_mfa import __version__
from pam_mfa.cli.__main__ import commands, main
from pam_mfa.cli.session import Session
from pam_mfa.errors import RefusedError, StateError
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.oath import encode_seed
from pam_mfa.store.embedded import EmbeddedStore

Command = tuple[str, ...]
PAIR = (code_of(SEED, STEP), code_of(SEED, STEP + 1))
ENABLE = ("enable", "virtual", "alice", "--secret", "-", "--codes", *PAIR)
SECRET = encode_seed(SEED) + "\n"


def find_commands(command: click.Command, path: Command = ()) -> Iterator[Command]:
    """Go through every command and group, by its words."""
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from find_commands(inner, (*path, name))


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs ``pam-mfa`` in this process; returns its exit status and what it wrote."""

    def run_main(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pam-mfa", *arguments])
        status: object = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        assert isinstance(status, int)
        return status, *capsys.readouterr()

    return run_main


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests, pam-mfa is run by somebody who is not root."""
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)


def test_command_brings_no_other() -> None:
    """Whoever runs one command does not wait for what others import; each has its own name."""
    program = (
        "import sys; import pam_mfa.cli.__main__ as main; "
        "print(*(one for one in sys.modules if one.startswith('pam_mfa.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    rooms = {name.split(".")[1] for name in done.stdout.split()}
    assert set() == rooms & {"audit_reading", "doctor", "importing", "switching"}
    assert list(commands.commands) == [command.name for command in commands.commands.values()]


@pytest.mark.parametrize("path", list(find_commands(commands)), ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(run: Run, path: Command, option: str) -> None:
    """Every command says what it does, to whoever asks."""
    status, out, err = run(*path, option)
    assert (0, "") == (status, err)
    assert out.startswith(f"Usage: {' '.join(('pam-mfa', *path))} ")


@pytest.mark.parametrize("path", list(find_commands(commands)), ids=" ".join)
def test_help_texts(path: Command) -> None:
    """Every command and every option has a text."""
    command: click.Command = commands
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    options = [each for each in command.params if isinstance(each, click.Option)]
    untold = [each.name for each in options if not each.help and not each.show_default]
    explained = {"digits", "period", "version"}  # their choices explain them
    assert command.help
    assert not set(untold) - explained


def test_version(run: Run) -> None:
    """The version is told."""
    assert (0, f"pam-mfa, version {__version__}\n", "") == run("--version")


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("--frobnicate",),
        ("list", "--frobnicate"),
        ("list", "alice", "bob"),
        ("enable", "virtual"),
        ("enable", "fax", "alice"),
        ("enable", "sms"),
        ("enable", "virtual", "alice", "--digits", "5"),
        ("enable", "virtual", "alice", "--period", "45"),
        ("enable", "virtual", "alice", "--algorithm", "MD5"),
        ("enable", "virtual", "alice", "--codes", "123456"),
        ("enable", "virtual", "alice", "--secret", "GEZDGNBVGY3TQOJQ"),
        ("deactivate", "alice"),
        ("unlock",),
        ("try", "alice"),
        ("try", "alice", "--service", "x", "--pam-dir", "/nonexistent"),
        ("--root", "/etc/passwd", "list"),
        ("import", "google-authenticator"),
        ("import", "google-authenticator", "/etc/hostname"),
        ("import", "google-authenticator", "/etc/hostname", "--all-homes"),
        ("import", "google-authenticator", "/etc/hostname", "--user", "alice", "--user", "bob"),
        ("import", "google-authenticator", "--user", "alice", "--all-homes"),
        ("import", "oath"),
        ("import", "oath", "/nonexistent"),
    ],
    ids=" ".join,
)
def test_wrong_usage(run: Run, arguments: Command) -> None:
    """Wrong usage is told on the standard error, with exit status 2."""
    status, out, err = run(*arguments)
    assert (2, "") == (status, out)
    assert "Error: " in err


@pytest.mark.parametrize("arguments", [("enable",), ("switch",)], ids=" ".join)
def test_no_command(run: Run, arguments: Command) -> None:
    """Without a command the help is shown, and the exit status is that of wrong usage."""
    status, out, err = run(*arguments)
    assert 2 == status
    assert "Usage: pam-mfa" in out + err


@pytest.mark.usefixtures("not_root")
@pytest.mark.parametrize(
    "arguments",
    [
        ("unlock", "alice"),
        ("bypass", "alice"),
        ("token", "list"),
        ("import", "google-authenticator", "--all-homes"),
        ("import", "oath", "/etc/hostname"),
        ("import", "u2f", "/etc/hostname"),
    ],
    ids=" ".join,
)
def test_not_root(run: Run, tmp_path: Path, arguments: Command) -> None:
    """Who is not root is refused what is an administrator's, and nothing is touched."""
    expected = "pam-mfa: only root may do this.\nRun the command with sudo.\n"
    assert (1, "", expected) == run("--root", str(tmp_path), *arguments)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.usefixtures("not_root")
@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("list", "alice"),
        ("status",),
        ("enable", "virtual", "alice"),
        ("enable", "recovery", "alice"),
        ("enable", "token", "alice", "--serial-number", "T-1"),
        ("resync", "alice", "virtual/alice/phone"),
        ("deactivate", "alice", "virtual/alice/phone"),
    ],
    ids=" ".join,
)
def test_own_devices_need_the_service(run: Run, tmp_path: Path, arguments: Command) -> None:
    """Who is not root asks the service, and is told to have it started where there is none."""
    status, out, err = run("--root", str(tmp_path), *arguments)
    assert (3, "") == (status, out)
    assert "pam-mfa-selfd.socket" in err
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("user", ["alice", "nobody-at-all"])
def test_sms(run: Run, user: str) -> None:
    """SMS is refused with the reason and what to use instead, to root and others alike."""
    status, out, err = run("enable", "sms", user)
    assert (1, "") == (status, out)
    assert err.startswith("pam-mfa: SMS is not a device type: messages are intercepted")
    assert err.endswith("Use a virtual MFA device: pam-mfa enable virtual USER\n")


def test_broken_system(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system is broken the exit status is 3, with the sentence and the hint."""

    def fail(_session: Session) -> Lifecycle:
        raise StateError("the state cannot be used", hint="See: df")

    monkeypatch.setattr(Session, "lifecycle", property(fail))
    assert (3, "", "pam-mfa: the state cannot be used.\nSee: df\n") == run("list")


def test_abort(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who aborts a prompt is told that nothing was changed, with exit status 1."""

    def abort(_session: Session) -> Lifecycle:
        raise click.Abort

    monkeypatch.setattr(Session, "lifecycle", property(abort))
    assert (1, "", "Aborted; nothing was changed.\n") == run("list")


@pytest.mark.parametrize(
    ("arguments", "status"), [(("--version",), 0), (("--help",), 0), (("frobnicate",), 2)]
)
def test_program(arguments: Command, status: int) -> None:
    """Run as a program of its own, pam-mfa exits by itself and shows no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "pam_mfa.cli", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (status, False) == (done.returncode, "Traceback" in done.stderr)


@pytest.fixture
def lifecycle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lifecycle]:
    """What root acts on: a store under a temporary directory, with nobody enrolled."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    store = EmbeddedStore(make_layout(tmp_path))
    lifecycle = Lifecycle(store, Clock(), Actor(0, 1, None))
    monkeypatch.setattr(Session, "lifecycle", property(lambda _: lifecycle))
    yield lifecycle
    store.close()


def invoke(*arguments: str, stdin: str = "") -> Result:
    """Run a command, not under ``main``: a refusal is the result's exception."""
    return CliRunner().invoke(commands, ["--root", "/tmp/x", *arguments], input=stdin)  # noqa: S108


@pytest.mark.usefixtures("lifecycle")
def test_enable() -> None:
    """A device is enabled by a secret and two codes, and what it is called is told."""
    result = invoke(*ENABLE, stdin=SECRET)
    assert (0, "Enabled virtual/alice/phone for alice.\n") == (result.exit_code, result.output)


@pytest.mark.usefixtures("lifecycle")
@pytest.mark.parametrize("codes", [PAIR[::-1], (PAIR[0], PAIR[0]), ("1", "2")])
def test_enable_by_other_codes(codes: tuple[str, str]) -> None:
    """Codes given as options are tried once."""
    result = invoke(*ENABLE[:-2], *codes, stdin=SECRET)
    assert isinstance(result.exception, RefusedError)
    assert "not consecutive codes" in str(result.exception)


@pytest.mark.usefixtures("lifecycle")
def test_enable_without_terminal() -> None:
    """Where nobody can be asked, the codes must be given."""
    result = invoke(*ENABLE[:-3], stdin=SECRET)
    assert (2, True) == (result.exit_code, "--codes C1 C2 is needed" in result.output)


@pytest.mark.usefixtures("lifecycle")
@pytest.mark.parametrize("stdin", ["", "not base32!\n", "GEZDGNBVGY3TQOJQ\n"])
def test_enable_by_other_secret(stdin: str) -> None:
    """A secret that cannot be one is refused."""
    result = invoke(*ENABLE, stdin=stdin)
    assert isinstance(result.exception, RefusedError)
    assert str(result.exception).startswith("the secret ")


def test_new_secret_is_shown(lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that was made is shown once, as a QR code and for typing."""
    begin = lifecycle.begin_virtual
    monkeypatch.setattr(
        lifecycle, "begin_virtual", lambda user, name, **_: begin(user, name, seed=SEED)
    )
    result = invoke("enable", "virtual", "alice", "--codes", *PAIR)
    grouped = "AAAQ EAYE AUDA OCAJ BIFQ YDIO B4IB CEQT"
    assert (0, 1) == (result.exit_code, result.output.count(grouped))
    assert "█" in result.output


@pytest.mark.usefixtures("lifecycle")
def test_given_secret_is_not_shown() -> None:
    """A secret that was given is not shown again."""
    assert "AAAQ" not in invoke(*ENABLE, stdin=SECRET).output


@pytest.mark.usefixtures("lifecycle")
def test_list() -> None:
    """Devices are listed in a table with a line each."""
    invoke(*ENABLE, stdin=SECRET)
    lines = invoke("list").output.splitlines()
    assert ["USER", "SERIAL", "NUMBER", "TYPE", "NAME", "ENABLED", "AT"] == lines[0].split()
    assert ["alice", "virtual/alice/phone", "virtual", "phone", "2023-11-14T22:14:05Z"] == (
        lines[1].split()
    )


@pytest.mark.usefixtures("lifecycle")
def test_list_json() -> None:
    """For programs, devices are listed as JSON, without their secrets."""
    invoke(*ENABLE, stdin=SECRET)
    expected = [
        {
            "user": "alice", "serial_number": "virtual/alice/phone", "type": "virtual",
            "name": "phone", "enabled_at": "2023-11-14T22:14:05Z",
        }
    ]  # fmt: skip
    assert expected == json.loads(invoke("list", "alice", "--json").output)


@pytest.mark.usefixtures("lifecycle")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("list",), "No user has an MFA device.\n"),
        (("list", "alice"), "alice has no MFA device.\n"),
        (("list", "--json"), "[]\n"),
    ],
)
def test_list_nothing(arguments: Command, expected: str) -> None:
    """Where there is no device, that is said."""
    assert expected == invoke(*arguments).output


@pytest.mark.usefixtures("lifecycle")
def test_deactivate() -> None:
    """Deactivating tells what was taken, and when it was the last."""
    invoke(*ENABLE, stdin=SECRET)
    expected = (
        "Deactivated virtual/alice/phone of alice.\n"
        "alice has no MFA device now; policy decides whether they can log in.\n"
    )
    assert expected == invoke("deactivate", "alice", "virtual/alice/phone", "--leave-none").output


@pytest.mark.usefixtures("lifecycle")
def test_unlock() -> None:
    """Unlocking who is not locked says so."""
    assert "alice was not locked and has no wrong codes.\n" == invoke("unlock", "alice").output
