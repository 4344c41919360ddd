# SPDX-License-Identifier: Apache-2.0
"""The host program stays as it was, and what it starts has nothing of it.

``host_program.run`` looks at the host itself in every test of this layer: descriptors, signal
actions and mask, children, SIGCHLD, alarm, umask, limits, ids, directory and environment.
"""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from authenticator import enroll
from host_program import Host, Login, Status, attempt, exact_service, run, running, write_service
from installed import DataRoot
from serving import DAEMON, ON_DEMAND, each_way, serving, verifiers_on_demand, wait_until_gone

SERVICE_USER = "pam-mfa"
NOBODY = 65534
CAP_SYS_RESOURCE = 24
ALL_PHASES = "auth,account,session"


@pytest.fixture
def asking(root: DataRoot) -> Iterator[Host]:
    """Have a login wait at its prompt, with a verifier that it started itself."""
    enroll(root, "alice")
    with running(Login(root, "alice")) as host:
        assert host.question() is not None
        yield host


def only_verifier(root: DataRoot) -> Path:
    """Return the one verifier's /proc directory."""
    (process,) = verifiers_on_demand(root)
    return process


def usual_service(root: DataRoot) -> str:
    """Write a service like an administrator's: the module, and what decides beside it."""
    phases = ("auth", "account", "session")
    modules = (root.module, "pam_permit.so")
    return write_service(
        root, "usual", *(f"{phase} required {module}" for phase in phases for module in modules)
    )


def status_of(process: Path) -> dict[str, list[str]]:
    """Return /proc/PID/status as words by name."""
    lines = (process / "status").read_text("ascii").splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


def links(process: Path) -> dict[int, str]:
    """Return where a process's descriptors lead to."""
    return {int(path.name): str(path.readlink()) for path in (process / "fd").iterdir()}


def has_capability(number: int) -> bool:
    """Whether this process has a capability."""
    return bool(int(status_of(Path("/proc/self"))["CapEff"][0], 16) >> number & 1)


@each_way
@pytest.mark.parametrize("is_right", [True, False])
def test_host_is_left_as_it_was(root: DataRoot, way: str, is_right: bool) -> None:  # noqa: FBT001
    """No login, let in or refused, changes anything in its host; ``run`` looks."""
    phone = enroll(root, "alice")
    with serving(root, way):
        code = phone.code() if is_right else phone.wrong_code()
        outcome = run(Login(root, "alice"), code)
    assert outcome.status == (Status.SUCCESS if is_right else Status.AUTH_ERR)


@each_way
def test_all_phases_leave_the_host_as_it_was(root: DataRoot, way: str) -> None:
    """Account and session ask nothing, and change nothing in the host either."""
    phone = enroll(root, "alice")
    with serving(root, way):
        outcome = run(Login(root, "alice", phases="account"))
        assert (outcome.status, outcome.prompts) == (Status.IGNORE, [])
        login = Login(root, "alice", usual_service(root), ALL_PHASES)
        assert run(login, phone.code()).status == Status.SUCCESS


def test_verifier_gets_no_descriptor(root: DataRoot) -> None:
    """A verifier started on demand has none of the host's descriptors."""
    enroll(root, "alice")
    marker = root.path / "marker"
    with marker.open("w") as file:
        login = Login(root, "alice", exact_service(root), pass_fds=[file.fileno()])
        with running(login) as host:
            assert host.question() is not None
            assert str(marker) in links(Path(f"/proc/{host.pid}")).values()
            found = links(only_verifier(root))
    assert [found[fd] for fd in range(3)] == ["/dev/null"] * 3
    others = {target for fd, target in found.items() if fd > 2}
    strange = [target for target in others if not target.startswith((str(root.library), "socket:"))]
    assert strange == []


@pytest.mark.usefixtures("asking")
def test_verifier_has_a_clean_environment(root: DataRoot) -> None:
    """A verifier started on demand has PATH and LANG of its own and no other variable."""
    environment = (only_verifier(root) / "environ").read_bytes()
    names = [entry.partition(b"=")[0] for entry in environment.split(b"\0") if entry]
    assert sorted(names) == [b"LANG", b"PATH"]


