# SPDX-License-Identifier: Apache-2.0
"""The data types of SSH's binary formats (RFC 4251, section 5), read strictly.

Pure. Whoever reads says where the end must be: bytes behind it are refused, never skipped.
"""


class SshFormatError(ValueError):
    """Bytes are not what an SSH format has there; the text says what is wrong."""


class Reader:
    """Takes one value after the other off the front of untrusted bytes.

    Every method raises SshFormatError where its value is cut or not of its form.
    """

    def __init__(self, data: bytes) -> None:
        """Take all the bytes; the caller has bounded their number."""
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes as they are."""
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise SshFormatError("it is cut")
        self._at += size
        return taken

    def byte(self) -> int:
        """Read a byte."""
        return self.take(1)[0]

    def number(self) -> int:
        """Read a uint32."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """Read a string: a uint32, and so many bytes."""
        return self.take(self.number())

    def text(self) -> str:
        """Read a string of ASCII alone."""
        try:
            return self.string().decode("ascii")
        except UnicodeDecodeError as error:
            raise SshFormatError("a name in it is not ASCII") from error

    def positive(self) -> int:
        """Read an mpint above 0 in its one shortest form, so that no value has two encodings."""
        value = self.string()
        is_shortest = value[:1] != b"\0" or value[1:2] >= b"\x80"
        if not any(value) or value[0] & 0x80 or not is_shortest:
            raise SshFormatError("a number in it is not above 0, or not in its shortest form")
        return int.from_bytes(value, "big")

    def end(self) -> None:
        """Require that nothing is left."""
        if self._at != len(self._data):
            raise SshFormatError("it has bytes behind its end")


def pack_strings(*parts: bytes) -> bytes:
    """Return strings as they are sent."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def pack_positive(value: int) -> bytes:
    """Return an mpint above 0, its length in front."""
    return pack_strings(value.to_bytes(value.bit_length() // 8 + 1, "big"))
