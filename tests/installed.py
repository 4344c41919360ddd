# SPDX-License-Identifier: Apache-2.0
"""pam-mfa as an administrator has it: an installed prefix, a data root, a daemon.

Tests of the layers pam and login go through these installed files only. Codes are made by
oathtool, so that somebody else's program judges ours.
"""

import contextlib
import functools
import json
import os
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from base64 import b32encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from audit_records import require_schema

REPOSITORY = Path(__file__).resolve().parent.parent
PATIENCE = 30.0  # seconds that a daemon may take to listen or to stop on a loaded machine
PERIOD = 30  # seconds


def install(prefix: Path, cflags: str = "") -> None:
    """Build and install into a prefix, as packaging/install does for everybody."""
    subprocess.run(
        [REPOSITORY / "packaging/install", "--prefix", prefix],
        env={**os.environ, "EXTRA_CFLAGS": cflags},
        check=True,
        capture_output=True,
        timeout=300,
    )


def new_secret() -> str:
    """Return a fresh seed in base32."""
    return b32encode(secrets.token_bytes(20)).decode("ascii")


def totp(secret: str, step: int = 0, *options: str) -> str:
    """Return oathtool's code for the time step this many after the current one."""
    moment = int(time.time()) + step * PERIOD
    done = subprocess.run(
        ["oathtool", "--totp", "--base32", "--now", f"@{moment}", *options, "-"],
        input=secret,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def wait_for_step(margin: float = 5.0) -> None:
    """Wait, where needed, until the current time step has at least this many seconds left."""
    left = PERIOD - time.time() % PERIOD
    if left < margin:
        time.sleep(left + 0.05)


class _Made(NamedTuple):
    """A directory of ours, or the seal key."""

    name: Path
    mode: int
    uid: int
    gid: int

    def make_below(self, root: Path) -> None:
        """Make the same in another root; a key of its own."""
        path = root / self.name
        if stat.S_ISDIR(self.mode):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(secrets.token_bytes(32))
        os.chown(path, self.uid, self.gid)
        path.chmod(stat.S_IMODE(self.mode))


@functools.cache
def _made_by_a_command(prefix: Path) -> tuple[_Made, ...]:
    """Return what a command makes in a root that has nothing but a policy; parents first."""
    with tempfile.TemporaryDirectory(prefix="pam-mfa-new-", dir="/var/tmp") as directory:
        root = Path(directory)
        root.chmod(0o755)
        (root / "etc/pam_mfa").mkdir(parents=True)
        shutil.copyfile(REPOSITORY / "config/policy.yaml", root / "etc/pam_mfa/policy.yaml")
        subprocess.run(
            [prefix / "bin/pam-mfa", "--root", root, "list"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        found = []
        tops = (root / "var", root / "run")
        for path in (*tops, *sorted(one for top in tops for one in top.rglob("*"))):
            about = path.lstat()
            assert path.is_dir() or path.name == "seal.key", path
            found.append(_Made(path.relative_to(root), about.st_mode, about.st_uid, about.st_gid))
        return tuple(found)


class EndedAtStartError(AssertionError):
    """A daemon ended before it listened."""


class DataRoot:
    """A directory for ``root=`` and ``--root``, which the verifier's user can reach."""

    def __init__(self, prefix: Path) -> None:
        """Make the directory, with the shipped policy in it and nobody enrolled."""
        self.prefix = prefix
        self.holds_schema = True  # False: a test spoils what records are made of
        self.path = Path(tempfile.mkdtemp(prefix="pam-mfa-test-", dir="/var/tmp"))
        self.path.chmod(0o755)
        self.policy = self.path / "etc/pam_mfa/policy.yaml"
        self.policy.parent.mkdir(parents=True)
        shutil.copyfile(REPOSITORY / "config/policy.yaml", self.policy)
        self.services = self.path / "pam.d"
        self.services.mkdir()
        self.library = self.path / "var/lib/pam_mfa"
        self.audit_log = self.path / "var/log/pam_mfa/audit.jsonl"
        # What any first command makes on a new host, without the 0.2 s that a command takes.
        for made in _made_by_a_command(prefix):
            made.make_below(self.path)

    @property
    def module(self) -> str:
        """The module and its root, as they stand in a PAM line."""
        return f"{self.prefix}/lib/security/pam_mfa.so root={self.path}"

    def remove(self) -> None:
        """Take the directory away, though a verifier on demand may still be ending in it.

        Before that, the schema is held against every record in it.
        """
        if self.holds_schema:
            require_schema(self.path)
        deadline = time.monotonic() + PATIENCE
        while self.path.exists() and time.monotonic() < deadline:
            shutil.rmtree(self.path, ignore_errors=True)

    def command(
        self, *arguments: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run pam-mfa under this root."""
        return subprocess.run(
            [self.prefix / "bin/pam-mfa", "--root", self.path, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
        )

    def enroll(self, user: str, name: str = "phone", *options: str) -> str:
        """Enable a virtual device by codes of past time steps; return its secret.

        The current time step and the next are still good for logins.
        """
        wait_for_step()
        secret = new_secret()
        codes = [totp(secret, -2), totp(secret, -1)]
        self.command(
            "enable", "virtual", user, "--name", name, "--secret", "-", "--codes", *codes,
            *options, stdin=secret + "\n",
        )  # fmt: skip
        return secret

    def device_file(self, user: str) -> Path:
        """Return the path of a plainly named user's device file."""
        return self.library / "devices" / f"{user}.yaml"

    def audit(self, name: str = "VerifyMfa") -> list[dict[str, Any]]:
        """Return the records of one event name, oldest first."""
        if not self.audit_log.exists():
            return []
        lines = self.audit_log.read_text("ascii").splitlines()
        records: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [record for record in records if record["event_name"] == name]

    def reasons(self) -> list[str]:
        """Return the reasons of all verifications, oldest first."""
        return [record["reason"] for record in self.audit()]

    @contextlib.contextmanager
    def daemon(self, wrapper: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
        """Run pam-mfad on this root's socket, under another program where one is named."""
        program = self.prefix / "bin/pam-mfad"
        process = subprocess.Popen([*wrapper, program, "--root", self.path])
        try:
            self._wait_until_listening(process)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait_until_listening(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise EndedAtStartError("the daemon ended at its start")
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with contextlib.closing(probe), contextlib.suppress(OSError):
                probe.connect(str(self.path / "run/pam_mfa/verify.sock"))
                return
            time.sleep(0.02)
        raise AssertionError("the daemon does not listen")
