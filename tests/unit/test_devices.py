# SPDX-License-Identifier: Apache-2.0
"""Device files: what is written is read back, and every file that is refused."""

import datetime

import pytest
from doubles import make_device
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.devices import (
    Device,
    RecoveryCodes,
    VirtualDevice,
    format_devices,
    parse_devices,
    require_name,
    require_user,
    serial_number_of,
)
from pam_mfa.errors import DocumentError, RefusedError
from pam_mfa.oath import DIGITS, PERIODS, Algorithm, Parameters

GOOD = """\
version: 1
user: alice
devices:
- serial_number: virtual/alice/phone
  type: virtual
  name: phone
  enabled_at: 2026-01-02T03:04:05Z
  algorithm: SHA1
  digits: 6
  period: 30
  secret: sealed:v1:AAAA
"""
SECOND = GOOD.partition("devices:\n")[2]
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
MOMENTS = st.datetimes(
    datetime.datetime(1970, 1, 1), datetime.datetime(9000, 1, 1),  # noqa: DTZ001 - zone added below
    timezones=st.just(datetime.UTC),
).map(lambda moment: moment.replace(microsecond=0))  # fmt: skip
DEVICES = st.builds(
    VirtualDevice,
    serial_number=TEXTS,
    name=TEXTS,
    enabled_at=MOMENTS,
    parameters=st.builds(
        Parameters,
        st.sampled_from(Algorithm),
        st.sampled_from(DIGITS),
        st.sampled_from((0, *PERIODS)),
    ),
    sealed_seed=TEXTS,
)


def is_user(text: str) -> bool:
    """Whether a text may be an account's name."""
    try:
        require_user(text)
    except RefusedError:
        return False
    return True


def read(text: str) -> tuple[Device, ...]:
    """Read Alice's device file."""
    return parse_devices(text.encode(), "d.yaml", "alice")


def refusal(text: str) -> str:
    """Return the sentence with which a device file is refused."""
    with pytest.raises(DocumentError) as caught:
        read(text)
    return str(caught.value)


@given(
    TEXTS.filter(is_user),
    st.lists(DEVICES, max_size=8, unique_by=(lambda d: d.serial_number, lambda d: d.name)),
)
def test_round_trip(user: str, devices: list[VirtualDevice]) -> None:
    """Devices of any name and form are read back from the file that is written of them."""
    data = format_devices(user, devices)
    assert tuple(devices) == parse_devices(data, "d.yaml", user)


@pytest.mark.parametrize(
    "user", ["yes", "null", "1", "1e3", "2026-01-02", "~", "- a", "a: b", "#", "*x", "<<", "=",
             "'", '"', "%", "@a", "ü", "a\u2028b", "\u0085", "\ufeff", "😀", " a ", "DOMAIN\\user"]
)  # fmt: skip
def test_names_that_yaml_could_misread(user: str) -> None:
    """A user's name that looks like something else in YAML is read back as the same text."""
    device = make_device(user=user)
    assert (device,) == parse_devices(format_devices(user, [device]), "d.yaml", user)


def test_format() -> None:
    """The file is plain YAML in the order in which a person reads it."""
    assert GOOD.encode() == format_devices("alice", [make_device()])


def test_read() -> None:
    """A file written by hand is read."""
    assert (make_device(),) == read(GOOD)


def test_other_time_zone() -> None:
    """A time in another zone is the same moment in UTC."""
    text = GOOD.replace("2026-01-02T03:04:05Z", "2026-01-02T05:04:05+02:00")
    assert (make_device(),) == read(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", "line 1: 'version' must be 1 for this program"),
        ("version: 1\n", "", "line 1: 'version' is missing"),
        ("version: 1", "version: yes", "line 1: 'version' must be a whole number"),
        ("user: alice\n", "", "line 1: 'user' is missing"),
        ("user: alice", "user: bob", "line 2: 'user' is not the user whose file this is"),
        ("user: alice", "user: Alice", "line 2: 'user' is not the user whose file this is"),
        ("user: alice", "user: 'alice '", "line 2: 'user' is not the user whose file this is"),
        ("user: alice", "user: 1", "line 2: 'user' must be text"),
        ("user: alice", "users: alice", "line 2: 'users' is not a known key"),
        ("devices:", "device:", "line 3: 'device' is not a known key"),
        ("type: virtual", "type: sms", "line 5: 'devices[0].type' is sms. SMS is not a device"),
        ("type: virtual", "type: SMS", "line 5: 'devices[0].type' is sms. SMS is not a device"),
        ("type: virtual", "type: fax", "line 5: 'devices[0].type' is 'fax', not one of virtual"),
        ("  type: virtual\n", "", "line 4: 'devices[0].type' is missing"),
        ("  name: phone\n", "", "line 4: 'devices[0].name' is missing"),
        ("name: phone", "name: ''", "line 6: 'devices[0].name' is empty"),
        ("name: phone", "nmae: phone", "line 6: 'devices[0].nmae' is not a known key"),
        ("serial_number: virtual/alice/phone", "serial_number: ''",
         "line 4: 'devices[0].serial_number' is empty"),
        ("secret: sealed:v1:AAAA", "secret: ''", "line 11: 'devices[0].secret' is empty"),
        ("secret: sealed:v1:AAAA", "secret: [a]", "line 11: 'devices[0].secret' must be text"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05",
         "line 7: 'devices[0].enabled_at' has no time zone; write it in UTC with a final Z"),
        ("2026-01-02T03:04:05Z", "2026-01-02", "line 7: 'devices[0].enabled_at' must be "),
        ("2026-01-02T03:04:05Z", "now", "line 7: 'devices[0].enabled_at' must be "),
        ("2026-01-02T03:04:05Z", "2026-02-30T03:04:05Z", "line 7: a value cannot be read"),
        ("SHA1", "MD5", "line 8: 'devices[0].algorithm' is not one of SHA1, SHA256, SHA512"),
        ("SHA1", "sha1", "line 8: 'devices[0].algorithm' is not one of SHA1, SHA256, SHA512"),
        ("digits: 6", "digits: 5", "line 9: 'devices[0].digits' is not one of (6, 7, 8)"),
        ("digits: 6", "digits: 9", "line 9: 'devices[0].digits' is not one of (6, 7, 8)"),
        ("digits: 6", "digits: yes", "line 9: 'devices[0].digits' must be a whole number"),
        ("digits: 6", "digits: '6'", "line 9: 'devices[0].digits' must be a whole number"),
        ("period: 30", "period: 0", "line 10: 'devices[0].period' is not one of (30, 60) seconds"),
        ("period: 30", "period: 31", "line 10: 'devices[0].period' is not one of (30, 60) seconds"),
        ("period: 30", "period: -30",
         "line 10: 'devices[0].period' is not one of (30, 60) seconds"),
        (SECOND, "  alice\n", "line 3: 'devices' must be a list"),
        (SECOND, "- alice\n", "line 3: 'devices' must be a list of mappings"),
        (SECOND, "- virtual:\n    name: phone\n", "line 4: 'devices[0].type' is missing"),
    ],
)  # fmt: skip
def test_refusals(old: str, new: str, message: str) -> None:
    """A file with one mistake in it is refused, and the mistake's line and key are told."""
    assert old in GOOD
    assert refusal(GOOD.replace(old, new)).startswith(f"d.yaml, {message}")


