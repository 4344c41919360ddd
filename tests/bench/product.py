# SPDX-License-Identifier: Apache-2.0
"""pam_mfa as a contender: with its daemon, and on demand without one.

Owns how an installed pam-mfa is found, given users and started. It goes through the installed files
only, as an administrator would: nothing is imported from the source tree.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from contender import BenchmarkError, User, totp

START_UP_LIMIT = 30.0  # seconds until the daemon must listen
ON_DEMAND_LOGINS = 50  # a verifier is started for each, so a few tell enough


class Installation:
    """An installed pam-mfa and one provisioned data directory, copied for each use of it."""

    def __init__(self, prefix: Path, directory: Path) -> None:
        """Look at what the prefix holds; provisioning waits until it is needed.

        Raises:
            BenchmarkError: the module under test is not installed there.
        """
        self.prefix = prefix.resolve()
        self.directory = directory
        self.module = self.prefix / "lib/security/pam_mfa.so"
        for path in (self.module, self.prefix / "bin/pam-mfa", self.prefix / "bin/pam-mfad"):
            if not path.is_file():
                raise BenchmarkError(f"the module under test is not installed: no {path}")

    def copy_data(self, target: Path, users: Sequence[User]) -> None:
        """Make `target` a data directory that knows the users and has seen no login.

        The first call provisions a template; copies keep owners and modes, which the verifier
        checks. Every contender of a run gets the same users.
        """
        template = self.directory / "template"
        if not template.exists():
            template.mkdir(mode=0o755)
            provision(self.prefix, template, users)
        subprocess.run(["cp", "--archive", str(template), str(target)], check=True)


ENABLE = """
import sys
prefix, root = sys.argv[1:]
sys.path.insert(0, prefix + "/lib/python")
import time
from pathlib import Path
from pam_mfa import oath
from pam_mfa.lifecycle import open_lifecycle
with open_lifecycle(Path(root)) as lifecycle:
    for line in sys.stdin:
        user, secret = line.split()
        pending = lifecycle.begin_virtual(user, seed=oath.parse_seed(secret))
        now = oath.time_step(time.time(), 30)
        steps = range(now - 2, now)
        lifecycle.enable(pending, *oath.codes(pending.seed, pending.parameters, steps))
"""


def provision(prefix: Path, root: Path, users: Sequence[User]) -> None:
    """Enroll a virtual device for every user under `root`, by the installed Python API.

    The two codes are of past time steps: each user's first login sends the code of its moment.

    Raises:
        BenchmarkError: pam-mfa refused.
    """
    policy = root / "etc/pam_mfa/policy.yaml"
    policy.parent.mkdir(parents=True)
    shutil.copyfile(prefix / "share/policy.yaml", policy)
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", ENABLE, str(prefix), str(root)],
        input="\n".join(f"{user.name} {user.base32}" for user in users),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"pam-mfa did not enroll the users: {done.stderr.strip()}")


class Product:
    """pam_mfa.so on its own data directory."""

    verifies = True

    def __init__(self, installation: Installation, root: Path, *, daemon: bool) -> None:
        """Measure this installation on `root`, which must not exist yet."""
        self.name = "pam_mfa, daemon" if daemon else "pam_mfa, on demand"
        self.at_most = None if daemon else ON_DEMAND_LOGINS
        self._installation = installation
        self._root = root
        self._daemon = daemon
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, users: Sequence[User]) -> str:
        """Provision the users, start the daemon where there is one, return the service's text."""
        self._installation.copy_data(self._root, users)
        if self._daemon:
            self._start()
        return f"auth required {self._installation.module} root={self._root}\n"

    def code(self, user: User, now: float) -> str:
        """Return the user's code."""
        return totp(user, now)

    def close(self) -> None:
        """Stop the daemon, by force where it does not listen."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _start(self) -> None:
        """Start the daemon and wait until it takes connections.

        Raises:
            BenchmarkError: it ended, or does not listen in time.
        """
        program = self._installation.prefix / "bin/pam-mfad"
        log = self._root.with_suffix(".log")
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(program), "--root", str(self._root)], stdout=output, stderr=output
            )
        deadline = time.monotonic() + START_UP_LIMIT
        while not is_listening(self._root / "run/pam_mfa/verify.sock"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise BenchmarkError(f"pam-mfad does not listen under {self._root}: {tail}")
            time.sleep(0.05)


def is_listening(path: Path) -> bool:
    """Return whether something accepts connections on this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
