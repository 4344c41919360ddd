# SPDX-License-Identifier: Apache-2.0
"""The ssh-agent of whoever runs a setuid program: the built module, and OpenSSH's own agent."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from agents import SshAgent, running_agent
from authenticator import enroll
from host_program import Login, Outcome, Status, host_of, run, running
from installed import DataRoot
from lingering import FULL_CONNECTION
from serving import DAEMON, each_way, serving
from sk_keys import certify, make_plain_key, make_sk_key, public_half

NOBODY = 65534
OTHER = 1  # another account than nobody's
USER = "nobody"
HOST = os.uname().nodename
TOUCH = f"Touch the security key on your own computer to approve exact on {HOST} (laptop)."
ABSENT = "Your ssh-agent has none of your enrolled SSH keys."
NO_KEY = "Your ssh-agent has no keys: add yours with ssh-add, or unlock it (ssh-add -X)."
REFUSED = "Your ssh-agent refused to sign with laptop:"


class Scene(NamedTuple):
    """A user with an enrolled key, and what runs for that user."""

    root: DataRoot
    agent: SshAgent
    key: Path
    program: Path

    def attempt(self, *answers: str | None, **changes: object) -> Outcome:
        """Have a setuid program of the user's ask, with the agent in its environment."""
        login = Login(
            self.root, USER, options=[f"ruser={USER}"], uid=NOBODY, program=self.program,
            environment={"SSH_AUTH_SOCK": str(self.agent.socket)},
        )  # fmt: skip
        return run(login._replace(**changes), *answers)  # type: ignore[arg-type]

    def use(self, socket_path: str, *answers: str | None) -> Outcome:
        """The same, with another SSH_AUTH_SOCK."""
        return self.attempt(*answers, environment={"SSH_AUTH_SOCK": socket_path})


# An agent that lists no keys, and sends along a TCP connection which blocks whoever closes it last.
LINGERING_AGENT = (
    """
import socket, struct, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
"""
    + FULL_CONNECTION
    + """client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
print("listening", flush=True)
connection, _ = listener.accept()
connection.recv(100)
socket.send_fds(connection, [struct.pack(">IBI", 5, 12, 0)], [client.fileno()])
client.close()
time.sleep(600)
"""
)


@contextlib.contextmanager
def lingering_agent(path: Path) -> Iterator[None]:
    """Run that agent as the user."""
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", LINGERING_AGENT, path],
        stdout=subprocess.PIPE, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def scene(root: DataRoot, tmp_path: Path) -> Iterator[Scene]:
    """A user with a key in the agent, which is enrolled, and no other device."""
    program = root.prefix.parent / "setuid-host"
    if not program.exists():
        shutil.copyfile(host_of(root.prefix), program)
        program.chmod(0o4755)
    key = make_sk_key(tmp_path / "laptop-key")
    enable(root, key)
    with running_agent(NOBODY) as running:
        running.add(key)
        yield Scene(root, running, key, program)


def enable(root: DataRoot, key: Path, name: str = "laptop") -> None:
    """Enable a key for the user."""
    root.command(
        "enable", "ssh-key", USER, "--public-key", str(public_half(key)), "--name", name, "--vouch"
    )


def texts(outcome: Outcome) -> list[str]:
    """Return what was shown and not asked."""
    return [each.text for each in outcome.messages if each.text not in outcome.prompts]


@each_way
def test_touch_instead_of_a_code(scene: Scene, way: str) -> None:
    """An enrolled key behind the agent approves; nothing is asked, and the record says by what."""
    with serving(scene.root, way):
        outcome = scene.attempt()
    assert (outcome.status, outcome.prompts, texts(outcome)) == (Status.SUCCESS, [], [TOUCH])
    record = scene.root.audit()[-1]
    assert record["reason"] == "agent_signature_accepted"
    assert record["device"]["serial_number"] == f"ssh-key/{USER}/laptop"
    assert record["sign_count"] == 0x12345678  # sk-dummy's, always


def test_counter_that_does_not_grow(scene: Scene) -> None:
    """A second signature with the same counter is refused as by a copy, and asks for a code."""
    phone = enroll(scene.root, USER)
    assert scene.attempt().status == Status.SUCCESS
    outcome = scene.attempt(phone.code())
    assert (outcome.status, len(outcome.prompts)) == (Status.SUCCESS, 1)
    assert scene.root.reasons() == ["agent_signature_accepted", "possible_clone", "code_accepted"]


