# SPDX-License-Identifier: Apache-2.0
"""The daemon on a socket that was passed to it, by systemd's own activation program."""

import subprocess
import time
from pathlib import Path

from installed import PATIENCE, REPOSITORY, DataRoot, totp

UNITS = ("pam-mfad.socket", "pam-mfad-self.socket", "pam-mfad.service")


def try_login(root: DataRoot, code: str) -> int:
    """Return the exit status of a login through real libpam."""
    (root.services / "demo").write_text(
        f"auth required {root.module}\naccount required pam_permit.so\n"
    )
    arguments = ("try", "alice", "--service", "demo", "--pam-dir", str(root.services))
    return root.command(*arguments, stdin=code + "\n", check=False).returncode


def test_daemon_serves_the_socket_that_systemd_passes(root: DataRoot) -> None:
    """A login through the activated socket is verified by the daemon behind it."""
    secret = root.enroll("alice")
    names = ("verify.sock", "verify-self.sock")
    paths = [root.path / "run/pam_mfa" / name for name in names]
    listen = [f"--listen={path}" for path in paths]
    activator = subprocess.Popen(
        ["systemd-socket-activate", "--seqpacket", *listen,
         root.prefix / "bin/pam-mfad", "--root", root.path],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while not all(path.exists() for path in paths) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert try_login(root, totp(secret)) == 0
        program = Path(f"/proc/{activator.pid}/cmdline").read_bytes()
        assert b"pam-mfad" in program
    finally:
        activator.terminate()
        activator.communicate(timeout=PATIENCE)


def test_units_are_accepted_by_systemd(tmp_path: Path) -> None:
    """systemd-analyze finds no fault in the shipped units."""
    for name in UNITS:
        text = (REPOSITORY / "packaging/systemd" / name).read_text("utf-8")
        # The program need not be installed in its final place for this.
        text = text.replace("/opt/pam-mfa/bin/pam-mfad", "/bin/true").replace(
            "file:///opt/pam-mfa/share/README.md", "file:///bin/true"
        )
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / name for name in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
