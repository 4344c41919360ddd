# SPDX-License-Identifier: Apache-2.0
"""Vendors' CSV files: every dialect is read as it is meant, or refused by its line."""

import base64
import string
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa.errors import RefusedError
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.secret import Secret
from pam_mfa.token_csv import parse_csv
from pam_mfa.tokens import BadEntry, Delivery, Token

SEEDS = [bytes(range(start, start + 20)) for start in (200, 220, 100)]
HEX = [seed.hex() for seed in SEEDS]
BASE32 = [base64.b32encode(seed).decode("ascii") for seed in SEEDS]
AMBIGUOUS = "22334455667722334455667722334455AABBCCDDEEFF2233"  # 24 bytes in hex, 30 in base32
SEPARATORS = pytest.mark.parametrize("separator", [",", ";", "\t", "|"], ids=repr)


def parse(*lines: str, end: str = "\n", encoding: str | None = None) -> Delivery:
    """Read a file of these lines."""
    return parse_csv("".join(line + end for line in lines).encode(), "t.csv", encoding=encoding)


def only_token(*lines: str) -> Token:
    """Return the one token of a file that has nothing else in it."""
    delivery = parse(*lines)
    assert (len(delivery.tokens), delivery.bad) == (1, ())
    return delivery.tokens[0]


def only_fault(*lines: str) -> BadEntry:
    """Return the one bad entry of a file that has nothing else in it."""
    delivery = parse(*lines)
    assert (delivery.tokens, len(delivery.bad)) == ((), 1)
    return delivery.bad[0]


def short(delivery: Delivery) -> list[tuple[str, bytes, int]]:
    """Return each token's serial number, seed and line."""
    return [(one.serial_number, one.seed.reveal(), one.line) for one in delivery.tokens]


@SEPARATORS
@pytest.mark.parametrize("seeds", [HEX, BASE32], ids=["hex", "base32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "dos"])
def test_separators(separator: str, seeds: Sequence[str], end: str) -> None:
    """Each separator is found out, in hex and in base32, with either end of a line."""
    rows = [("serial", "seed"), ("1", seeds[0]), ("2", seeds[1])]
    delivery = parse(*(separator.join(row) for row in rows), end=end)
    assert (short(delivery), delivery.bad) == ([("1", SEEDS[0], 2), ("2", SEEDS[1], 3)], ())


@SEPARATORS
def test_whole_row(separator: str) -> None:
    """All columns of a row are read, in any order."""
    names = ["Vendor", "digits", "seed", "type", "counter", "hash", "serial"]
    values = ["Acme", "8", HEX[0], "HOTP", "17", "HMAC-SHA-256", "A-1"]
    token = only_token(separator.join(names), separator.join(values))
    expected = Parameters(Algorithm.SHA256, 8, 0)
    assert token == Token("A-1", "Acme", expected, 17, Secret(SEEDS[0]), 2)


def test_byte_order_mark() -> None:
    """A byte-order mark in front of the header is no part of the first column's name."""
    data = f"\ufeffserial,seed\n1,{HEX[0]}\n".encode()
    assert short(parse_csv(data, "t.csv")) == [("1", SEEDS[0], 2)]


@pytest.mark.parametrize(
    "name",
    ["serial_number", "Serial Number", "SERIAL", "SerialNo", "serial-no.", "SN", "Token Serial",
     "token_id"],
)  # fmt: skip
def test_names_of_serial_number(name: str) -> None:
    """The serial number's column is known by the names that vendors give it."""
    assert only_token(f"{name},seed", f"1,{HEX[0]}").serial_number == "1"


@pytest.mark.parametrize(
    "name", ["seed", "Secret", "secret_key", "KEY", "Secret (base32)", "secret-hex", "secret key"]
)
def test_names_of_seed(name: str) -> None:
    """The seed's column is known by the names that vendors give it."""
    assert only_token(f"serial,{name}", f"1,{HEX[0]}").seed == Secret(SEEDS[0])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("algorithm", "SHA512", Parameters(Algorithm.SHA512)),
        ("Hash Algorithm", "sha-256", Parameters(Algorithm.SHA256)),
        ("HMAC", "HMACSHA256", Parameters(Algorithm.SHA256)),
        ("digits", "8", Parameters(digits=8)),
        ("OTP Length", "7", Parameters(digits=7)),
        ("code_length", "", Parameters()),
        ("period", "60", Parameters(period=60)),
        ("Time Interval", "60s", Parameters(period=60)),
        ("Time Step (seconds)", "30", Parameters()),
        ("timestep", "", Parameters()),
        ("type", "totp", Parameters()),
        ("Token Type", "HOTP", Parameters(period=0)),
        ("mode", "event", Parameters(period=0)),
        ("otp_type", "", Parameters()),
        ("favourite colour", "blue", Parameters()),
    ],
)
def test_parameters(name: str, value: str, expected: Parameters) -> None:
    """Columns of a token's parameters are known by vendors' names; others are passed over."""
    assert only_token(f"serial,{name},seed", f"1,{value},{HEX[0]}").parameters == expected