@each_way
def test_locked_agent(scene: Scene, way: str) -> None:
    """An agent that is locked by ``ssh-add -x`` is told so, and a code is asked for."""
    phone = enroll(scene.root, USER)
    scene.agent.lock()
    with serving(scene.root, way):
        outcome = scene.attempt(phone.code())
    assert (outcome.status, texts(outcome)) == (Status.SUCCESS, [NO_KEY])
    assert scene.root.reasons() == ["agent_key_absent", "code_accepted"]
    scene.agent.unlock()
    assert texts(scene.attempt()) == [TOUCH]


def test_key_of_somebody_else(scene: Scene, tmp_path: Path) -> None:
    """A key that is not enrolled for the user approves nothing, whatever the agent holds."""
    with running_agent(NOBODY) as running:
        running.add(make_sk_key(tmp_path / "other"))
        outcome = scene.use(str(running.socket), None)
    assert (outcome.status, texts(outcome)) == (Status.AUTH_ERR, [ABSENT])


def test_pam_ussh_pr_18_certificate_of_any_authority(scene: Scene, tmp_path: Path) -> None:
    """A certificate for the user by anybody's authority does not make an unknown key count."""
    stranger = make_sk_key(tmp_path / "stranger")
    certify(make_plain_key(tmp_path / "authority"), stranger, USER)
    with running_agent(NOBODY) as running:
        running.add(stranger)
        outcome = scene.use(str(running.socket), None)
    assert (outcome.status, texts(outcome)) == (Status.AUTH_ERR, [ABSENT])
    assert scene.root.reasons()[0] == "agent_key_absent"


def test_certificate_of_the_enrolled_key(root: DataRoot, scene: Scene, tmp_path: Path) -> None:
    """With a certificate beside it, the enrolled key approves as without."""
    key = make_sk_key(tmp_path / "certified")
    certify(make_plain_key(tmp_path / "authority"), key, USER)
    enable(root, key, "certified")
    with running_agent(NOBODY) as running:
        running.add(key)
        assert scene.use(str(running.socket)).status == Status.SUCCESS


def test_key_in_a_file(scene: Scene, tmp_path: Path) -> None:
    """A key that lives in a file cannot be enrolled, and approves nothing."""
    plain = make_plain_key(tmp_path / "plain")
    done = scene.root.command(
        "enable", "ssh-key", USER, "--public-key", str(public_half(plain)), "--vouch", check=False
    )
    assert done.returncode == 1
    with running_agent(NOBODY) as running:
        running.add(plain)
        assert scene.use(str(running.socket), None).status == Status.AUTH_ERR


def test_key_in_a_file_where_policy_says_any(scene: Scene, tmp_path: Path) -> None:
    """By agent_keys: any a key in a file can be enrolled, and approves without a touch."""
    plain = make_plain_key(tmp_path / "plain")
    text = scene.root.policy.read_text("utf-8")
    scene.root.policy.write_text(text.replace("agent_keys: sk", "agent_keys: any"), "utf-8")
    enable(scene.root, plain, "plain")
    asked = f"Your ssh-agent is asked to approve exact on {HOST} (plain)."
    with running_agent(NOBODY) as running:
        running.add(plain)
        outcome = scene.use(str(running.socket))
        assert (outcome.status, texts(outcome)) == (Status.SUCCESS, [asked])
        scene.root.policy.write_text(text, "utf-8")
        assert scene.use(str(running.socket), None).status == Status.AUTH_ERR
    assert scene.root.reasons()[:2] == ["agent_signature_accepted", "agent_key_absent"]


def test_destination_constrained_key(scene: Scene, tmp_path: Path) -> None:
    """A key that ``ssh-add -h`` binds to hosts signs no approval, and that is told."""
    phone = enroll(scene.root, USER)
    hosts = tmp_path / "known_hosts"
    host_key = make_plain_key(tmp_path / "host")
    hosts.write_text(f"server {public_half(host_key).read_text()}", "ascii")
    tmp_path.chmod(0o755)
    with running_agent(NOBODY) as running:
        copy = running.place / "known_hosts"
        shutil.copyfile(hosts, copy)
        copy.chmod(0o644)
        running.add(scene.key, "-h", "server", "-H", str(copy))
        outcome = scene.use(str(running.socket), phone.code())
    assert outcome.status == Status.SUCCESS
    assert texts(outcome)[0] == TOUCH
    assert texts(outcome)[1].startswith(REFUSED)
    assert scene.root.reasons() == ["agent_refused", "code_accepted"]


