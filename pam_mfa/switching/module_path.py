# SPDX-License-Identifier: Apache-2.0
"""Where pam_mfa.so lies under a root, and whether PAM could load it."""

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pam_mfa.errors import RefusedError
from pam_mfa.switching.bypasses import MODULE

_SYSTEM = ("usr/lib/*/security", "lib/*/security", "usr/lib64/security", "usr/lib/security",
           "lib64/security", "lib/security")  # fmt: skip
_OPTIONAL: Final = "opt/pam-mfa/lib/security"
_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
_PATIENCE = 20.0  # seconds
_WRITABLE_BY_OTHERS = 0o022


def find_modules(root: Path) -> Iterator[Path]:
    """Go through the module's files, those that PAM finds by name first."""
    for pattern in _SYSTEM:
        yield from (path for path in sorted(root.glob(f"{pattern}/{MODULE}")) if path.is_file())
    optional = root / _OPTIONAL / MODULE
    if optional.is_file():
        yield optional


def choose_module(root: Path, given: Path | None) -> str:
    """Return how a PAM line names the module.

    Raises:
        RefusedError: there is none; a line that names it would refuse every login.
    """
    path = given or next(find_modules(root), None)
    if path is None:
        raise RefusedError(
            f"there is no {MODULE} under {root}; a line that names it would refuse everybody",
            hint="Install it first (packaging/install, or the package), or say where it is: "
            "--module /path/pam_mfa.so",
        )
    fault = find_fault(path, is_loaded=given is not None or root == Path("/"))
    if fault:
        raise RefusedError(f"{path} {fault}; with it PAM would refuse everybody")
    if given is None and _OPTIONAL not in str(path):
        return MODULE
    return str(path) if given else f"/{_OPTIONAL}/{MODULE}"


def find_fault(path: Path, *, is_loaded: bool) -> str:
    """Return what is wrong with a module's file, as a sentence's second half; "" for nothing."""
    try:
        about = path.stat()
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    if not stat.S_ISREG(about.st_mode):
        return "is not a regular file"
    if about.st_mode & _WRITABLE_BY_OTHERS:
        return "may be written by others than root"
    return _find_load_fault(path) if is_loaded else ""


def _find_load_fault(path: Path) -> str:
    """Load it in a process of its own, as libpam would."""
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-I", "-S", "-c", _LOAD, str(path)],
            capture_output=True, text=True, timeout=_PATIENCE, check=False, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be tried: {error}"
    words = done.stderr.strip().splitlines()
    return f"cannot be loaded: {words[-1]}" if done.returncode and words else ""