@pytest.mark.parametrize("name", ["counter", "Moving Factor", "event_counter"])
def test_counter(name: str) -> None:
    """An event-based token starts at the file's counter."""
    assert only_token(f"serial,seed,type,{name}", f"1,{HEX[0]},HOTP,4711").counter == 4711


@SEPARATORS
def test_headerless(separator: str) -> None:
    """A file of two columns without a header is serial number and seed, from its first line on."""
    delivery = parse(*(separator.join(row) for row in (("1", HEX[0]), ("2", HEX[1]))))
    assert short(delivery) == [("1", SEEDS[0], 1), ("2", SEEDS[1], 2)]


def test_headerless_period() -> None:
    """In a file without a header, a third column is the period."""
    delivery = parse(f"1,{HEX[0]},60", f"2,{HEX[1]},30")
    assert [token.parameters.period for token in delivery.tokens] == [60, 30]


@pytest.mark.parametrize(
    "lines",
    [
        (f"1,{HEX[0]},60,blue",), ("serial,colour", f"1,{HEX[0]}"), ("seed,colour", f"{HEX[0]},1"),
        ("serial,colour,x,y", f"1,{HEX[0]},2,3"),
    ],
)  # fmt: skip
def test_columns_not_named(lines: Sequence[str]) -> None:
    """Where the columns cannot be told apart the file is refused, and the hint names them."""
    with pytest.raises(RefusedError, match=r"t\.csv, line 1: the columns .* not named") as caught:
        parse(*lines)
    assert "serial_number, seed, algorithm" in caught.value.hint


@pytest.mark.parametrize("header", ["serial,seed,SN", "serial,seed,secret", "serial,seed,key"])
def test_column_twice(header: str) -> None:
    """Two columns that could both be the serial number or the seed are refused."""
    with pytest.raises(RefusedError, match=r"t\.csv, line 1: the column \w+ is there twice"):
        parse(header, f"1,{HEX[0]},2")


def test_ambiguous_encoding() -> None:
    """Seeds that could be hex and base32 are refused, and the hint names the option."""
    with pytest.raises(RefusedError, match="could be hex and base32") as caught:
        parse("serial,seed", f"1,{AMBIGUOUS}")
    assert "--seed-encoding" in caught.value.hint


@pytest.mark.parametrize(
    ("encoding", "seed"),
    [("hex", bytes.fromhex(AMBIGUOUS)), ("base32", base64.b32decode(AMBIGUOUS))],
)
def test_encoding_is_said(encoding: str, seed: bytes) -> None:
    """Seeds that could be both are read as the person says."""
    assert short(parse("serial,seed", f"1,{AMBIGUOUS}", encoding=encoding)) == [("1", seed, 2)]


@pytest.mark.parametrize(
    ("clear", "seed"),
    [(HEX[0], bytes.fromhex(AMBIGUOUS)), (BASE32[0], base64.b32decode(AMBIGUOUS))],
)
def test_encoding_is_the_whole_file_s(clear: str, seed: bytes) -> None:
    """One seed that can be read one way only settles the others, in whichever row it is."""
    delivery = parse("serial,seed", f"1,{AMBIGUOUS}", f"2,{clear}")
    assert short(delivery) == [("1", seed, 2), ("2", SEEDS[0], 3)]


@pytest.mark.parametrize(
    "form",
    [
        HEX[0], HEX[0].upper(), " ".join(HEX[0][at : at + 4] for at in range(0, 40, 4)),
        BASE32[0], BASE32[0].lower(), " ".join(BASE32[0][at : at + 4] for at in range(0, 32, 4)),
    ],
)  # fmt: skip
def test_forms_of_seeds(form: str) -> None:
    """A seed is the same in either case and with spaces in it."""
    assert only_token("serial,seed", f"1,{form}").seed == Secret(SEEDS[0])


@pytest.mark.parametrize("length", range(14, 33))
def test_base32_padding(length: int) -> None:
    """A base32 seed may be padded or not, whatever its length."""
    seed = bytes(range(200, 200 + length))
    text = base64.b32encode(seed).decode("ascii")
    padded, plain = (
        only_token("sn,seed", f"1,{text}"),
        only_token("sn,seed", f"1,{text.rstrip('=')}"),
    )
    assert (padded.seed, plain.seed) == (Secret(seed), Secret(seed))


