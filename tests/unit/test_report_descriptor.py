# SPDX-License-Identifier: Apache-2.0
"""HID report descriptors: which bytes are a FIDO key's, and none other are."""

import pytest
from fido2.hid.base import parse_report_descriptor
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.hardware.report_descriptor import (
    PACKET_MAX,
    PACKET_MIN,
    SIZE_MAX,
    FidoReports,
    ReportDescriptorError,
    find_fido_reports,
    parse_items,
)

# As keys have it: usage page FIDO, usage CTAPHID, one input and one output of 64 bytes.
KEY = bytes.fromhex("06d0f10901a1010920150026ff007508954081020921150026ff00750895409102c0")
# The boot keyboard of HID 1.11, appendix B.1.
KEYBOARD = bytes.fromhex(
    "05010906a101050719e029e71500250175019508810295017508810195057501050819012905910295017503"
    "9101950675081500256505071900296581 00c0"
)


def make_key(*, input_size: int, output_size: int, page: bytes = b"\x06\xd0\xf1") -> bytes:
    """Return a key's descriptor with other packet lengths, or of another usage page."""
    lengths = b"\x75\x08\x95%c\x81\x02\x09\x21\x15\x00\x26\xff\x00\x75\x08\x95%c\x91\x02\xc0"
    return (
        page
        + b"\x09\x01\xa1\x01\x09\x20\x15\x00\x26\xff\x00"
        + lengths
        % (
            input_size,
            output_size,
        )
    )


def test_key() -> None:
    """A key's descriptor gives its packet lengths."""
    assert FidoReports(64, 64) == find_fido_reports(KEY)


def test_keyboard() -> None:
    """A keyboard is well formed and no key."""
    assert None is find_fido_reports(KEYBOARD)


@given(
    st.integers(PACKET_MIN, PACKET_MAX),
    st.integers(PACKET_MIN, PACKET_MAX),
)
def test_lengths_are_those_that_fido2_reads(input_size: int, output_size: int) -> None:
    """Packet lengths are the ones that python-fido2 reads from the same bytes."""
    descriptor = make_key(input_size=input_size, output_size=output_size)
    expected = FidoReports(*parse_report_descriptor(descriptor))
    assert expected == find_fido_reports(descriptor)


@pytest.mark.parametrize(("input_size", "output_size"), [(23, 64), (64, 23), (65, 64), (64, 255)])
def test_lengths_that_no_key_has(input_size: int, output_size: int) -> None:
    """A device with packets too short or too long for CTAPHID is no key."""
    assert None is find_fido_reports(make_key(input_size=input_size, output_size=output_size))


def test_extended_usage() -> None:
    """A usage of four bytes names its page itself."""
    descriptor = KEY.replace(bytes.fromhex("06d0f10901"), bytes.fromhex("05010b0100d0f1"))
    assert FidoReports(64, 64) == find_fido_reports(descriptor)


def test_push_and_pop() -> None:
    """A pop brings back the usage page and the lengths that the push kept."""
    descriptor = KEY.replace(
        b"\x09\x01\xa1\x01", b"\xa4\x05\x01\x75\x01\x95\x01\xb4\x09\x01\xa1\x01"
    )
    assert FidoReports(64, 64) == find_fido_reports(descriptor)


@pytest.mark.parametrize(
    "descriptor",
    [
        pytest.param(make_key(input_size=64, output_size=64, page=b"\x06\xd1\xf1"), id="page"),
        pytest.param(KEY.replace(b"\x09\x01\xa1", b"\x09\x02\xa1"), id="usage"),
        pytest.param(KEY.replace(b"\x09\x01\xa1\x01", b"\x09\x01\xa1\x00"), id="no application"),
        pytest.param(KEY.replace(b"\x81\x02", b"\xb1\x02"), id="no input"),
        pytest.param(KEY.replace(b"\x91\x02", b""), id="no output"),
        pytest.param(KEY.replace(b"\x75\x08", b"\x85\x01\x75\x08", 1), id="numbered reports"),
        pytest.param(
            KEY.replace(b"\x75\x08\x95\x40\x81", b"\x75\x07\x95\x41\x81"), id="half bytes"
        ),
        pytest.param(KEY + KEYBOARD, id="a keyboard beside"),
        pytest.param(KEYBOARD + KEY, id="a keyboard before"),
        pytest.param(KEY + KEY, id="two keys in one"),
        pytest.param(b"\x05\x01\x09\x06\xa1\x01" + KEY + b"\xc0", id="inside a keyboard"),
        pytest.param(b"", id="empty"),
    ],
)
def test_no_key(descriptor: bytes) -> None:
    """A well-formed device that is not exactly a FIDO key is none."""
    assert None is find_fido_reports(descriptor)


@pytest.mark.parametrize(
    "descriptor",
    [
        pytest.param(KEY[:-1], id="open collection"),
        pytest.param(KEY + b"\xc0", id="end of no collection"),
        pytest.param(KEY + b"\x26\xff", id="cut short"),
        pytest.param(KEY + b"\xfe\x01\x00\x00", id="long item"),
        pytest.param(KEY + b"\x0c", id="reserved type"),
        pytest.param(KEY + b"\x00", id="reserved main item"),
        pytest.param(KEY + b"\xc4", id="reserved global item"),
        pytest.param(b"\xb4" + KEY, id="pop without push"),
        pytest.param(b"\xa4" * 17 + KEY, id="pushed too deep"),
        pytest.param(b"\xa1\x01" * 17 + b"\xc0" * 17, id="nested too deep"),
        pytest.param(b"\x77\xff\xff\xff\xff\x97\xff\xff\xff\xff\x81\x02", id="endless report"),
        pytest.param(KEY + b"\x08" * SIZE_MAX, id="too long"),
    ],
)
def test_malformed(descriptor: bytes) -> None:
    """Bytes that are not a whole descriptor are refused."""
    with pytest.raises(ReportDescriptorError):
        find_fido_reports(descriptor)


@given(st.binary(max_size=200))
def test_any_bytes(descriptor: bytes) -> None:
    """Whatever a device sends is a key's lengths in their bounds, no key, or refused."""
    try:
        reports = find_fido_reports(descriptor)
    except ReportDescriptorError:
        return
    assert reports is None or all(PACKET_MIN <= size <= PACKET_MAX for size in reports)


@given(st.sampled_from([1, 2, 4, 6]), st.integers(0, 255))
def test_other_page_or_usage(place: int, value: int) -> None:
    """A key's descriptor with another usage page, usage or kind of collection is no key's."""
    changed = KEY[:place] + bytes((value,)) + KEY[place + 1 :]
    assert (changed == KEY) == (find_fido_reports(changed) is not None)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([kind for kind in range(0, 256, 4) if kind & 0x0C != 0x0C]),
            st.sampled_from([0, 1, 2, 4]),
            st.integers(0, 2**32 - 1),
        )
    )
)
def test_items_come_back(items: list[tuple[int, int, int]]) -> None:
    """Items that are written down are read back."""
    expected = [(kind, size, value % 256**size) for kind, size, value in items]
    text = b"".join(
        bytes((kind | {0: 0, 1: 1, 2: 2, 4: 3}[size],)) + value.to_bytes(size, "little")
        for kind, size, value in expected
    )
    assert expected == list(parse_items(text))
