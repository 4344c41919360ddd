# SPDX-License-Identifier: Apache-2.0
"""google-authenticator's secret files: those its program writes, and those that attackers write."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.importing.credentials import BadCredential, Credential
from pam_mfa.importing.google_authenticator import SIZE_MAX, parse_secret_file
from pam_mfa.oath import Parameters
from pam_mfa.secret import Secret

SECRET = "ORSXG5DTMVRXEZLUNBSXEZLUNBQQ"  # of 28 letters, as no version of the program makes it
SEED = base64.b32decode(SECRET + "====")
CODES = ["61024008", "59603733", "60269131"]
SHADOW = b"root:$6$salt$hash:19000:0:99999:7:::\n"
PROGRAM = shutil.which("google-authenticator")
needs_program = pytest.mark.skipif(PROGRAM is None, reason="google-authenticator is not installed")


def parse(*lines: str, end: str = "\n") -> Credential | BadCredential:
    """Read a file of these lines."""
    return parse_secret_file("".join(line + end for line in lines).encode(), "ga", "alice")


def good(*lines: str) -> Credential:
    """Return what a sound file says; the secret is its first line."""
    found = parse(SECRET, *lines)
    assert isinstance(found, Credential)
    return found


def fault(*lines: str) -> tuple[int, str]:
    """Return the line and the reason of a file that cannot be understood."""
    found = parse(*lines)
    assert isinstance(found, BadCredential)
    assert ("alice", "ga") == (found.user, found.source)
    return found.line, found.reason


def make(directory: Path, *options: str) -> Credential:
    """Return what a file says that the real program has made."""
    path = directory / "made"
    subprocess.run(
        [str(PROGRAM), "-f", "-q", "-Q", "none", "-s", str(path), *options],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    found = parse_secret_file(path.read_bytes(), "ga", "alice")
    assert isinstance(found, Credential)
    assert base64.b32encode(found.seed.reveal()).rstrip(b"=") in path.read_bytes()
    return found


@needs_program
@pytest.mark.parametrize("reuse", ["-d", "-D"])
def test_program_totp(tmp_path: Path, reuse: str) -> None:
    """A time-based file of the real program, with limits and five scratch codes."""
    found = make(tmp_path, "-t", reuse, "-r", "3", "-R", "30", "-w", "17")
    assert (Parameters(), (), 0, 17, "") == (
        found.parameters, found.used_steps, found.drift, found.window, found.obstacle,
    )  # fmt: skip
    assert [8] * 5 == [len(code) for code in found.scratch_codes or ()]


@needs_program
def test_program_hotp(tmp_path: Path) -> None:
    """A counter-based file of the real program begins with counter 1."""
    found = make(tmp_path, "-c", "-u", "-W")
    assert (Parameters(period=0), (0,)) == (found.parameters, found.used_steps)


@needs_program
def test_program_long_steps(tmp_path: Path) -> None:
    """The real program's options for step size and number of scratch codes."""
    found = make(tmp_path, "-t", "-D", "-u", "-W", "-S", "60", "-e", "10")
    assert (Parameters(period=60), 10) == (found.parameters, len(found.scratch_codes or ()))


def test_whole_file() -> None:
    """Everything that a used file says is read, as the module left it."""
    found = good(
        '" RATE_LIMIT 3 30 1700000000', '" WINDOW_SIZE 17', '" DISALLOW_REUSE 56666668 56666670',
        '" TIME_SKEW -2', '" RESETTING_TIME_SKEW', '" TOTP_AUTH', *CODES,
    )  # fmt: skip
    expected = Credential(
        "alice", "ga", 1, Parameters(), Secret(SEED), (56666668, 56666670), -2, 17, tuple(CODES)
    )
    assert expected == found


def test_ends_of_lines() -> None:
    """A file that was edited on another system is read like the others."""
    found = parse(SECRET, '" TOTP_AUTH', *CODES, end="\r\n")
    assert good('" TOTP_AUTH', *CODES) == found


def test_counter_comes_first() -> None:
    """With both ways in a file the counter counts, and the next one is the file's."""
    found = good('" TOTP_AUTH', '" HOTP_COUNTER 7')
    assert (Parameters(period=0), (6,)) == (found.parameters, found.used_steps)


def test_first_line_of_an_option_counts() -> None:
    """As for the module, a second line of the same option says nothing."""
    assert 5 == good('" WINDOW_SIZE 5', '" WINDOW_SIZE 9', '" TOTP_AUTH').window


def test_other_step_size() -> None:
    """A step size that no device here has is an obstacle, not a fault."""
    assert "every 45 s" in good('" TOTP_AUTH', '" STEP_SIZE 45').obstacle


def test_scratch_codes_end() -> None:
    """As for the module, a line that is no scratch code ends them."""
    found = good('" TOTP_AUTH', CODES[0], "", CODES[1], "1234567", CODES[2])
    assert tuple(CODES[:2]) == found.scratch_codes


