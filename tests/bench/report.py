# SPDX-License-Identifier: Apache-2.0
"""How long the credential report and the host's status take for many users, and how much memory.

Run as root: `python tests/bench/report.py --prefix DIR`. The users' device files, used codes and
locks are made by the installed library, without a disk sync each; half of the users have accounts
in the root's own passwd file, and as many accounts have no device. Figures are printed and never
judged; the exit status is 2 where the benchmark could not run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contender import BenchmarkError
from machine import describe_machine

STATE_PARENT = Path("/var/tmp")  # noqa: S108  # a disk, as in real use; /tmp may be memory
COMMANDS = (
    ("report",),
    ("report", "--format", "json"),
    ("status", "--json"),
    ("list", "--json"),
)
# Of ten users seven have an application, two a token as well, one recovery codes as well; one of
# a hundred is locked.
FILL = """
import datetime, os, sys, time
prefix, root, count = sys.argv[1:]
sys.path.insert(0, prefix + "/lib/python")
from pathlib import Path
from pam_mfa.devices import RecoveryCodes, TokenDevice, VirtualDevice, format_devices
from pam_mfa.lifecycle import open_store
from pam_mfa.lockout import LockState
from pam_mfa.oath import Parameters
from pam_mfa.secret import Secret
from pam_mfa.store import Change, Claim
from pam_mfa.store import encode_user
from pam_mfa.store.layout import Layout
store, _ = open_store(Layout(Path(root)))
names = [f"user{n:06}" for n in range(int(count))]
claims = []
for n, user in enumerate(names):
    moment = datetime.datetime.fromtimestamp(1.7e9 + n, datetime.UTC)
    def seal(serial_number):
        return store.sealer.seal(Secret(os.urandom(20)), user, serial_number)
    phone = f"virtual/{user}/phone"
    devices = [VirtualDevice(phone, "phone", moment, Parameters(), seal(phone))]
    if n % 10 in (7, 8):
        devices.append(TokenDevice(f"T-{n}", "token", moment + datetime.timedelta(1),
                                   Parameters(), seal(f"T-{n}")))
    if n % 10 == 9:
        hashes = tuple(os.urandom(32).hex() for _ in range(10))
        devices.append(RecoveryCodes(f"recovery/{user}/x", "recovery",
                                     moment + datetime.timedelta(2), hashes))
    path = store.documents.path(user)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(format_devices(user, devices))
    lock = LockState((), time.time() + 86400) if n % 100 == 0 else None
    change = Change(True, (), lock, {one.serial_number: n for one in devices}, used_at=1.7e9)
    claims.append(Claim(encode_user(user), (), lambda _, change=change: change))
store.commit(claims)
store.close()
"""


@dataclass(frozen=True)
class Options:
    """The command line."""

    users: int
    prefix: Path
    state: Path


def parse_options(arguments: Sequence[str]) -> Options:
    """Return the command line's options; argparse exits on wrong usage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--users", type=int, default=100_000, help="users that have devices")
    parser.add_argument("--prefix", type=Path, required=True, help="where pam-mfa is installed")
    parser.add_argument(
        "--state", type=Path, default=STATE_PARENT, help="a folder on the disk to use"
    )
    return Options(**vars(parser.parse_args(arguments)))


def fill(options: Options, root: Path) -> None:
    """Make a root with users, accounts and a policy.

    Raises:
        BenchmarkError: the installed library did not make them.
    """
    policy = root / "etc/pam_mfa/policy.yaml"
    policy.parent.mkdir(parents=True)
    policy.write_bytes((options.prefix / "share/policy.yaml").read_bytes())
    half = options.users // 2
    accounts = (f"user{n:06}:x:{n}:{n}::/:/bin/sh\n" for n in range(half, half + options.users))
    (root / "etc/passwd").write_text("".join(accounts), "ascii")
    services = root / "etc/pam.d"
    services.mkdir()
    for name in ("sshd", "sudo", "login"):
        (services / name).write_text("auth required pam_mfa.so\n", "ascii")
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", FILL, options.prefix, root, str(options.users)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"the users could not be made: {done.stderr.strip()}")


def measure(options: Options, root: Path, command: Sequence[str]) -> str:
    """Run a command once; return a line of its figures.

    Raises:
        BenchmarkError: it failed.
    """
    output = root / "output"
    with output.open("wb") as file:
        began = time.perf_counter()
        process = subprocess.Popen(
            [options.prefix / "bin/pam-mfa", "--root", root, *command], stdout=file
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchmarkError(f"pam-mfa {' '.join(command)} ended with {process.returncode}")
    with output.open("rb") as file:
        lines = sum(1 for _ in file)
    megabytes = output.stat().st_size / 1e6
    return (
        f"pam-mfa {' '.join(command):22} {seconds:6.1f} s, peak RSS {usage.ru_maxrss / 1024:4.0f} "
        f"MiB, {lines} lines, {megabytes:.0f} MB"
    )


def run(options: Options) -> int:
    """Measure, print, and return the exit status."""
    if os.geteuid() != 0:
        raise BenchmarkError("run as root: pam-mfa gives root up by itself")
    with tempfile.TemporaryDirectory(prefix="report-bench-", dir=options.state) as temporary:
        root = Path(temporary)
        root.chmod(0o755)  # who gave up root must reach it
        machine = describe_machine(root, "not used")
        fill(options, root)
        sys.stdout.write(
            f"{options.users} users with devices, {options.users // 2} more accounts without; "
            f"{machine.cpu}, {machine.cores} cores, Python {machine.python}, "
            f"{machine.file_system}, load {machine.load}\n"
        )
        for command in COMMANDS:
            sys.stdout.write(measure(options, root, command) + "\n")
            sys.stdout.flush()
    return 0


def main() -> int:
    """Run, with a plain sentence where it cannot."""
    try:
        return run(parse_options(sys.argv[1:]))
    except BenchmarkError as error:
        sys.stderr.write(f"report: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