def test_verifier_cannot_become_root(asking: Host, root: DataRoot) -> None:
    """A verifier started on demand is the service user, in every id, without capabilities."""
    status = status_of(only_verifier(root))
    identity = Path("/etc/passwd").read_text("utf-8").split(f"\n{SERVICE_USER}:")[1].split(":")
    assert status["Uid"] == [identity[1]] * 4
    assert status["Gid"] == [identity[2]] * 4
    assert status["Groups"] == []
    assert {int(status[key][0], 16) for key in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
    assert asking.finish().status == Status.AUTH_ERR


def test_verifier_has_default_signals(root: DataRoot) -> None:
    """Signals that the host blocked or ignored reach the verifier."""
    enroll(root, "alice")
    wrapper = ["env", "--block-signal=TERM", "--ignore-signal=HUP"]
    with running(Login(root, "alice", wrapper=wrapper)) as host:
        assert host.question() is not None
        status = status_of(only_verifier(root))
        of_host = status_of(Path(f"/proc/{host.pid}"))
    assert int(of_host["SigBlk"][0], 16) != 0
    assert int(of_host["SigIgn"][0], 16) & 1 == 1
    assert int(status["SigBlk"][0], 16) == 0
    assert int(status["SigIgn"][0], 16) & 1 == 0


def test_verifier_is_in_a_session_of_its_own(asking: Host, root: DataRoot) -> None:
    """A verifier has no terminal, no process group and no directory of its host."""
    verifier = int(only_verifier(root).name)
    assert os.getsid(verifier) == verifier != os.getsid(asking.pid)
    assert Path(f"/proc/{verifier}/cwd").readlink() == Path("/")


def test_verifier_is_no_child_of_its_host(asking: Host) -> None:
    """While it asks, the host has no child at all."""
    children = Path(f"/proc/{asking.pid}/task/{asking.pid}/children").read_text("ascii")
    assert children == ""


def test_verifier_is_gone_after_the_login(asking: Host, root: DataRoot) -> None:
    """A verifier started on demand ends with its login."""
    asking.finish()
    wait_until_gone(root)


def test_verifier_is_gone_after_its_host_was_killed(asking: Host, root: DataRoot) -> None:
    """A verifier started on demand ends when its host is killed at the prompt."""
    asking.kill()
    wait_until_gone(root)
    assert root.reasons() == ["abandoned"]


@each_way
@pytest.mark.parametrize("options", [["ignore-sigchld"], ["close-standard"]])
def test_odd_host_works(root: DataRoot, way: str, options: list[str]) -> None:
    """A host that ignores SIGCHLD, or has closed descriptors 0, 1 and 2, is served alike."""
    phone = enroll(root, "alice")
    with serving(root, way):
        right = run(Login(root, "alice", options=options), phone.code())
        wrong = run(Login(root, "alice", options=options), phone.wrong_code())
    assert (right.status, wrong.status) == (Status.SUCCESS, Status.AUTH_ERR)


@pytest.mark.parametrize(
    "limit", ["--fsize=0", "--as=1073741824", "--data=268435456", "--cpu=1", "--core=0"]
)
def test_limits_of_the_invoking_user_do_not_reach_the_verifier(root: DataRoot, limit: str) -> None:
    """With `ulimit -f 0` and the like, wrong codes are counted and right ones count."""
    phone = enroll(root, "alice")
    soft_only = limit if has_capability(CAP_SYS_RESOURCE) else f"{limit}:"
    login = Login(root, "alice", wrapper=["prlimit", soft_only])
    assert run(login, phone.wrong_code()).status == Status.AUTH_ERR
    assert root.reasons()[:1] == ["wrong_code"]
    assert run(login, phone.code()).status == Status.SUCCESS


def test_host_without_free_descriptors_refuses(root: DataRoot) -> None:
    """Where no descriptor is left the answer is "unavailable", never a way in."""
    enroll(root, "alice")
    host = Host(Login(root, "alice"))
    try:
        resource.prlimit(host.pid, resource.RLIMIT_NOFILE, (4, 4))
        host.begin()
        assert host.finish(["123456"]).status == Status.AUTHINFO_UNAVAIL
    finally:
        host.kill()


def test_host_without_root_starts_no_verifier(root: DataRoot) -> None:
    """Where nobody listens, a host that is not root is refused."""
    phone = enroll(root, "nobody")
    outcome = run(Login(root, "nobody", uid=NOBODY), phone.code())
    assert (outcome.status, outcome.prompts) == (Status.AUTHINFO_UNAVAIL, [])
    assert root.reasons() == []


def test_host_without_root_may_verify_its_own_user(root: DataRoot) -> None:
    """A host that is not root, as a screen locker, verifies its own user at the daemon."""
    phone = enroll(root, "nobody")
    login = Login(root, "nobody", uid=NOBODY)
    with serving(root, DAEMON):
        assert run(login, phone.wrong_code()).status == Status.AUTH_ERR
        assert run(login, phone.code()).status == Status.SUCCESS
    assert root.reasons()[-1] == "code_accepted"
    assert root.audit()[-1]["caller_uid"] == NOBODY


@pytest.mark.parametrize("other", ["alice", "root", "no-such-account"])
def test_host_without_root_may_verify_nobody_else(root: DataRoot, other: str) -> None:
    """A host that is not root cannot guess another user's codes, nor use that one's tries up."""
    phone = enroll(root, other)
    with serving(root, DAEMON):
        outcome = run(Login(root, other, uid=NOBODY), phone.code())
        assert (outcome.status, outcome.prompts) == (Status.AUTH_ERR, [])
        assert root.reasons() == ["caller_not_allowed"]
        assert attempt(root, other, phone.code()).status == Status.SUCCESS


def test_host_without_root_cannot_use_up_the_daemon(root: DataRoot) -> None:
    """One user's many connections leave root's logins alone."""
    phone = enroll(root, "alice")
    enroll(root, "nobody")
    with serving(root, DAEMON):
        hosts = [Host(Login(root, "nobody", uid=NOBODY)) for _ in range(20)]
        try:
            for host in hosts:
                host.begin()
            asked = [host.question() for host in hosts]
            assert asked.count(None) == 4
            assert attempt(root, "alice", phone.code()).status == Status.SUCCESS
        finally:
            for host in hosts:
                host.kill()


def test_no_verifier_program_refuses(root: DataRoot) -> None:
    """Where the verifier's program cannot be run, the answer is "unavailable"."""
    phone = enroll(root, "alice")
    wrapper = ["unshare", "--mount", "sh", "-ec"]
    hide = f'mount --bind /dev/null {root.prefix}/bin/pam-mfad; exec "$0" "$@"'
    outcome = run(Login(root, "alice", wrapper=[*wrapper, hide]), phone.code())
    assert outcome.status == Status.AUTHINFO_UNAVAIL
    with serving(root, ON_DEMAND):
        assert attempt(root, "alice", phone.code()).status == Status.SUCCESS
