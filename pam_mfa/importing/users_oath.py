# SPDX-License-Identifier: Apache-2.0
"""The users file of pam_oath, ``/etc/users.oath``.

Owns its fields: type, user, PIN, secret in hex, and what pam_oath writes behind them after a login:
moving factor, last code, time. Pure; what a local time is in seconds is for the caller to say. An
error never quotes a line.
"""

import re
from collections.abc import Callable, Iterator
from time import strptime, struct_time
from typing import Final, NamedTuple

from pam_mfa import oath
from pam_mfa.importing.credentials import BadCredential, Credential
from pam_mfa.oath import SEED_BYTES_MAXIMUM, Algorithm, Parameters
from pam_mfa.secret import Secret
from pam_mfa.tokens import COUNTER_MAX

LocalTime = Callable[[struct_time], float]
_TYPE = re.compile(r"HOTP(?:/(?:E|T(30|60))(?:/([678]))?)?", re.ASCII)
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+", re.ASCII)
_SPACE = re.compile(r"[ \t\r]+")
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_TIME: Final = "%Y-%m-%dT%H:%M:%SL"  # in the host's own time zone
_NO_PIN: Final = ("-", "+")  # none, or a password that another module checks
_FIELDS_LEAST: Final = 4
_POSITION_MAX: Final = 10000  # time steps


class UsersFile(NamedTuple):
    """What one users file says."""

    credentials: tuple[Credential, ...]
    bad: tuple[BadCredential, ...]


def parse_users_file(data: bytes, source: str, local_time: LocalTime) -> UsersFile:
    """Read a users file.

    Args:
        data: the file's bytes.
        source: its name, for the record.
        local_time: returns the seconds since the epoch of a local time, as ``time.mktime`` does.
    """
    credentials: list[Credential] = []
    bad: list[BadCredential] = []
    for entry in _entries(data, source, local_time):
        credentials.append(entry) if isinstance(entry, Credential) else bad.append(entry)
    return UsersFile(tuple(credentials), tuple(bad))


class _FaultError(Exception):
    """A line that cannot be understood."""


def _entries(
    data: bytes, source: str, local_time: LocalTime
) -> Iterator[Credential | BadCredential]:
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            fields = [field for field in _SPACE.split(line.decode("utf-8")) if field]
            if fields and not fields[0].startswith("#"):
                yield _parse_fields(fields, local_time)._replace(source=source, line=number)
        except UnicodeDecodeError:
            yield BadCredential("", source, number, "it is not UTF-8")
        except _FaultError as fault:
            # Not even the user: where a field is missing, the secret stands in its place.
            yield BadCredential("", source, number, str(fault))


def _parse_fields(fields: list[str], local_time: LocalTime) -> Credential:
    if len(fields) < _FIELDS_LEAST:
        raise _FaultError("it has not the four fields type, user, PIN and secret")
    kind, user, pin, secret = fields[:_FIELDS_LEAST]
    form = _TYPE.fullmatch(kind)
    if not form:
        raise _FaultError(
            "its type is none of HOTP, HOTP/E, HOTP/T30 and HOTP/T60, with /6, /7, /8"
        )
    if not _HEX.fullmatch(secret) or len(secret) > SEED_BYTES_MAXIMUM * 2:
        raise _FaultError(f"its secret is not 1 to {SEED_BYTES_MAXIMUM} bytes in hex")
    parameters = Parameters(Algorithm.SHA1, int(form[2] or 6), int(form[1] or 0))
    credential = Credential(user, "", 0, parameters, Secret(bytes.fromhex(secret)))
    if pin not in _NO_PIN:
        obstacle = "a PIN is typed with its code there, and pam-mfa asks for the code alone"
        credential = credential._replace(obstacle=obstacle)
    step = _find_used_step(credential, fields[_FIELDS_LEAST:], local_time)
    return credential if step is None else credential._replace(used_steps=(step,))


def _find_used_step(credential: Credential, log: list[str], local_time: LocalTime) -> int | None:
    """Return the last counter or time step that was accepted, by what was written after it."""
    if not log:
        return None
    if not _NUMBER.fullmatch(log[0]):
        raise _FaultError("its moving factor is not a whole number")
    factor, last_code = int(log[0]), log[1] if len(log) > 1 else ""
    if not credential.parameters.is_event_based:
        return _find_time_step(credential.parameters.period, factor, log[2:], local_time)
    if not 0 <= factor <= COUNTER_MAX:
        raise _FaultError("its moving factor is out of range")
    # pam_oath writes the counter of the last code beside that code; mod_authn_otp, whose file this
    # is too, and whoever writes one by hand, the next one's. In doubt no used code counts again.
    is_next = not last_code or (
        factor > 0
        and [last_code]
        == oath.codes(credential.seed, credential.parameters, range(factor - 1, factor))
    )
    return factor - 1 if is_next else factor


def _find_time_step(
    period: int, position: int, moment: list[str], local_time: LocalTime
) -> int | None:
    if abs(position) > _POSITION_MAX:
        raise _FaultError("its search position is out of range")
    if not moment:
        return None
    try:
        return int(local_time(strptime(moment[0], _TIME))) // period + position
    except (ValueError, OverflowError) as error:
        raise _FaultError("its time is not a moment such as 2026-11-24T08:00:00L") from error
