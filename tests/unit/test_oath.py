# SPDX-License-Identifier: Apache-2.0
"""One-time passwords against the RFCs' own values, and seeds as people type them."""

import base64
import hashlib
import json
import urllib.parse
from typing import Any

import pyotp
import pytest
from doubles import SEED, VECTORS, code_of
from hypothesis import given
from hypothesis import strategies as st

from pam_mfa import oath
from pam_mfa.errors import RefusedError
from pam_mfa.oath import Algorithm, Parameters
from pam_mfa.secret import Secret

RFC4226: dict[str, Any] = json.loads((VECTORS / "rfc4226.json").read_text("ascii"))
RFC6238: dict[str, Any] = json.loads((VECTORS / "rfc6238.json").read_text("ascii"))
PARAMETERS = st.builds(
    Parameters, st.sampled_from(Algorithm), st.sampled_from(oath.DIGITS), st.just(30)
)
SEEDS = st.binary(min_size=14, max_size=128).map(Secret)
ANY_SEEDS = st.binary(min_size=1, max_size=128).map(Secret)  # also short ones of old tokens
BASE32 = base64.b32encode(SEED.reveal()).decode("ascii")


@pytest.mark.parametrize("vector", RFC4226["codes"], ids=lambda vector: str(vector["counter"]))
def test_hotp_vectors(vector: dict[str, Any]) -> None:
    """Each counter makes the code of RFC 4226, appendix D."""
    seed = Secret(RFC4226["seed"].encode("ascii"))
    parameters = Parameters(Algorithm(RFC4226["algorithm"]), RFC4226["digits"])
    counter = vector["counter"]
    assert [vector["code"]] == oath.codes(seed, parameters, range(counter, counter + 1))


@pytest.mark.parametrize(
    "vector", RFC6238["codes"], ids=lambda vector: f"{vector['algorithm']}-{vector['time']}"
)
def test_totp_vectors(vector: dict[str, Any]) -> None:
    """Each time makes the time step and the code of RFC 6238, appendix B."""
    seed = Secret(RFC6238["seeds"][vector["algorithm"]].encode("ascii"))
    parameters = Parameters(Algorithm(vector["algorithm"]), RFC6238["digits"], RFC6238["period"])
    step = oath.time_step(vector["time"], RFC6238["period"])
    codes = oath.codes(seed, parameters, range(step, step + 1))
    assert (vector["step"], [vector["code"]]) == (f"{step:016X}", codes)


@given(seed=ANY_SEEDS, parameters=PARAMETERS, step=st.integers(0, 2**40), count=st.integers(0, 4))
def test_codes(seed: Secret, parameters: Parameters, step: int, count: int) -> None:
    """Any seed, hash and length makes the codes that RFC 4226, section 5.3 computes."""
    expected = [code_of(seed, each, parameters) for each in range(step, step + count)]
    assert expected == oath.codes(seed, parameters, range(step, step + count))


@given(seed=SEEDS, parameters=PARAMETERS, step=st.integers(0, 2**40))
def test_codes_of_pyotp(seed: Secret, parameters: Parameters, step: int) -> None:
    """The codes are those of somebody else's program."""
    digest = getattr(hashlib, parameters.algorithm.value.lower())
    key = base64.b32encode(seed.reveal()).decode("ascii")
    hotp = pyotp.HOTP(key, digits=parameters.digits, digest=digest)
    assert [hotp.at(step)] == oath.codes(seed, parameters, range(step, step + 1))


@pytest.mark.parametrize(
    ("now", "period", "step"),
    [(0.0, 30, 0), (29.999, 30, 0), (30.0, 30, 1), (59.5, 60, 0), (60.0, 60, 1), (3e10, 30, 10**9)],
)
def test_time_step(now: float, period: int, step: int) -> None:
    """A time step begins with its first second and lasts the whole period."""
    assert step == oath.time_step(now, period)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("123456", True), ("1234567", True), ("12345678", True), ("000000", True),
        ("", False), ("12345", False), ("123456789", False), ("12345a", False),
        ("123 456", False), (" 123456", False), ("123456\n", False), ("-123456", False),
        ("١٢٣٤٥٦", False), ("１２３４５６", False), ("12345²", False), ("123456\0", False),
    ],
)  # fmt: skip
def test_is_code(text: str, expected: bool) -> None:  # noqa: FBT001 - a table's column
    """Only 6 to 8 ASCII digits have the form of a code."""
    assert expected is oath.is_code(text)


