# SPDX-License-Identifier: Apache-2.0
"""What the units and the AppArmor profile leave to the programs, by the tools that read them."""

import re
import subprocess

import pytest
from installed import REPOSITORY, DataRoot

from package.fresh_root import PATIENCE

UNITS = REPOSITORY / "packaging/systemd"
# pam-mfa-selfd is root while PAM checks a password, and PAM modules may ask a directory.
MOST_EXPOSED = {
    "pam-mfad.service": 1.5, "pam-mfa-selfd.service": 3.2, "pam-mfa-audit-ship.service": 1.4,
    "pam-mfa-audit-fleet.service": 0.5,
}  # fmt: skip
# prctl(2): PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN; what MemoryDenyWriteExecute= asks for.
WITHOUT_EXECUTABLE_MEMORY = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit("this kernel has no PR_SET_MDWE")
os.execv(sys.argv[1], sys.argv[1:])
"""


def settings(unit: str) -> dict[str, list[str]]:
    """Return a unit's settings, with all values of each."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", MOST_EXPOSED)
def test_exposure(unit: str) -> None:
    """systemd-analyze finds no more exposed than is written here."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNITS / unit],
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) <= MOST_EXPOSED[unit]


def test_verifier_reaches_keys_and_nothing_else() -> None:
    """No capability, no network but local sockets and udev's, no device but FIDO's nodes."""
    unit = settings("pam-mfad.service")
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [""]
    assert unit["RestrictAddressFamilies"] == ["AF_UNIX AF_NETLINK"]
    assert (unit["DevicePolicy"], unit["DeviceAllow"]) == (["closed"], ["char-hidraw rw"])
    assert unit["MemoryDenyWriteExecute"] == unit["NoNewPrivileges"] == ["yes"]
    assert unit["LimitCORE"] == ["1"]


@pytest.mark.parametrize("command", ["keys", "list"])
def test_works_without_executable_memory(root: DataRoot, command: str) -> None:
    """What cffi, cryptography, fido2 and pyudev load needs no memory that is made executable."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import fido2.ctap2, pyudev, yaml, ctypes;"
        "from cryptography.hazmat.primitives.ciphers.aead import AESGCM;"
        "AESGCM(bytes(32)).encrypt(bytes(12), b'x', None); pyudev.Context();"
        "print('loaded')"
    )
    program = [str(root.prefix / "bin/pam-mfa"), "--root", str(root.path), command]
    library = [str(root.prefix / "lib/python")]
    for arguments in (["/usr/bin/python3", "-IS", "-c", code, *library], program):
        done = subprocess.run(
            ["/usr/bin/python3", "-IS", "-c", WITHOUT_EXECUTABLE_MEMORY, *arguments],
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_apparmor_profile_compiles() -> None:
    """apparmor_parser takes the profile, which complains and enforces nothing."""
    profile = REPOSITORY / "packaging/apparmor/usr.lib.pam-mfa.pam-mfad"
    done = subprocess.run(
        ["apparmor_parser", "--skip-kernel-load", "--skip-cache", "--names", profile],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "pam-mfad\n"), done.stderr
    assert "flags=(complain,attach_disconnected)" in profile.read_text()
