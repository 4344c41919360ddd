# SPDX-License-Identifier: Apache-2.0
"""Vendors' CSV files of tokens.

There is no standard: separator, columns and the seed's encoding are guessed from the whole file
and told in ``Delivery.dialect``; what can be read in two ways is refused, never guessed silently.
"""

import base64
import binascii
import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from pam_mfa.errors import RefusedError
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.secret import Secret
from pam_mfa.tokens import BadEntry, Delivery, Token, find_fault

_SEPARATORS: Final = ",;\t|"
# What vendors call their columns; compared in lower case without spaces, dashes, underscores.
_COLUMNS: Final = {
    "serial_number": ("serialnumber", "serial", "serialno", "sn", "tokenserial", "tokenid"),
    "seed": ("seed", "secret", "secretkey", "key", "secretbase32", "secrethex"),
    "algorithm": ("algorithm", "hash", "hashalgorithm", "hmac"),
    "digits": ("digits", "otplength", "length", "codelength"),
    "period": ("period", "timestep", "timeinterval", "interval", "step", "timestepseconds"),
    "type": ("type", "tokentype", "otptype", "mode"),
    "counter": ("counter", "movingfactor", "eventcounter"),
    "manufacturer": ("manufacturer", "vendor", "make"),
}
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+", re.ASCII)
_BASE32 = re.compile(r"[A-Za-z2-7]+=*", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
_TYPES: Final = {"": False, "totp": False, "time": False, "hotp": True, "event": True}


class _Row(NamedTuple):
    line: int
    values: dict[str, str]


def parse_csv(data: bytes, source: str, *, encoding: str | None = None) -> Delivery:
    """Read a vendor's CSV file.

    Args:
        data: the file's bytes, UTF-8 with or without a byte-order mark.
        source: its name, for messages.
        encoding: of the seeds, ``hex`` or ``base32``; None to find out.

    Raises:
        RefusedError: the file cannot be understood as a whole.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mark = 3 if data.startswith(b"\xef\xbb\xbf") else 0  # which error.start does not count
        line = data.count(b"\n", 0, error.start + mark) + 1
        raise RefusedError(f"{source}, line {line}: it is not UTF-8") from error
    separator = _find_separator(text, source)
    columns, rows = _read_rows(text, separator, source)
    chosen = encoding or _find_encoding(rows, source)
    dialect = (
        f"separator {separator!r}, columns {', '.join(columns)}, seeds in {chosen}, "
        f"{len(rows)} tokens"
    )
    tokens: list[Token] = []
    bad: list[BadEntry] = []
    seen: dict[str, int] = {}
    for row in rows:
        entry = _parse_row(row, chosen)
        serial_number = row.values.get("serial_number", "")
        if isinstance(entry, Token) and serial_number in seen:
            reason = f"its serial number stands in line {seen[serial_number]} already"
            entry = BadEntry(row.line, serial_number, reason)
        seen.setdefault(serial_number, row.line)
        tokens.append(entry) if isinstance(entry, Token) else bad.append(entry)
    return Delivery(dialect, tuple(tokens), tuple(bad))


def _lines(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    for fields in reader:
        stripped = [field.strip() for field in fields]
        if any(stripped) and not stripped[0].startswith("#"):
            yield reader.line_num, stripped


def _find_separator(text: str, source: str) -> str:
    """Return the one separator by which every line has the same number of columns."""
    fitting = []
    for separator in _SEPARATORS:
        try:
            widths = {len(fields) for _, fields in _lines(text, separator)}
        except csv.Error:
            continue
        if len(widths) == 1 and min(widths) > 1:
            fitting.append(separator)
    if len(fitting) == 1:
        return fitting[0]
    widest = max(_SEPARATORS, key=text.count)
    if not fitting and text.count(widest):
        raise RefusedError(_uneven_line(text, widest, source))
    what = "is separated in more than one way" if fitting else "has no columns"
    raise RefusedError(
        f"{source} {what}", hint="Separate columns by one of: comma, semicolon, tab, bar."
    )


def _uneven_line(text: str, separator: str, source: str) -> str:
    width = 0
    try:
        for line, fields in _lines(text, separator):
            width = width or len(fields)
            if len(fields) != width:
                return f"{source}, line {line}: it has {len(fields)} columns, the first {width}"
    except csv.Error as error:
        return f"{source} is not CSV: {error}"
    return f"{source} is separated in more than one way"


def _read_rows(text: str, separator: str, source: str) -> tuple[list[str], list[_Row]]:
    lines = list(_lines(text, separator))
    columns = [_column(name) for name in lines[0][1]]
    if "serial_number" in columns and "seed" in columns:
        twice = next((name for name in columns if name and columns.count(name) > 1), "")
        if twice:
            raise RefusedError(f"{source}, line {lines[0][0]}: the column {twice} is there twice")
        body = lines[1:]
    else:
        known = ["serial_number", "seed", "period"]
        if not any(columns) and len(lines[0][1]) <= len(known):
            columns, body = known[: len(lines[0][1])], lines
        else:
            raise RefusedError(
                f"{source}, line {lines[0][0]}: the columns of the serial number and the seed "
                "are not named",
                hint="Name the columns in the first line: serial_number, seed, algorithm, "
                "digits, period, type, counter, manufacturer.",
            )
    rows = [_Row(line, dict(zip(columns, fields, strict=True))) for line, fields in body]
    return [name for name in columns if name], rows


def _column(title: str) -> str:
    plain = re.sub(r"[\s_().-]", "", title.lower())
    return next((name for name, titles in _COLUMNS.items() if plain in titles), "")


def _find_encoding(rows: Sequence[_Row], source: str) -> str:
    seeds = [row.values["seed"].replace(" ", "") for row in rows]
    is_hex = all(_HEX.fullmatch(seed) for seed in seeds)
    is_base32 = all(_BASE32.fullmatch(seed) for seed in seeds)
    if is_hex != is_base32:
        return "hex" if is_hex else "base32"
    if is_hex:
        raise RefusedError(
            f"the seeds of {source} could be hex and base32",
            hint="Say which: --seed-encoding hex or --seed-encoding base32",
        )
    # Most decide, and the others are bad entries with their lines.
    hexes = sum(1 for seed in seeds if _HEX.fullmatch(seed))
    return "hex" if hexes * 2 >= len(seeds) else "base32"


def _parse_row(row: _Row, encoding: str) -> Token | BadEntry:
    serial_number = row.values["serial_number"]
    seed = _parse_seed(row.values["seed"].replace(" ", ""), encoding)
    if seed is None:
        return BadEntry(row.line, serial_number, f"its seed is not {encoding}, or is cut")
    parameters = _parse_parameters(row.values)
    if isinstance(parameters, str):
        return BadEntry(row.line, serial_number, parameters)
    counter = row.values.get("counter") or "0"
    if not _NUMBER.fullmatch(counter):
        return BadEntry(row.line, serial_number, "its counter is not a whole number in range")
    manufacturer = row.values.get("manufacturer", "")
    token = Token(serial_number, manufacturer, parameters, int(counter), seed, row.line)
    fault = find_fault(token)
    return BadEntry(row.line, serial_number, fault) if fault else token


def _parse_seed(text: str, encoding: str) -> Secret | None:
    try:
        if encoding == "hex":
            return Secret(binascii.unhexlify(text))
        plain = text.rstrip("=").upper()
        return Secret(base64.b32decode(plain + "=" * (-len(plain) % 8)))
    except (binascii.Error, ValueError):
        return None


def _parse_parameters(values: dict[str, str]) -> Parameters | str:
    name = (values.get("algorithm") or "SHA1").upper().removeprefix("HMAC").replace("-", "")
    if name not in set(Algorithm):
        return f"its algorithm '{values['algorithm']}' is not one of {', '.join(Algorithm)}"
    kind = values.get("type", "").lower()
    if kind not in _TYPES:
        return f"its type '{values['type']}' is neither TOTP nor HOTP"
    digits = values.get("digits") or "6"
    period = (values.get("period") or "30").lower().removesuffix("s")
    if not _NUMBER.fullmatch(digits) or not _NUMBER.fullmatch(period):
        return "its digits or its period are not whole numbers in range"
    if not _TYPES[kind] and not int(period):
        return "its period is 0; an event-based token has the type HOTP"
    return Parameters(Algorithm(name), int(digits), 0 if _TYPES[kind] else int(period))
