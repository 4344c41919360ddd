# SPDX-License-Identifier: Apache-2.0
"""pam_oath's users files: what its manual describes, what it writes itself, and what is bad."""

import calendar
from time import struct_time

import pytest
from doubles import SEED, START, STEP, code_of
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.importing.credentials import BadCredential, Credential
from pam_mfa.importing.users_oath import UsersFile, parse_users_file
from pam_mfa.oath import Parameters

HEX = SEED.reveal().hex()
HOTP = Parameters(period=0)
MOMENT = "2023-11-14T22:14:05L"  # START, where local time is UTC
SHADOW = "root:$6$salt$hash:19000:0:99999:7:::"


def utc(moment: struct_time) -> float:
    """Return the seconds of a moment on a host whose local time is UTC."""
    return float(calendar.timegm(moment))


def parse(*lines: str) -> UsersFile:
    """Read a file of these lines."""
    return parse_users_file("".join(f"{line}\n" for line in lines).encode(), "users", utc)


def good(line: str) -> Credential:
    """Return what a file's only line says."""
    found = parse(line)
    assert (1, ()) == (len(found.credentials), found.bad)
    return found.credentials[0]


def fault(line: str) -> BadCredential:
    """Return why a file's only line cannot be understood."""
    found = parse(line)
    assert ((), 1) == (found.credentials, len(found.bad))
    return found.bad[0]


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("HOTP", HOTP),
        ("HOTP/E", HOTP),
        ("HOTP/E/6", HOTP),
        ("HOTP/E/7", HOTP._replace(digits=7)),
        ("HOTP/E/8", HOTP._replace(digits=8)),
        ("HOTP/T30", Parameters()),
        ("HOTP/T30/6", Parameters()),
        ("HOTP/T30/8", Parameters(digits=8)),
        ("HOTP/T60/7", Parameters(digits=7, period=60)),
    ],
)
@pytest.mark.parametrize("space", ["\t", " ", "  \t ", "\t\r"], ids=repr)
def test_types(kind: str, parameters: Parameters, space: str) -> None:
    """Each type of the format, with any white space between fields."""
    found = good(space.join((kind, "alice", "-", HEX)))
    assert Credential("alice", "users", 1, parameters, SEED) == found


def test_users() -> None:
    """Comments and empty lines are passed over, and a user may have several lines."""
    found = parse(
        "# HOTP nobody - 00", "", "   ", f"HOTP alice - {HEX}", " #", f"HOTP/T30 alice + {HEX}ff",
        f"HOTP/T30/8\tbob\t-\t{HEX}00",
    )  # fmt: skip
    assert [("alice", 4), ("alice", 6), ("bob", 7)] == [
        (each.user, each.line) for each in found.credentials
    ]


@pytest.mark.parametrize(("pin", "is_taken"), [("-", True), ("+", True), ("1234", False)])
def test_pins(pin: str, is_taken: bool) -> None:  # noqa: FBT001 - a table's column
    """A PIN of the file's own is an obstacle; none, and a password checked elsewhere, is not."""
    found = good(f"HOTP alice {pin} {HEX}")
    assert is_taken is not ("PIN" in found.obstacle)
    assert "1234" not in found.obstacle


@pytest.mark.parametrize(
    ("log", "used"),
    [
        ("", ()),
        ("\t0", (-1,)),  # written by hand: the next counter
        ("\t7", (6,)),
        (f"\t7\t{code_of(SEED, 7)}\t{MOMENT}", (7,)),  # as pam_oath writes it
        (f"\t0\t{code_of(SEED, 0)}\t{MOMENT}", (0,)),
        (f"\t8\t{code_of(SEED, 7)}\t{MOMENT}", (7,)),  # as mod_authn_otp writes it
        (f"\t7\t000000\t{MOMENT}", (7,)),  # in doubt, the counter was used
    ],
)
def test_counters(log: str, used: tuple[int, ...]) -> None:
    """The last used counter is found by the code beside it: no used code counts again."""
    assert used == good(f"HOTP alice - {HEX}{log}").used_steps


