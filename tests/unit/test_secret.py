# SPDX-License-Identifier: Apache-2.0
"""A secret shows in nothing that is printed or stored."""

import copy
import pickle
import traceback

import pytest
from doubles import SEED, open_device

from pam_mfa.secret import Secret

HIDDEN = Secret(b"correct horse battery")


@pytest.mark.parametrize(
    "text",
    [
        repr(HIDDEN),
        str(HIDDEN),
        f"{HIDDEN}",
        f"{HIDDEN!r:>30}".strip(),
        "%s" % HIDDEN,  # noqa: UP031 - the way of the logging module
        repr([HIDDEN])[1:-1],
    ],
)
def test_text(text: str) -> None:
    """However it is turned into text, nothing shows."""
    assert "Secret(redacted)" == text


def test_inside_others() -> None:
    """What holds a secret does not show it either."""
    assert "seed=Secret(redacted)" in repr(open_device(seed=HIDDEN))


def test_traceback() -> None:
    """A traceback with the values of variables does not show it."""

    def fail(secret: Secret) -> None:
        raise ValueError(secret)

    try:
        fail(HIDDEN)
    except ValueError as error:
        shown = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        )
    assert "secret = Secret(redacted)" in shown
    assert "correct horse" not in shown


@pytest.mark.parametrize("store", [pickle.dumps, copy.copy, copy.deepcopy])
def test_serialization(store: object) -> None:
    """It is neither pickled nor copied."""
    assert callable(store)
    with pytest.raises(TypeError, match="not to be serialized"):
        store(HIDDEN)


def test_no_attributes() -> None:
    """There is no dictionary of its attributes to print."""
    assert not hasattr(HIDDEN, "__dict__")


def test_reveal() -> None:
    """The bytes are had by asking for them."""
    assert b"correct horse battery" == HIDDEN.reveal()


def test_equality() -> None:
    """Two secrets of the same bytes are equal; bytes are no secret."""
    same = Secret(b"correct horse battery")
    assert (True, False, False) == (same == HIDDEN, SEED == HIDDEN, HIDDEN == HIDDEN.reveal())