def test_no_touch_no_approval(scene: Scene, tmp_path: Path) -> None:
    """A signature that says nobody touched the key approves nothing."""
    silent = make_sk_key(tmp_path / "silent", "ed25519-sk", "no-touch-required")
    enable(scene.root, silent, "silent")
    with running_agent(NOBODY) as running:
        running.add(silent)
        assert scene.use(str(running.socket), None).status == Status.AUTH_ERR
    assert scene.root.reasons()[0] == "unproven_signature"
    assert scene.root.audit()[0]["detail"] == "nobody touched the security key"


def test_pin_where_policy_wants_it(scene: Scene, tmp_path: Path) -> None:
    """Where policy wants a PIN, a key that asked for none approves nothing; one that did, does."""
    text = scene.root.policy.read_text("utf-8")
    wanted = text.replace("user_verification: discouraged", "user_verification: required")
    scene.root.policy.write_text(wanted, "utf-8")
    assert scene.attempt(None).status == Status.AUTH_ERR
    assert scene.root.audit()[0]["detail"] == "the security key did not verify its user"
    key = make_sk_key(tmp_path / "verified", "ed25519-sk", "verify-required")
    enable(scene.root, key, "verified")
    with running_agent(NOBODY) as running:
        running.add(key)
        assert scene.use(str(running.socket)).status == Status.SUCCESS
    assert scene.root.audit()[-1]["detail"] == "user verified by the key"


def make_file(place: Path, _socket: Path) -> str:
    """Return the path of a file."""
    (place / "file").touch()
    return str(place / "file")


def make_link(place: Path, good: Path) -> str:
    """Return the path of a link to the agent's socket."""
    (place / "link").symlink_to(good)
    return str(place / "link")


def make_long(place: Path, _socket: Path) -> str:
    """Return a path of 200 bytes."""
    return f"{place}/{'x' * 200}"[:200]


BAD_PATHS: dict[str, Callable[[Path, Path], str]] = {
    "a file": make_file,
    "a link": make_link,
    "200 bytes": make_long,
    "relative": lambda _place, good: os.path.relpath(good, "/"),
    "empty": lambda _place, _good: "",
    "a directory": lambda place, _good: str(place),
    "nothing": lambda place, _good: str(place / "nothing"),
    "a device": lambda _place, _good: "/dev/null",
}


@pytest.mark.parametrize("bad", BAD_PATHS)
def test_bad_path(scene: Scene, bad: str) -> None:
    """SSH_AUTH_SOCK that is no absolute path of a socket of the user's counts as none at all."""
    phone = enroll(scene.root, USER)
    place = scene.agent.place / "bad"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    path = BAD_PATHS[bad](place, scene.agent.socket)
    outcome = scene.use(path, phone.code())
    assert (outcome.status, texts(outcome)) == (Status.SUCCESS, [])


def test_socket_of_another_user(scene: Scene) -> None:
    """Another user's agent is not asked, though everybody may connect to it."""
    with running_agent(OTHER) as other:
        other.add(scene.key)
        other.place.chmod(0o755)
        other.socket.chmod(0o777)
        outcome = scene.use(str(other.socket), None)
    assert (outcome.status, texts(outcome)) == (Status.AUTH_ERR, [])


def test_another_users_listener_at_a_socket_of_the_users(scene: Scene) -> None:
    """Who listens must be the user, also where the socket's file was given to the user."""
    with running_agent(OTHER) as other:
        other.add(scene.key)
        other.place.chmod(0o755)
        os.chown(other.socket, NOBODY, NOBODY)
        outcome = scene.use(str(other.socket), None)
    assert (outcome.status, texts(outcome)) == (Status.AUTH_ERR, [])


def test_way_is_walked_with_the_users_rights(scene: Scene) -> None:
    """A socket of the user's in a directory that only root may enter is not reached."""
    with running_agent(NOBODY) as running:
        running.add(scene.key)
        os.chown(running.place, 0, 0)
        outcome = scene.use(str(running.socket), None)
        os.chown(running.place, NOBODY, NOBODY)
    assert (outcome.status, texts(outcome)) == (Status.AUTH_ERR, [])