@pytest.mark.parametrize(
    ("period", "position", "step"),
    [(30, 0, STEP), (30, -1, STEP - 1), (30, 2, STEP + 2), (60, 1, STEP // 2 + 1)],
)
def test_time_steps(period: int, position: int, step: int) -> None:
    """The last used time step is that of the moment, moved by the search position."""
    found = good(f"HOTP/T{period} alice - {HEX} {position} 123456 {MOMENT}")
    assert (step,) == found.used_steps
    assert int(START) // period + position == step


def test_time_step_without_moment() -> None:
    """Where no moment was written, no time step is known."""
    assert () == good(f"HOTP/T30 alice - {HEX} 0 123456").used_steps


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("HOTP", "four fields"),
        ("HOTP alice", "four fields"),
        (f"HOTP alice {HEX}", "four fields"),
        (f"hotp alice - {HEX}", "its type"),
        (f"HOTP/6 alice - {HEX}", "its type"),
        (f"HOTP/T45 alice - {HEX}", "its type"),
        (f"HOTP/T30/9 alice - {HEX}", "its type"),
        (f"MOTP alice - {HEX}", "its type"),
        (f"HOTP alice - {HEX}0", "hex"),
        ("HOTP alice - xyz", "hex"),
        ("HOTP alice - " + "00" * 129, "hex"),
        (f"HOTP alice - {HEX} x", "moving factor is not a whole number"),
        (f"HOTP alice - {HEX} -1", "out of range"),
        (f"HOTP alice - {HEX} 9999999999999999999", "out of range"),
        (f"HOTP alice - {HEX} " + "9" * 5000, "not a whole number"),
        (f"HOTP/T30 alice - {HEX} 10001 123456 {MOMENT}", "out of range"),
        (f"HOTP/T30 alice - {HEX} 0 123456 yesterday", "not a moment"),
        (f"HOTP/T30 alice - {HEX} 0 123456 2023-13-14T22:14:05L", "not a moment"),
    ],
)
def test_faults(line: str, words: str) -> None:
    """What pam_oath would not take is named by its line, and the others are read."""
    found = parse(f"HOTP bob - {HEX}", line, f"HOTP carol - {HEX}00")
    assert ["bob", "carol"] == [each.user for each in found.credentials]
    assert [2] == [each.line for each in found.bad]
    assert words in found.bad[0].reason


def test_not_utf_8() -> None:
    """A line of other bytes is bad, and only that."""
    data = b"HOTP \xff - 00\nHOTP bob - " + HEX.encode() + b"\n"
    found = parse_users_file(data, "users", utc)
    assert (["bob"], [1]) == (
        [each.user for each in found.credentials], [each.line for each in found.bad],
    )  # fmt: skip


@pytest.mark.parametrize("line", [SHADOW, f"HOTP {HEX} -", f"HOTP {HEX} - alice", f"x - {HEX} y"])
def test_content_is_not_quoted(line: str) -> None:
    """Neither a secret in the wrong column nor another file's content stands in the reason."""
    said = repr(fault(line))
    assert not [word for word in (HEX, "salt", "19000", "alice") if word in said]


def test_moment_out_of_range() -> None:
    """A moment that this host's clock cannot hold is bad, and does not end the import."""

    def refuse(_moment: struct_time) -> float:
        raise OverflowError

    line = f"HOTP/T30 alice - {HEX} 0 123456 {MOMENT}".encode()
    assert "not a moment" in parse_users_file(line, "users", refuse).bad[0].reason


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Whatever is in a file, each line is read, passed over or bad."""
    found = parse_users_file(data, "users", utc)
    lines = [each.line for each in found.credentials] + [each.line for each in found.bad]
    assert len(set(lines)) == len(lines) <= data.count(b"\n") + 1


@given(st.lists(st.sampled_from(["HOTP", "alice", "-", HEX, "7", "123456", MOMENT, "#", "+"]),
                max_size=8))  # fmt: skip
def test_any_fields(fields: list[str]) -> None:
    """Whatever fields a line has, it is read, passed over or bad."""
    found = parse(" ".join(fields))
    assert len(found.credentials) + len(found.bad) <= 1
