# SPDX-License-Identifier: Apache-2.0
"""The secret file of google-authenticator-libpam, ``~/.google_authenticator``.

Owns the words of that program's FILEFORMAT document: the secret in base32, then options, each
behind a double quote and a space, then scratch codes. As there, an option's first line counts, one
that is not known is passed over, and scratch codes end at a line that is none. Pure. An error never
quotes a line: whoever owns the file may have made it a name of somebody else's.
"""

import re
from typing import Final, NamedTuple

from pam_mfa.importing.credentials import BadCredential, Credential
from pam_mfa.oath import PERIODS, SEED_BYTES_MAXIMUM, Algorithm, Parameters
from pam_mfa.secret import Secret
from pam_mfa.tokens import COUNTER_MAX

FILE_NAME: Final = ".google_authenticator"
SIZE_MAX: Final = 4096  # bytes; the program itself writes less than one thousand
_DIGITS: Final = 6  # the module makes no others
_PERIOD: Final = 30  # seconds, where STEP_SIZE is not said
_WINDOW: Final = 3  # codes, where WINDOW_SIZE is not said
_SKEW_MAX: Final = 1500  # time steps; the module looks no farther when it learns one
_SCRATCH_CODES_MAX: Final = 10  # the program makes no more
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_MISTYPED: Final = str.maketrans("018", "OLB")  # which the module mends
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_SCRATCH_CODE = re.compile(r"[1-9][0-9]{7}", re.ASCII)


class _Option(NamedTuple):
    line: int
    values: list[str]


class _FaultError(Exception):
    """A line that cannot be understood."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def parse_secret_file(data: bytes, source: str, user: str) -> Credential | BadCredential:
    """Read a secret file.

    Args:
        data: the file's bytes.
        source: its name, for the record.
        user: whose it is.
    """
    try:
        lines = [line.rstrip("\r") for line in data.decode("ascii").split("\n")]
        return _parse_lines(lines, source, user)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return BadCredential(user, source, line, "it is not ASCII")
    except _FaultError as fault:
        return BadCredential(user, source, fault.line, str(fault))


def _parse_lines(lines: list[str], source: str, user: str) -> Credential:
    options = _read_options(lines)
    credential = Credential(
        user,
        source,
        1,
        Parameters(Algorithm.SHA1, _DIGITS, _PERIOD),
        _parse_seed(lines[0]),
        window=_number(options, "WINDOW_SIZE", (1, 100), _WINDOW),
        scratch_codes=_read_scratch_codes(lines),
    )
    if "HOTP_COUNTER" in options:  # which counts before TOTP_AUTH
        counter = _number(options, "HOTP_COUNTER", (1, COUNTER_MAX), 1)
        parameters = credential.parameters._replace(period=0)
        return credential._replace(parameters=parameters, used_steps=(counter - 1,))
    if "TOTP_AUTH" not in options:
        raise _FaultError(1, "it has neither TOTP_AUTH nor HOTP_COUNTER, so no code counts")
    return _add_time(credential, options)


def _add_time(credential: Credential, options: dict[str, _Option]) -> Credential:
    period = _number(options, "STEP_SIZE", (1, 60), _PERIOD)
    used = options.get("DISALLOW_REUSE", _Option(0, []))
    obstacle = f"its codes change every {period} s; only {PERIODS[0]} and {PERIODS[1]} are taken"
    return credential._replace(
        parameters=credential.parameters._replace(period=period),
        used_steps=tuple(_parse_number(text, used.line, "DISALLOW_REUSE") for text in used.values),
        drift=_number(options, "TIME_SKEW", (-_SKEW_MAX, _SKEW_MAX), 0),
        obstacle="" if period in PERIODS else obstacle,
    )


def _read_options(lines: list[str]) -> dict[str, _Option]:
    options: dict[str, _Option] = {}
    for number, line in enumerate(lines[1:], 2):
        if line.startswith('" '):
            name, *values = line[2:].split() or [""]
            options.setdefault(name, _Option(number, values))
    return options


def _read_scratch_codes(lines: list[str]) -> tuple[str, ...]:
    codes: dict[str, None] = {}
    for line in lines[1:]:
        if not line or line.startswith('"'):
            continue
        if not _SCRATCH_CODE.fullmatch(line):
            break
        codes[line] = None
    if len(codes) > _SCRATCH_CODES_MAX:
        raise _FaultError(0, f"it has more than {_SCRATCH_CODES_MAX} scratch codes")
    return tuple(codes)


def _number(options: dict[str, _Option], name: str, limits: tuple[int, int], default: int) -> int:
    if name not in options:
        return default
    line, values = options[name]
    number = _parse_number(values[0] if values else "", line, name)
    if not limits[0] <= number <= limits[1]:
        raise _FaultError(line, f"its {name} is not {limits[0]} to {limits[1]}")
    return number


def _parse_number(text: str, line: int, name: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise _FaultError(line, f"its {name} is not a whole number")
    return int(text)


def _parse_seed(text: str) -> Secret:
    """Decode base32 as the module does: of any length, and the bits that are left are dropped."""
    plain = re.sub(r"[ \t-]", "", text).upper().translate(_MISTYPED)
    if not plain or not set(plain) <= set(_ALPHABET):
        raise _FaultError(1, "its first line is not a secret in base32")
    size = len(plain) * 5 // 8
    if not 0 < size <= SEED_BYTES_MAXIMUM:
        raise _FaultError(1, f"its secret has not 1 to {SEED_BYTES_MAXIMUM} bytes")
    value = 0
    for letter in plain:
        value = value << 5 | _ALPHABET.index(letter)
    return Secret((value >> (len(plain) * 5 - size * 8)).to_bytes(size, "big"))
