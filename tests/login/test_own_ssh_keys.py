# SPDX-License-Identifier: Apache-2.0
"""Users' own SSH keys, by the real command and service, with OpenSSH's own agent on their side."""

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from host_accounts import Account
from installed import PATIENCE, DataRoot
from phone import CODE_PROMPT, Phone
from private_host import PrivateHost
from self_service_command import self_service
from sk_keys import PROVIDER, fingerprint_of, make_sk_key, public_half
from sk_signing import await_listening, sign
from terminal_session import Answer, LoginResult, TerminalSession

CAROL = Account("carol-of-tests", "correct horse")
DAVE = Account("dave-of-tests", "battery staple")
NAME = CAROL.name
PASSWORD: Answer = ("Password: *$", CAROL.password)
# Runs a program until standard input closes, as its namespaces are to end with it.
_RUN = '"$@" & read -r _; kill $!; wait $!'


@pytest.fixture
def host(root: DataRoot) -> Iterator[PrivateHost]:
    """A private host with two accounts and the service, everything allowed."""
    with PrivateHost([CAROL, DAVE]) as started, self_service(started, root):
        yield started


@pytest.fixture
def laptop(host: PrivateHost) -> Path:
    """Carol's key."""
    return make_key(host, NAME)


def make_key(host: PrivateHost, name: str) -> Path:
    """Make a key that is a user's."""
    home = host.home(name)
    key = make_sk_key(home / "id_sk")
    about = home.stat()
    for path in (key, public_half(key)):
        os.chown(path, about.st_uid, about.st_gid)
    return key


@pytest.fixture
def place(host: PrivateHost) -> Iterator[Path]:
    """A folder for sockets that Carol may enter, with a short name."""
    folder = Path(tempfile.mkdtemp(prefix="agent-", dir="/var/tmp"))
    about = host.home(NAME).stat()
    os.chown(folder, about.st_uid, about.st_gid)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def agent_of(host: PrivateHost, name: str, key: Path, path: Path) -> Iterator[Path]:
    """Run a user's ssh-agent with a key in it."""
    environment = {**host.environment, "SSH_AUTH_SOCK": str(path)}
    program = ["runuser", "-u", name, "--", "ssh-agent", "-D", "-a", str(path), "-P", str(PROVIDER)]
    command = host.command(["sh", "-c", _RUN, "sh", *program])
    output = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=output) as agent:
        try:
            await_listening(path)
            add = ["runuser", "-u", name, "--", "env", f"SSH_AUTH_SOCK={path}", "ssh-add", "-q"]
            host.run([*add, "-S", str(PROVIDER), str(key)])
            yield path
        finally:
            agent.communicate(timeout=PATIENCE)


def run_as(
    host: PrivateHost, argv: Sequence[str], answers: Sequence[Answer] = (), **variables: str
) -> LoginResult:
    """Run a program as Carol, on a terminal."""
    words = ["runuser", "-u", NAME, "--", "env", *(f"{k}={v}" for k, v in variables.items())]
    session = TerminalSession(host.terminal_command([*words, *argv]), host.environment)
    session.converse(answers)
    return session.result()


def pam_mfa(root: DataRoot, *arguments: str) -> list[str]:
    """Return the command line."""
    return [str(root.prefix / "bin/pam-mfa"), "--root", str(root.path), *arguments]


def details(root: DataRoot) -> list[str]:
    """Return what the records of enabling say, and how each ended."""
    return [f"{one['outcome']}: {one.get('detail', '')}" for one in root.audit("EnableMfaDevice")]


def test_key_of_ones_own_agent(
    root: DataRoot, host: PrivateHost, laptop: Path, place: Path
) -> None:
    """A user enables the key in the own agent: password, one touch, and no administrator."""
    arguments = pam_mfa(root, "enable", "ssh-key", NAME, "--from-agent", "--name", "laptop")
    with agent_of(host, NAME, laptop, place / "s") as path:
        done = run_as(host, arguments, [PASSWORD], SSH_AUTH_SOCK=str(path))
    assert (done.status, done.last_line) == (0, f"Enabled ssh-key/{NAME}/laptop for {NAME}.")
    fingerprint = fingerprint_of(public_half(laptop))
    assert details(root) == [f"success: proven by a signature; {fingerprint}"]
    (record,) = root.audit("EnableMfaDevice")
    assert str(record["caller_uid"]) == host.run(["id", "-u", NAME]).stdout.strip()


def signed_by(key: Path) -> Answer:
    """Answer the question for a signature by what the shown command makes."""

    def answer(shown: str) -> str:
        words = shlex.split(shown[shown.index("printf '%s") :].partition("\n\n")[0])
        return sign(key, words[8], f"{words[2]}\n").strip()

    return "Paste the signature here:\r\n$", answer


def test_signature_that_is_pasted(root: DataRoot, host: PrivateHost, laptop: Path) -> None:
    """Without an agent the shown command is run on the laptop, and its output pasted."""
    arguments = pam_mfa(root, "enable", "ssh-key", NAME, "--public-key", str(public_half(laptop)))
    done = run_as(host, arguments, [PASSWORD, signed_by(laptop)])
    assert (done.status, done.last_line) == (0, f"Enabled ssh-key/{NAME}/ssh-key for {NAME}.")


