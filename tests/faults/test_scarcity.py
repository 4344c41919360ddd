# SPDX-License-Identifier: Apache-2.0
"""Memory, descriptors, threads and random bytes that are not to be had."""

import contextlib
import socket
from pathlib import Path

import pytest
from host_program import Login, Status, run
from installed import DataRoot
from strained import Strained
from sweep import Command, try_each
from system_calls import places_of, strace

pytest_plugins = ["strained_fixtures"]

REQUEST = "recvmsg"  # the first is the one that takes the request
SYSTEM_ERR = 4  # PAM_SYSTEM_ERR: libpam itself lacks what the module would have lacked
MEGABYTE = 1 << 20
NO_RANDOM_DEVICE = (
    "unshare", "-m", "sh", "-c", 'mount --bind /dev/null /dev/urandom; exec "$@"', "sh",
)  # fmt: skip
GROUP_RULE = """\
version: 1
rules:
  - {name: groups, match: {group: [nogroup]}, then: skip}
"""


def test_memory(prefix: Path) -> None:
    """With any limit on its memory a verifier lets in as it should, or not at all."""
    limits = [*range(8, 32, 4), *range(32, 64, 2)]
    told = try_each(prefix, [["prlimit", f"--as={limit * MEGABYTE}"] for limit in limits])
    assert set(told) == {Status.SUCCESS, Status.AUTHINFO_UNAVAIL}


def test_memory_that_runs_out(prefix: Path, calls: Path) -> None:
    """Wherever a verifier is refused more memory, it costs that login at most."""
    places = places_of(calls, REQUEST, "mmap", "brk", "mremap")
    try_each(prefix, [place.failing("ENOMEM") for place in places])


def test_descriptors(prefix: Path, calls: Path) -> None:
    """Wherever a verifier is refused a descriptor, it costs that login at most."""
    places = places_of(calls, REQUEST, "openat")
    told = try_each(prefix, [place.failing("EMFILE") for place in places])
    assert told[Status.AUTHINFO_UNAVAIL] > 0


@pytest.mark.parametrize("error", ["ENOSYS", "EAGAIN"])
def test_no_random_bytes(prefix: Path, error: str) -> None:
    """Where the kernel's call gives no random bytes, its device does, or nobody is let in."""
    command = strace(f"getrandom:error={error}", "getrandom")
    told = try_each(prefix, [command, [*NO_RANDOM_DEVICE, *command]])
    assert told[Status.AUTHINFO_UNAVAIL] > 0


@pytest.mark.parametrize("error", ["ENOSYS", "EAGAIN"])
def test_no_nonce(strained: Strained, error: str) -> None:
    """Without random bytes for its nonce the module refuses, and the code stays good."""
    outcome = strained.log_in(wrapper=strace(f"getrandom:error={error}", "getrandom"))
    assert (outcome.status, outcome.prompts) == (Status.AUTHINFO_UNAVAIL, [])
    strained.require_whole(0, was_let_in=False)


def test_no_threads(strained: Strained) -> None:
    """Where no thread can be had to ask the name service by, a rule on groups skips nobody."""
    shipped = strained.root.policy.read_text("utf-8")
    strained.root.policy.write_text(GROUP_RULE, "ascii")
    strained.strain(*strace("clone,clone3:error=EAGAIN", "clone,clone3"))
    assert strained.log_in().status == Status.AUTHINFO_UNAVAIL
    strained.root.policy.write_text(shipped, "utf-8")
    strained.require_whole(0, was_let_in=False)


def host_calls(strained: Strained, command: Command) -> int:
    """Log in by a host under a command; its verifier is not under it."""
    return run(Login(strained.root, "alice", wrapper=command), strained.code()).status


@pytest.mark.parametrize(("name", "error"), [
    ("socket", "EMFILE"), ("socketpair", "EMFILE"), ("clone", "EAGAIN"), ("sendto", "EPIPE"),
    ("recvmsg", "ENOMEM"), ("signalfd4", "EMFILE"), ("setsockopt", "ENOMEM"),
    ("connect", "EAGAIN"), ("connect", "EACCES"),
])  # fmt: skip
def test_host_that_lacks_something(strained: Strained, name: str, error: str) -> None:
    """Whatever the kernel refuses the module, it ends without a verdict or with the right one."""
    before = strained.accepted()
    command = [word for word in strace(f"{name}:error={error}", name) if word != "-f"]
    status = host_calls(strained, command)
    assert status in (Status.SUCCESS, Status.AUTHINFO_UNAVAIL, SYSTEM_ERR)
    strained.require_whole(before, was_let_in=status == Status.SUCCESS)


def test_daemon_without_descriptors(strained: Strained) -> None:
    """A daemon that runs out of descriptors takes logins again as soon as it has some."""
    limit = ["prlimit", "--nofile=48:48"]
    with strained.root.daemon(limit), contextlib.ExitStack() as opened:
        for _ in range(64):
            opened.enter_context(connect(strained.root))
        flooded = strained.log_in(arguments="timeout=2").status
        opened.close()
        assert flooded == Status.AUTHINFO_UNAVAIL
        strained.require_whole(0, was_let_in=False)


def connect(root: DataRoot) -> socket.socket:
    """Connect to the daemon and say nothing."""
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    silent.connect(str(root.path / "run/pam_mfa/verify.sock"))
    return silent
