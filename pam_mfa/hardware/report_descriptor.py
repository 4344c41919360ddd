# SPDX-License-Identifier: Apache-2.0
"""HID report descriptors: is this device a FIDO key, and how long are its packets?

Pure. Sources: Device Class Definition for HID 1.11, sections 5.3 and 6.2.2; CTAP 2.1, section
11.2.8.1 (the FIDO usage page, and one input and one output report without a report ID).

The bytes come from the device, so they are read strictly: what is not whole and well formed is
not a key.
"""

from collections.abc import Iterator
from typing import NamedTuple

FIDO_USAGE_PAGE = 0xF1D0
_FIDO_USAGE = 0xF1D00001  # usage page and usage CTAPHID, as one extended usage
SIZE_MAX = 4096  # HID_MAX_DESCRIPTOR_SIZE of linux/hid.h
# Bytes; CTAP 2.1, section 11.2.4. An INIT and its answer must be one packet each.
PACKET_MIN, PACKET_MAX = 24, 64
_NESTING_MAX = 16
_BITS_MAX = 8 * SIZE_MAX
_LONG_ITEM = 0xFE
_TYPE = 0x0C  # the bits of a prefix that say main, global, local or reserved

# Prefixes without their size bits: section 6.2.2.4 (main), 6.2.2.7 (global), 6.2.2.8 (local).
_INPUT, _OUTPUT, _COLLECTION, _FEATURE, _END_COLLECTION = 0x80, 0x90, 0xA0, 0xB0, 0xC0
_USAGE_PAGE, _REPORT_SIZE, _REPORT_ID, _REPORT_COUNT, _PUSH, _POP = (
    0x04, 0x74, 0x84, 0x94, 0xA4, 0xB4,
)  # fmt: skip
_USAGE = 0x08
_GLOBAL_TYPE, _LOCAL_TYPE = 0x04, 0x08
_MAIN = frozenset({_INPUT, _OUTPUT, _COLLECTION, _FEATURE, _END_COLLECTION})
_APPLICATION = 1


class ReportDescriptorError(ValueError):
    """The bytes are not a whole and well-formed report descriptor."""


class FidoReports(NamedTuple):
    """The lengths of a key's packets, in bytes."""

    input_size: int
    output_size: int


class _Item(NamedTuple):
    kind: int  # the prefix without its size bits
    size: int  # bytes of data
    value: int


class _Globals(NamedTuple):
    usage_page: int = 0
    report_size: int = 0
    report_count: int = 0


class _Sums:
    """Bits of input and output, inside the FIDO collection and outside of it."""

    def __init__(self) -> None:
        self.fido_collections = 0
        self.input_bits = 0
        self.output_bits = 0
        self.foreign = False
        self.numbered = False


def find_fido_reports(descriptor: bytes) -> FidoReports | None:
    """Return the packet lengths of a FIDO key; None for a well-formed device of another kind.

    A device whose node carries anything beside FIDO packets is of another kind.

    Raises:
        ReportDescriptorError: the bytes are malformed.
    """
    sums = _Reader().read(descriptor)
    if sums.fido_collections != 1 or sums.foreign or sums.numbered:
        return None
    sizes = (sums.input_bits // 8, sums.output_bits // 8)
    whole = sums.input_bits % 8 == 0 and sums.output_bits % 8 == 0
    if not whole or not all(PACKET_MIN <= size <= PACKET_MAX for size in sizes):
        return None
    return FidoReports(*sizes)


def parse_items(descriptor: bytes) -> Iterator[tuple[int, int, int]]:
    """Go through the short items: kind (prefix without size bits), data size, unsigned value.

    Raises:
        ReportDescriptorError: too long, a long item, a reserved type, or an item cut short.
    """
    if len(descriptor) > SIZE_MAX:
        raise ReportDescriptorError(f"longer than {SIZE_MAX} bytes")
    position = 0
    while position < len(descriptor):
        prefix = descriptor[position]
        kind = prefix & 0xFC
        # Linux knows no long items either, and type 3 is reserved.
        if prefix == _LONG_ITEM or kind & _TYPE == _TYPE:
            raise ReportDescriptorError(f"an item of an unknown kind at byte {position}")
        size = (0, 1, 2, 4)[prefix & 3]
        data = descriptor[position + 1 : position + 1 + size]
        if len(data) != size:
            raise ReportDescriptorError(f"an item is cut short at byte {position}")
        yield kind, size, int.from_bytes(data, "little")
        position += 1 + size


class _Reader:
    """The parser's state of section 5.4: globals with their stack, locals, open collections."""

    def __init__(self) -> None:
        self._globals = _Globals()
        self._stack: list[_Globals] = []
        self._usage: int | None = None
        self._collections: list[bool] = []  # whether each open collection is FIDO's, or inside it
        self._sums = _Sums()

    def read(self, descriptor: bytes) -> _Sums:
        for each in parse_items(descriptor):
            item = _Item(*each)
            if item.kind in _MAIN:
                self._read_main(item)
                self._usage = None  # locals end with each main item
            elif item.kind & _TYPE == _GLOBAL_TYPE:
                self._read_global(item)
            elif item.kind & _TYPE != _LOCAL_TYPE:
                raise ReportDescriptorError("a main item of an unknown kind")
            elif item.kind == _USAGE:
                self._read_usage(item)
        if self._collections:
            raise ReportDescriptorError("a collection is not closed")
        return self._sums

    def _read_usage(self, item: _Item) -> None:
        if self._usage is None:  # the first of several names a collection
            page = 0 if item.size == 4 else self._globals.usage_page << 16  # noqa: PLR2004 - bytes
            self._usage = page | item.value

    def _read_global(self, item: _Item) -> None:
        if item.kind == _USAGE_PAGE:
            self._globals = self._globals._replace(usage_page=item.value & 0xFFFF)
        elif item.kind == _REPORT_SIZE:
            self._globals = self._globals._replace(report_size=item.value)
        elif item.kind == _REPORT_COUNT:
            self._globals = self._globals._replace(report_count=item.value)
        elif item.kind == _REPORT_ID:
            self._sums.numbered = True
        elif item.kind == _PUSH:
            if len(self._stack) == _NESTING_MAX:
                raise ReportDescriptorError("pushed too deep")
            self._stack.append(self._globals)
        elif item.kind == _POP:
            if not self._stack:
                raise ReportDescriptorError("a pop without a push")
            self._globals = self._stack.pop()
        elif item.kind > _POP:
            raise ReportDescriptorError("a global item of an unknown kind")

    def _read_main(self, item: _Item) -> None:
        if item.kind == _COLLECTION:
            self._open_collection(item.value)
        elif item.kind == _END_COLLECTION:
            if not self._collections:
                raise ReportDescriptorError("the end of no collection")
            self._collections.pop()
        else:
            self._add_report(item.kind)

    def _open_collection(self, kind: int) -> None:
        if len(self._collections) == _NESTING_MAX:
            raise ReportDescriptorError("collections nested too deep")
        inside = bool(self._collections) and self._collections[-1]
        top = not self._collections and kind == _APPLICATION and self._usage == _FIDO_USAGE
        self._sums.fido_collections += top
        self._collections.append(inside or top)

    def _add_report(self, kind: int) -> None:
        bits = self._globals.report_size * self._globals.report_count
        if bits > _BITS_MAX:
            raise ReportDescriptorError("a report longer than any device has")
        if not self._collections or not self._collections[-1]:
            self._sums.foreign = True
        elif kind == _INPUT:
            self._sums.input_bits += bits
        elif kind == _OUTPUT:
            self._sums.output_bits += bits