@pytest.mark.parametrize(
    ("letters", "seed"),
    [
        ("MFRGGZDFMZTWQ2LK", b"abcdefghij"),  # 80 bits, of the first versions
        ("mfrggzdf mztwq2lk", b"abcdefghij"),
        ("MFRGGZDF-MZTWQ2LK", b"abcdefghij"),
        ("MFRGGZDFMZTWQ2LKM", b"abcdefghij"),  # what is left of the last bits is dropped
        ("0R5XG5A", base64.b32decode("OR5XG5A=")),
        ("18ZA", base64.b32decode("LBZA====")),
    ],
)
def test_base32(letters: str, seed: bytes) -> None:
    """Secrets are decoded as the module does, mistyped letters and odd lengths too."""
    found = parse(letters, '" TOTP_AUTH')
    assert isinstance(found, Credential)
    assert seed == found.seed.reveal()


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ((), 1, "not a secret in base32"),
        (("", '" TOTP_AUTH'), 1, "not a secret in base32"),
        (('" TOTP_AUTH', SECRET), 1, "not a secret in base32"),
        (("ORSXG5D=", '" TOTP_AUTH'), 1, "not a secret in base32"),
        (("A", '" TOTP_AUTH'), 1, "1 to 128 bytes"),
        (("A" * 207, '" TOTP_AUTH'), 1, "1 to 128 bytes"),
        ((SECRET,), 1, "neither TOTP_AUTH nor HOTP_COUNTER"),
        ((SECRET, "TOTP_AUTH"), 1, "neither TOTP_AUTH nor HOTP_COUNTER"),
        ((SECRET, '" TOTP_AUTH', '" WINDOW_SIZE 0'), 3, "WINDOW_SIZE is not 1 to 100"),
        ((SECRET, '" TOTP_AUTH', '" WINDOW_SIZE'), 3, "WINDOW_SIZE is not a whole number"),
        ((SECRET, '" TOTP_AUTH', '" STEP_SIZE 61'), 3, "STEP_SIZE is not 1 to 60"),
        ((SECRET, '" TOTP_AUTH', '" STEP_SIZE x'), 3, "STEP_SIZE is not a whole number"),
        ((SECRET, '" TOTP_AUTH', '" TIME_SKEW 1501'), 3, "TIME_SKEW is not -1500 to 1500"),
        ((SECRET, '" TOTP_AUTH', '" DISALLOW_REUSE 1 y'), 3, "DISALLOW_REUSE is not a whole"),
        ((SECRET, '" HOTP_COUNTER 0'), 2, "HOTP_COUNTER is not 1 to"),
        ((SECRET, '" HOTP_COUNTER 9999999999999999999'), 2, "HOTP_COUNTER is not 1 to"),
        ((SECRET, '" HOTP_COUNTER ' + "9" * 5000), 2, "HOTP_COUNTER is not a whole number"),
        ((SECRET, '" TOTP_AUTH', *map(str, range(10**7, 10**7 + 11))), 0, "more than 10 scratch"),
        ((SECRET, '" TOTP_AUTH é'), 2, "not ASCII"),
    ],
)
def test_faults(lines: tuple[str, ...], line: int, words: str) -> None:
    """What the module would not take either is named by its line."""
    found = fault(*lines)
    assert line == found[0]
    assert words in found[1]


@pytest.mark.parametrize("before", [b"", SECRET.encode() + b"\n", b'ORSXG5DT\n" WINDOW_SIZE '])
def test_content_is_not_quoted(before: bytes) -> None:
    """A file that is somebody else's, named by a link, is not quoted in the reason."""
    found = parse_secret_file(before + SHADOW, "ga", "alice")
    assert isinstance(found, BadCredential)
    assert not [word for word in ("root", "salt", "hash", "19000", SECRET) if word in repr(found)]


def test_secret_does_not_print() -> None:
    """What was read shows no secret where it is printed."""
    assert SECRET not in repr(good('" TOTP_AUTH'))
    assert repr(SEED) not in repr(good('" TOTP_AUTH'))


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """Whatever is in a file, it is read or refused by a line of it."""
    found = parse_secret_file(data, "ga", "alice")
    assert 0 <= found.line <= data.count(b"\n") + 1


@given(st.lists(st.sampled_from(['" TOTP_AUTH', '" ', '"', CODES[0], "x", "\0", '" STEP_SIZE 9']),
                max_size=9))  # fmt: skip
def test_any_lines(lines: list[str]) -> None:
    """Whatever lines follow the secret, what is taken has codes of eight digits only."""
    found = parse(SECRET, *lines)
    if isinstance(found, Credential):
        assert {8} >= {len(code) for code in found.scratch_codes or ()}
        assert SEED == found.seed.reveal()


def test_size() -> None:
    """The largest file that the program can write is under the limit by far."""
    lines = [SECRET, '" RATE_LIMIT 100 3600' + " 1700000000" * 100, '" WINDOW_SIZE 100',
             '" DISALLOW_REUSE' + " 56666668" * 100, '" TIME_SKEW -1500',
             '" RESETTING_TIME_SKEW' + " 56666668-1500" * 3, '" TOTP_AUTH', *CODES * 3]  # fmt: skip
    assert len("\n".join(lines)) < SIZE_MAX * 3 // 4