def test_programs_that_root_starts_have_no_agent(scene: Scene) -> None:
    """A program of root's does not use a variable that its environment happens to have."""
    with running_agent(0) as of_root:
        of_root.add(scene.key)
        outcome = scene.attempt(
            None, uid=None, program=None, environment={"SSH_AUTH_SOCK": str(of_root.socket)}
        )
    assert (outcome.status, texts(outcome)) == (Status.AUTH_ERR, [])


def test_programs_without_root_have_no_agent(scene: Scene) -> None:
    """A program that is not root's cannot lend the verifier an agent."""
    with serving(scene.root, DAEMON):
        outcome = scene.attempt(None, program=host_of(scene.root.prefix))
    assert (outcome.status, texts(outcome)) == (Status.AUTH_ERR, [])


@each_way
@pytest.mark.parametrize("ends", ["silent", "closing"])
def test_hostile_agent(scene: Scene, way: str, ends: str) -> None:
    """A program at SSH_AUTH_SOCK that hangs or hangs up delays a code, and no more."""
    phone = enroll(scene.root, USER)
    path = scene.agent.place / "hostile"
    with socket.socket(socket.AF_UNIX) as listener:
        os.seteuid(NOBODY)  # who listens is looked at, too
        try:
            listener.bind(str(path))
            listener.listen(0)
        finally:
            os.seteuid(0)
        if ends == "closing":
            listener.shutdown(socket.SHUT_RDWR)
        with serving(scene.root, way):
            outcome = scene.use(str(path), phone.code())
    assert outcome.status == Status.SUCCESS
    assert outcome.seconds < 20


def test_descriptor_from_an_agent_keeps_nobody_waiting(scene: Scene) -> None:
    """What blocks at its end, sent along by the agent of a killed sudo, keeps no login waiting."""
    phone = enroll(scene.root, "alice")
    path = scene.agent.place / "lingering"
    with serving(scene.root, DAEMON), lingering_agent(path):
        login = Login(
            scene.root, USER, options=[f"ruser={USER}"], uid=NOBODY, program=scene.program,
            environment={"SSH_AUTH_SOCK": str(path)},
        )  # fmt: skip
        with running(login) as host:
            assert host.question() is not None  # the agent has answered, and more than that
            host.kill()
        outcome = run(Login(scene.root, "alice"), phone.code())
    assert outcome.status == Status.SUCCESS
    assert outcome.seconds < 20


def test_su_learns_nothing_of_somebody_elses_devices(scene: Scene) -> None:
    """Who runs su for another user is not told whether that one has keys."""
    with running_agent(NOBODY) as empty:
        outcome = scene.attempt(
            None, options=["ruser=daemon"], environment={"SSH_AUTH_SOCK": str(empty.socket)}
        )
    assert (outcome.status, texts(outcome)) == (Status.AUTH_ERR, [])


def test_agent_for_one_that_is_locked(scene: Scene) -> None:
    """Whom wrong codes have locked, no signature lets in; and none forgives wrong codes."""
    phone = enroll(scene.root, USER)
    scene.agent.lock()
    for _ in range(2):
        scene.attempt(*[phone.wrong_code()] * 3)
    scene.agent.unlock()
    outcome = scene.attempt(phone.code())
    assert outcome.status == Status.AUTH_ERR
    locked = [one for one in scene.root.audit() if one["reason"] == "locked"]
    assert f"ssh-key/{USER}/laptop" in [
        one.get("device", {}).get("serial_number") for one in locked
    ]


def test_cve_2021_36368_a_touch_says_what_it_approves(scene: Scene) -> None:
    """What is shown before a touch names the service and the host, and to its owner the key."""
    (shown,) = texts(scene.attempt(options=[f"ruser={USER}"]))
    assert f"approve exact on {HOST} (laptop)" in shown


def test_touch_for_somebody_else(scene: Scene) -> None:
    """Before a touch for another user's account it is named, but no device of that one's."""
    (shown,) = texts(scene.attempt(options=["ruser=daemon"]))
    assert f"approve exact on {HOST} as {USER} (an enrolled key)" in shown