@pytest.mark.parametrize(
    "text",
    [
        BASE32,
        BASE32.lower(),
        f"  {BASE32}\n",
        " ".join(BASE32[at : at + 4] for at in range(0, len(BASE32), 4)),
        "-".join(BASE32[at : at + 4] for at in range(0, len(BASE32), 4)).lower(),
        f"{BASE32[:8]}\t{BASE32[8:]}\r\n",
    ],
)
def test_parse_seed_forms(text: str) -> None:
    """A seed is read in either case, with spaces and dashes between its groups."""
    assert SEED == oath.parse_seed(text)


@given(SEEDS)
def test_parse_seed_round_trip(seed: Secret) -> None:
    """A seed that was encoded, padded or not, is read back."""
    encoded = oath.encode_seed(seed)
    padded = encoded + "=" * (-len(encoded) % 8)
    assert [seed, seed] == [oath.parse_seed(encoded), oath.parse_seed(padded)]


@pytest.mark.parametrize(
    "text",
    [
        "0" * 32,
        "1" * 32,
        "8" * 32,
        f"{BASE32[:-1]}!",
        f"{BASE32[:16]}=={BASE32[16:]}",
        f"{BASE32}A",
        f"secret: {BASE32}",
        "é" * 32,
        "\0" * 32,
        pytest.param("ſ" * 32, id="long s, whose upper case is S"),
        pytest.param("ß" * 16, id="sharp s, whose upper case is SS"),
    ],
)
def test_parse_seed_not_base32(text: str) -> None:
    """Whatever has a character or a length that base32 does not have is refused."""
    with pytest.raises(RefusedError, match="not base32"):
        oath.parse_seed(text)


@pytest.mark.parametrize(("size", "bits"), [(0, 0), (10, 80), (13, 104), (129, 1032), (1000, 8000)])
def test_parse_seed_length(size: int, bits: int) -> None:
    """A seed of fewer than 112 or more than 1,024 bits is refused, and its length is told."""
    with pytest.raises(RefusedError, match=f"has {bits} bits; 112 to 1024"):
        oath.parse_seed(base64.b32encode(bytes(size)).decode("ascii"))


def test_parse_seed_quotes_nothing() -> None:
    """A refused seed stands neither in the error's text nor in its hint."""
    with pytest.raises(RefusedError) as caught:
        oath.parse_seed("GEZDGNBVGY3TQOJQ!")
    assert "GEZDGNBV" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (Parameters(), {}),
        (Parameters(Algorithm.SHA256, 8, 60), {"algorithm": "SHA256", "digits": "8",
                                               "period": "60"}),
        (Parameters(Algorithm.SHA512, 7, 30), {"algorithm": "SHA512", "digits": "7"}),
    ],
)  # fmt: skip
def test_provisioning_uri(parameters: Parameters, expected: dict[str, str]) -> None:
    """The URI names issuer and account, holds the seed, and what differs from the default."""
    uri = oath.provisioning_uri(SEED, parameters, account="alice@corp", issuer="host.example")
    parts = urllib.parse.urlsplit(uri)
    fields = dict(urllib.parse.parse_qsl(parts.query))
    named = {"secret": BASE32.rstrip("="), "issuer": "host.example"}
    assert (
        "otpauth", "totp", "/host.example:alice@corp", named | expected,
    ) == (
        parts.scheme, parts.netloc, urllib.parse.unquote(parts.path), fields,
    )  # fmt: skip


@pytest.mark.parametrize("account", ["a b", "a?secret=x", "a&b", "DOMAIN\\user", "ä", "a/b", "a#b"])
def test_provisioning_uri_account(account: str) -> None:
    """Whatever an account's name contains, it stands in the path and adds no field."""
    uri = oath.provisioning_uri(SEED, Parameters(), account=account, issuer="host")
    parts = urllib.parse.urlsplit(uri)
    fields = [key for key, _ in urllib.parse.parse_qsl(parts.query)]
    path = urllib.parse.unquote(parts.path)
    assert (f"/host:{account}", ["secret", "issuer"]) == (path, fields)


@pytest.mark.parametrize(("size", "is_weak"), [(1, True), (10, True), (13, True), (14, False)])
def test_weak_seeds(size: int, is_weak: bool) -> None:  # noqa: FBT001 - a table's column
    """A seed under 112 bits is weak."""
    seed = Secret(bytes(size))
    assert (is_weak, size * 8) == (oath.is_weak(seed), oath.seed_bits(seed))