@pytest.mark.parametrize("zone", ["+05:00", "+14:00"])
def test_time_before_all_time(zone: str) -> None:
    """A moment that no calendar of ours has is refused like every other wrong time."""
    text = GOOD.replace("2026-01-02T03:04:05Z", f"0001-01-01T00:00:00{zone}")
    assert refusal(text).startswith("d.yaml, line 7: ")


@pytest.mark.parametrize(
    ("key", "second"),
    [
        ("serial_number", SECOND.replace("name: phone", "name: other")),
        ("name", SECOND.replace("virtual/alice/phone", "virtual/alice/other")),
    ],
)
def test_twice(key: str, second: str) -> None:
    """Two devices of one serial number or one name are refused."""
    message = refusal(GOOD + second)
    assert f"'devices[1].{key}' is another device's as well" in message


@pytest.mark.parametrize("count", [0, 8])
def test_count(count: int) -> None:
    """Up to eight devices are read."""
    devices = tuple(make_device(f"phone-{number}") for number in range(count))
    assert devices == parse_devices(format_devices("alice", devices), "d.yaml", "alice")


def test_ninth_device() -> None:
    """A file of nine devices is refused."""
    devices = [make_device(f"phone-{number}") for number in range(9)]
    message = refusal(format_devices("alice", devices).decode())
    assert "d.yaml, line 3: 'devices' lists 9 devices, more than 8" == message


def test_copied_file() -> None:
    """A file copied to another user's name lends its devices to nobody."""
    with pytest.raises(DocumentError, match="is not the user whose file this is"):
        parse_devices(GOOD.encode(), "d.yaml", "mallory")


@pytest.mark.parametrize(
    "user", ["alice", "a", "DOMAIN\\user", "user@corp", "../x", "a/b", "ü", "x" * 256, "ü" * 128]
)
def test_user_names(user: str) -> None:
    """Whatever an account may be called, up to 256 bytes, is a user's name."""
    assert is_user(user)


@pytest.mark.parametrize(
    "user", ["", "x" * 257, "ü" * 129, "a\nb", "a\0", "\t", "\x7f", "a\x1b[31m"]
)
def test_no_user_names(user: str) -> None:
    """The empty, the too long and control characters are no user's name."""
    assert not is_user(user)


def test_user_name_of_other_bytes() -> None:
    """A name that is not UTF-8 is refused, since neither YAML nor SQLite can hold it."""
    assert not is_user("\udcff")


@pytest.mark.parametrize("name", ["phone", "A", "9", "a.b-c_d", "x" * 64])
def test_device_names(name: str) -> None:
    """Letters, digits, dots, dashes and underscores make a device's name."""
    require_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "-a", "_a", "a b", "a/b", "a\n", "ü", "١", "x" * 65, "a:b", "..", "a\\b"]
)
def test_no_device_names(name: str) -> None:
    """Anything else could not stand in a serial number, and is refused with what can."""
    with pytest.raises(RefusedError) as caught:
        require_name(name)
    assert "Use 1 to 64 letters, digits, dots, dashes and underscores." == caught.value.hint


def test_serial_number() -> None:
    """A device's serial number says its type, its user and its name."""
    assert "virtual/alice/phone" == serial_number_of("virtual", "alice", "phone")


def test_counter() -> None:
    """An application may be event-based: the file says so in the place of a period."""
    device = make_device(parameters=Parameters(period=0))
    text = GOOD.replace("period: 30", "counter: true")
    assert text.encode() == format_devices("alice", [device])
    assert (device,) == read(text)
    both = GOOD.replace("period: 30", "period: 30\n  counter: true")
    assert "line 10: 'devices[0].period' does not go with 'counter: true'" in refusal(both)


def test_shared_values() -> None:
    """What two devices share is written twice: an alias would be refused by the reader."""
    phone = make_device()
    codes = RecoveryCodes("recovery/alice/1", "recovery", phone.enabled_at, ("00", "11"))
    tablet = phone._replace(serial_number="virtual/alice/tablet", name="tablet")
    devices = (phone, tablet, codes)
    assert devices == parse_devices(format_devices("alice", devices), "d.yaml", "alice")
