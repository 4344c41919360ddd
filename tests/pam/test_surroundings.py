# SPDX-License-Identifier: Apache-2.0
"""What the invoking user's surroundings could do to root's part of the work."""

import pwd
import subprocess
import sys
from pathlib import Path

from installed import REPOSITORY, DataRoot

LEAVE = """
import os, resource
os.nice(15)
os.sched_setaffinity(0, {0})
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 4096))
from pam_mfa.verifier.surroundings import leave_caller
leave_caller()
print(os.getpriority(os.PRIO_PROCESS, 0), len(os.sched_getaffinity(0)) == os.cpu_count(),
      resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_priority_and_limits_of_the_invoking_user_are_left() -> None:
    """A verifier on demand does not run at the priority and limits of sudo's user."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVE], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0 True 1024\n"


def test_install_runs_no_python_of_the_current_directory(tmp_path: Path) -> None:
    """Whoever owns the directory that root stands in cannot lend the installation a module."""
    trap = tmp_path / "pip"
    trap.mkdir()
    (trap / "__init__.py").write_text("open('trapped', 'w').close()\n")
    (trap / "__main__.py").write_text("open('trapped', 'w').close()\n")
    done = subprocess.run(
        [REPOSITORY / "packaging/install", "--prefix", tmp_path / "prefix"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "trapped").exists()


def test_root_follows_no_link_inside_the_service_users_directory(
    root: DataRoot, tmp_path: Path
) -> None:
    """Root hands over nothing that the service user puts in the place of a directory of its own."""
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o755)
    devices = root.library / "devices"
    (devices / ".lock").unlink(missing_ok=True)
    devices.rmdir()
    devices.symlink_to(victim)
    done = root.command("list", check=False)
    about = victim.stat()
    assert (done.returncode, about.st_uid, about.st_mode & 0o777) == (3, 0, 0o755)
    assert root.library.stat().st_uid == pwd.getpwnam("pam-mfa").pw_uid