@pytest.mark.parametrize(
    ("seeds", "line"),
    [
        ((HEX[0], HEX[1][:-1], HEX[2]), 3),
        ((HEX[0], HEX[1], HEX[2][:-2] + "zz"), 4),
        ((HEX[0][:26], HEX[1], HEX[2]), 2),
        ((BASE32[0], BASE32[1], BASE32[2][:-2]), 4),
        ((BASE32[0], BASE32[1][:16], BASE32[2]), 3),
        ((HEX[0], "", HEX[2]), 3),
        ((HEX[0], BASE32[1], HEX[2]), 3),
    ],
)
def test_truncated_seed(seeds: Sequence[str], line: int) -> None:
    """A seed that is cut or in another encoding is a bad entry by its line; others are taken."""
    rows = [f"{number},{seed}" for number, seed in enumerate(seeds)]
    delivery = parse("serial,seed", *rows)
    assert [entry.line for entry in delivery.bad] == [line]
    assert "its seed " in delivery.bad[0].reason
    assert len(delivery.tokens) == 2


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("algorithm", "MD5", "its algorithm 'MD5' is not one of SHA1, SHA256, SHA512"),
        ("algorithm", "SHA384", "its algorithm 'SHA384'"),
        ("type", "OCRA", "its type 'OCRA' is neither TOTP nor HOTP"),
        ("digits", "9", "9 digits"),
        ("digits", "5", "5 digits"),
        ("digits", "six", "not whole numbers"),
        ("digits", "٦", "not whole numbers"),
        ("digits", "-6", "not whole numbers"),
        ("period", "45", "its period is 45 s"),
        ("period", "1m", "not whole numbers"),
        ("counter", "-1", "its counter is not a whole number"),
        ("counter", "0x10", "its counter is not a whole number"),
        ("counter", "9223372036854775808", "its counter 9223372036854775808 is out of range"),
    ],
)
def test_bad_values(name: str, value: str, words: str) -> None:
    """A value that is not known is a bad entry, and its reason names it."""
    entry = only_fault(f"serial,{name},seed", f"A1,{value},{HEX[0]}")
    assert (entry.line, entry.serial_number) == (2, "A1")
    assert words in entry.reason


@pytest.mark.parametrize("name", ["counter", "digits", "period"])
def test_huge_number(name: str) -> None:
    """A number of thousands of digits is a bad entry and nothing worse."""
    assert only_fault(f"serial,{name},seed", f"1,{'9' * 5000},{HEX[0]}").line == 2


@pytest.mark.parametrize("serial_number", ["", "a b", "x/y", "../x", "-1", "é", "1" * 65, "a\0"])
def test_bad_serial_number(serial_number: str) -> None:
    """A serial number that could not be typed on a command line is a bad entry."""
    assert "serial number" in only_fault("serial,seed", f"{serial_number},{HEX[0]}").reason


def test_period_of_zero() -> None:
    """A period of zero does not make an event-based token of a time-based one."""
    only_fault("serial,period,type,seed", f"1,0,TOTP,{HEX[0]}")


def test_duplicate_serial_number() -> None:
    """The second row of a serial number is a bad entry that names the line of the first."""
    delivery = parse("serial,seed", f"1,{HEX[0]}", f"2,{HEX[1]}", f"1,{HEX[2]}")
    assert short(delivery) == [("1", SEEDS[0], 2), ("2", SEEDS[1], 3)]
    (entry,) = delivery.bad
    assert (entry.line, entry.reason) == (4, "its serial number stands in line 2 already")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (("1,{0}", "2;{1}", "3,{2}"), 3),
        (("1,{0}", "2,{1},60", "3,{2}"), 3),
        (("1,{0}", "2,{1}", "3"), 4),
        (("1,{0},", "2,{1}", "3,{2}"), 2),
    ],
    ids=["separators", "column more", "column less", "separator at the end"],
)
def test_uneven_rows(rows: Sequence[str], line: int) -> None:
    """A row of another width or separator than the header refuses the file and is named."""
    with pytest.raises(RefusedError, match=rf"t\.csv, line {line}: it has \d columns, the first 2"):
        parse("serial,seed", *(row.format(*HEX) for row in rows))


def test_separated_in_two_ways() -> None:
    """A file that two separators fit is refused, and the hint names them."""
    with pytest.raises(RefusedError, match="separated in more than one way") as caught:
        parse(f"1;{HEX[0]},30", f"2;{HEX[1]},30")
    assert "comma, semicolon, tab, bar" in caught.value.hint


@pytest.mark.parametrize("text", ["", "\n\n", "hello\n", f"{HEX[0]}\n{HEX[1]}\n", "   \n"])
def test_no_columns(text: str) -> None:
    """A file without columns is refused."""
    with pytest.raises(RefusedError, match=r"t\.csv has no columns"):
        parse_csv(text.encode(), "t.csv")


