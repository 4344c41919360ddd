# SPDX-License-Identifier: Apache-2.0
"""What the built module shows of itself: five functions, two libraries, a hardened file."""

import ctypes
import re
import subprocess
from pathlib import Path

import pytest
from installed import REPOSITORY

FUNCTIONS = (
    "pam_sm_authenticate",
    "pam_sm_setcred",
    "pam_sm_acct_mgmt",
    "pam_sm_open_session",
    "pam_sm_close_session",
)
LINES_MAX = 600


def readelf(prefix: Path, *options: str) -> str:
    """Return what readelf says of the module."""
    module = prefix / "lib/security/pam_mfa.so"
    done = subprocess.run(
        ["readelf", "--wide", *options, module],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_can_be_found(prefix: Path, name: str) -> None:
    """Each of the five functions can be found as libpam finds it."""
    module = ctypes.CDLL(str(prefix / "lib/security/pam_mfa.so"))
    assert getattr(module, name) is not None


def test_nothing_else_is_exported(prefix: Path) -> None:
    """The module adds no other name to its host program."""
    symbols = readelf(prefix, "--dyn-syms")
    exported = re.findall(r"(?:GLOBAL|WEAK) +DEFAULT +\d+ (\S+)$", symbols, re.MULTILINE)
    assert sorted(exported) == sorted(FUNCTIONS)


def test_needs_libc_and_libpam_only(prefix: Path) -> None:
    """The module loads no library into its host program but libc and libpam."""
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", readelf(prefix, "--dynamic"))
    assert sorted(needed) == ["libc.so.6", "libpam.so.0"]


def test_relocations_are_read_only(prefix: Path) -> None:
    """The module has full RELRO: bound at load, then read-only."""
    assert "GNU_RELRO" in readelf(prefix, "--program-headers")
    assert re.search(r"\(FLAGS(_1)?\).*NOW", readelf(prefix, "--dynamic"))


def test_stack_is_not_executable(prefix: Path) -> None:
    """The module does not make its host's stack executable, and has no text relocations."""
    stack = re.search(r"GNU_STACK.* (\S+) +0x\w+$", readelf(prefix, "-l"), re.MULTILINE)
    assert stack is not None
    assert stack[1] == "RW"
    assert "TEXTREL" not in readelf(prefix, "--dynamic")


def test_no_segment_is_writable_and_executable(prefix: Path) -> None:
    """No part of the module can be both written and run."""
    loads = re.findall(
        r"^ +LOAD .* 0x\w+ ([R ][W ][E ]) 0x\w+$", readelf(prefix, "-l"), re.MULTILINE
    )
    assert len(loads) >= 2
    assert not [flags for flags in loads if "W" in flags and "E" in flags]


def test_native_sources_stay_small() -> None:
    """The native part is at most 600 lines, so that it can be read whole."""
    sources = REPOSITORY / "pam_mfa/native"
    files = [path for path in sources.iterdir() if path.suffix in {".c", ".h", ".map"}]
    assert sum(len(path.read_text("utf-8").splitlines()) for path in files) <= LINES_MAX