def test_public_key_that_was_found_somewhere(
    root: DataRoot, host: PrivateHost, laptop: Path
) -> None:
    """A user cannot enable somebody else's public key: not by a word, nor by a key of one's own."""
    found = laptop.with_name("found.pub")
    shutil.copyfile(public_half(make_key(host, DAVE.name)), found)
    arguments = pam_mfa(root, "enable", "ssh-key", NAME, "--public-key", str(found))
    vouched = run_as(host, [*arguments, "--vouch"])
    assert (vouched.status, vouched.prompts) == (1, ())
    signed = run_as(host, arguments, [PASSWORD, signed_by(laptop)])
    assert signed.status == 1
    assert "signed by another key" in " ".join(signed.output.split())
    assert details(root) == ["denied: the signature: it was signed by another key"]
    assert not root.device_file(NAME).exists()


def test_second_device_needs_the_first(
    root: DataRoot, host: PrivateHost, laptop: Path, place: Path
) -> None:
    """Whoever has a device verifies with it before a key is enabled, and before it is given up."""
    phone = Phone(root, NAME)
    enable = pam_mfa(root, "enable", "ssh-key", NAME, "--from-agent")
    with agent_of(host, NAME, laptop, place / "s") as path:
        wrong = [(CODE_PROMPT, phone.wrong_code())] * 3
        refused = run_as(host, enable, [PASSWORD, *wrong], SSH_AUTH_SOCK=str(path))
        assert (refused.status, "you were not verified" in refused.output) == (1, True)
        code = (CODE_PROMPT, phone.code())
        done = run_as(host, enable, [PASSWORD, code], SSH_AUTH_SOCK=str(path))
    assert done.status == 0, done.output
    gone = pam_mfa(root, "deactivate", NAME, f"ssh-key/{NAME}/ssh-key")
    done = run_as(host, gone, [PASSWORD, (CODE_PROMPT, phone.code(step=1))])
    assert done.last_line == f"Deactivated ssh-key/{NAME}/ssh-key of {NAME}."


@pytest.mark.parametrize("is_vouched", [False, True])
def test_administrator_on_a_terminal(
    root: DataRoot, host: PrivateHost, laptop: Path, *, is_vouched: bool
) -> None:
    """An administrator pastes what the user's laptop signed, or vouches by a word of its own."""
    argv = pam_mfa(root, "enable", "ssh-key", NAME, "--public-key", str(public_half(laptop)))
    session = TerminalSession(host.terminal_command(argv), host.environment)
    question = r"type vouch \(that is recorded\):\r\n$"
    session.converse([(question, "vouch" if is_vouched else signed_by(laptop)[1])])
    done = session.result()
    assert done.last_line.startswith(f"Enabled ssh-key/{NAME}/ssh-key for {NAME}: SHA256:")
    (detail,) = details(root)
    assert ("vouched for" in detail, "proven" in detail) == (is_vouched, not is_vouched)


def test_agent_under_sudo(root: DataRoot, host: PrivateHost, laptop: Path, place: Path) -> None:
    """Under real sudo that keeps SSH_AUTH_SOCK, root asks the agent of who called it."""
    (host.etc / "sudoers.d/carol").write_text(f"{NAME} ALL=(ALL) NOPASSWD:SETENV: ALL\n")
    (host.etc / "sudoers.d/carol").chmod(0o440)
    arguments = pam_mfa(root, "enable", "ssh-key", "root", "--from-agent")
    arguments += ["--fingerprint", fingerprint_of(public_half(laptop))]
    keep = ["sudo", "--preserve-env=SSH_AUTH_SOCK", *arguments]
    with agent_of(host, NAME, laptop, place / "s") as path:
        lost = run_as(host, ["sudo", *arguments], SSH_AUTH_SOCK=str(path))
        assert (lost.status, "SSH_AUTH_SOCK is not set" in lost.output) == (1, True)
        done = run_as(host, keep, SSH_AUTH_SOCK=str(path))
    assert (done.status, f"Asking the ssh-agent of {NAME}." in done.output) == (0, True)
    assert details(root)[0].startswith("success: proven by a signature")


def test_agent_of_somebody_else(
    root: DataRoot, host: PrivateHost, laptop: Path, place: Path
) -> None:
    """Root, whom every socket is open to, does not ask an agent of another user's."""
    arguments = pam_mfa(root, "enable", "ssh-key", "root", "--from-agent")
    dave = host.run(["id", "-u", DAVE.name]).stdout.strip()
    with agent_of(host, NAME, laptop, place / "s") as path:
        words = ["env", f"SSH_AUTH_SOCK={path}", f"SUDO_UID={dave}", *arguments]
        done = host.run(words, check=False)
    assert (done.returncode, "not yours; it is not asked" in done.stderr) == (1, True)
    assert details(root) == []