@pytest.mark.parametrize("text", ["serial,seed\n", "# serial, seed\n"], ids=["header", "comment"])
def test_no_tokens(text: str) -> None:
    """A file with a header or a comment only is refused, or read as no token at all."""
    try:
        tokens: Sequence[Token] = parse_csv(text.encode(), "t.csv").tokens
    except RefusedError:
        tokens = ()
    assert tokens == ()


def test_comments_and_empty_lines() -> None:
    """Comments and lines without a value are passed over, and lines are counted with them."""
    delivery = parse("# Acme, 2024; tokens", "", "serial,seed", f"1,{HEX[0]}", " ,  ", "#2,cut",
                     f"3,{HEX[1]}", "")  # fmt: skip
    assert (short(delivery), delivery.bad) == ([("1", SEEDS[0], 4), ("3", SEEDS[1], 7)], ())


def test_quoted_fields() -> None:
    """A quoted field may hold the separator, a quote and a line's end; lines are counted right."""
    delivery = parse('"serial","vendor","seed"', f'"1","Acme, ""Inc""\nBerne","{HEX[0]}"',
                     f'2,"A,B",{HEX[1]}')  # fmt: skip
    assert [token.manufacturer for token in delivery.tokens] == ['Acme, "Inc"\nBerne', "A,B"]
    assert [token.line for token in delivery.tokens] == [3, 4]


@pytest.mark.parametrize("row", [f'1,"{HEX[0]}', f'1,"{HEX[0]}"x', f'"1"2,{HEX[0]}'])
def test_bad_quotes(row: str) -> None:
    """Quotes that do not close, or close too early, refuse the file."""
    with pytest.raises(RefusedError, match=r"t\.csv is not CSV"):
        parse("serial,seed", row)


def test_oversized_field() -> None:
    """A field without end refuses the file."""
    with pytest.raises(RefusedError, match=r"t\.csv is not CSV"):
        parse("serial,seed", f"1,{'a' * 200_000}")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
@pytest.mark.parametrize("before", [0, 1, 2, 50])
def test_not_utf8(mark: bytes, before: int) -> None:
    """What is not UTF-8 is refused by the line that it stands in."""
    data = mark + b"a,b\n" * before + b"\xe9,x\n"
    with pytest.raises(RefusedError, match=rf"t\.csv, line {before + 1}: it is not UTF-8"):
        parse_csv(data, "t.csv")


def test_utf16() -> None:
    """A file in UTF-16, as spreadsheets write it, is refused."""
    with pytest.raises(RefusedError, match="line 1: it is not UTF-8"):
        parse_csv(f"serial,seed\n1,{HEX[0]}\n".encode("utf-16"), "t.csv")


@pytest.mark.parametrize(
    ("lines", "dialect"),
    [
        (("SN;Colour;Secret", f"1;red;{HEX[0]}"),
         "separator ';', columns serial_number, seed, seeds in hex, 1 tokens"),
        ((f"1\t{BASE32[0]}\t60", f"2\t{BASE32[1]}\t60"),
         "separator '\\t', columns serial_number, seed, period, seeds in base32, 2 tokens"),
    ],
    ids=["header", "headerless"],
)  # fmt: skip
def test_dialect(lines: Sequence[str], dialect: str) -> None:
    """How the file was read is told: separator, columns, encoding, and how many tokens."""
    assert parse(*lines).dialect == dialect


@given(
    st.lists(
        st.tuples(
            st.text(string.ascii_letters + string.digits, min_size=1, max_size=64),
            st.binary(min_size=14, max_size=128),
        ),
        min_size=1, max_size=20, unique_by=lambda row: row[0],
    ),
    st.sampled_from(",;\t|"),
    st.sampled_from(["hex", "base32"]),
)  # fmt: skip
def test_any_tokens(rows: list[tuple[str, bytes]], separator: str, encoding: str) -> None:
    """Whatever serial numbers and seeds a file has, they are read back."""
    encode = bytes.hex if encoding == "hex" else lambda seed: base64.b32encode(seed).decode()
    lines = [f"{serial}{separator}{encode(seed)}" for serial, seed in rows]
    delivery = parse(f"serial{separator}seed", *lines, encoding=encoding)
    assert [(one.serial_number, one.seed.reveal()) for one in delivery.tokens] == rows
    assert delivery.bad == ()


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    """Any text is read or refused in a sentence."""
    try:
        parse_csv(text.encode("utf-8", "surrogatepass"), "t.csv")
    except RefusedError as error:
        message = str(error)
    else:
        message = "read"
    assert message


def test_seeds_do_not_print() -> None:
    """A delivery can be printed without its seeds."""
    shown = repr(parse("serial,seed", f"1,{HEX[0]}", f"2,{HEX[1][:-1]}"))
    assert (HEX[0] in shown, HEX[1][:-1] in shown) == (False, False)
