# SPDX-License-Identifier: Apache-2.0
"""Codes typed at the prompt, judged by the daemon and by a verifier started on demand."""

import contextlib
import sqlite3
import time
from collections.abc import Callable

import pytest
from authenticator import Authenticator, enroll
from host_program import ALL_PROMPTS, PROMPT, Status, attempt
from installed import DataRoot, new_secret, wait_for_step
from serving import DAEMON, each_way, serving

PARAMETERS = [
    (algorithm, digits, period)
    for algorithm in ("SHA1", "SHA256", "SHA512")
    for digits in (6, 7, 8)
    for period in (30, 60)
]
MANGLED: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "spaces only": lambda _: "   ",
    "one digit short": lambda code: code[:-1],
    "one digit more": lambda code: f"{code}0",
    "twice": lambda code: code * 2,
    "a thousand digits": lambda code: code + "0" * 994,
    "after a thousand digits": lambda code: "0" * 994 + code,
    "five thousand digits": lambda code: code + "0" * 4994,
    "fullwidth digits": lambda code: "".join(chr(ord(digit) + 0xFEE0) for digit in code),
    "arabic-indic digits": lambda code: "".join(chr(ord(digit) + 0x630) for digit in code),
    "with a newline": lambda code: f"{code}\n",
    "newline in front": lambda code: f"\n{code}",
    "with a tab": lambda code: f"{code}\t",
    "with a sign": lambda code: f"+{code}",
    "with an underscore": lambda code: f"{code[:3]}_{code[3:]}",
    "with a no-break space": lambda code: f"{code[:3]}\xa0{code[3:]}",
    "with a dash": lambda code: f"{code[:3]}-{code[3:]}",
    "with a letter": lambda code: f"{code[:5]}O",
    "not UTF-8": lambda code: f"{code}\udcff",
}


def sql(root: DataRoot, statement: str, *values: object) -> None:
    """Change the state behind the verifier's back."""
    with contextlib.closing(sqlite3.connect(root.library / "state.db", timeout=10)) as database:
        database.execute(statement, values)
        database.commit()


@each_way
def test_right_code_lets_in(root: DataRoot, way: str) -> None:
    """A right code is asked for once and lets in, and the record says by which device."""
    phone = enroll(root, "alice")
    with serving(root, way):
        outcome = attempt(root, "alice", phone.code())
    assert (outcome.status, outcome.prompts) == (Status.SUCCESS, [PROMPT])
    (record,) = root.audit()
    assert (record["outcome"], record["reason"]) == ("success", "code_accepted")
    assert record["device"]["serial_number"] == phone.serial_number


@each_way
def test_wrong_code_refuses(root: DataRoot, way: str) -> None:
    """A wrong code is asked for again, three times in all, and refused."""
    phone = enroll(root, "alice")
    with serving(root, way):
        outcome = attempt(root, "alice", *[phone.wrong_code()] * 5)
    assert (outcome.status, outcome.prompts) == (Status.AUTH_ERR, ALL_PROMPTS)
    assert root.reasons() == ["wrong_code"] * 3


@each_way
def test_right_code_after_a_wrong_one_lets_in(root: DataRoot, way: str) -> None:
    """A typing error can be mended at the next prompt."""
    phone = enroll(root, "alice")
    with serving(root, way):
        outcome = attempt(root, "alice", phone.wrong_code(), phone.code())
    assert (outcome.status, outcome.prompts) == (Status.SUCCESS, ALL_PROMPTS[:2])


@each_way
def test_code_counts_once(root: DataRoot, way: str) -> None:
    """A code that let somebody in lets nobody in again, and the next one does."""
    phone = enroll(root, "alice")
    code, following = phone.code(), phone.code(1)
    with serving(root, way):
        assert attempt(root, "alice", code).status == Status.SUCCESS
        assert attempt(root, "alice", code).status == Status.AUTH_ERR
        assert attempt(root, "alice", following).status == Status.SUCCESS
    assert root.reasons()[:2] == ["code_accepted", "code_reused"]


@each_way
def test_code_before_an_accepted_one_is_refused(root: DataRoot, way: str) -> None:
    """After the next code was accepted the current one, though never sent, counts no more."""
    phone = enroll(root, "alice")
    code, following = phone.code(), phone.code(1)
    with serving(root, way):
        assert attempt(root, "alice", following).status == Status.SUCCESS
        assert attempt(root, "alice", code).status == Status.AUTH_ERR


def test_enabling_codes_are_used_up(root: DataRoot) -> None:
    """The codes that a device was enabled by let nobody in."""
    phone = enroll(root, "alice")
    assert attempt(root, "alice", phone.code(-1)).status == Status.AUTH_ERR


@pytest.mark.parametrize(("algorithm", "digits", "period"), PARAMETERS)
def test_all_parameters(root: DataRoot, algorithm: str, digits: int, period: int) -> None:
    """A device of any hash, length and period that RFC 6238 has is understood, either way."""
    wait_for_step()
    token = Authenticator("alice", "token", new_secret(), algorithm, digits, period).enable(root)
    assert len(token.code()) == digits
    assert attempt(root, "alice", token.wrong_code()).status == Status.AUTH_ERR
    assert attempt(root, "alice", token.code()).status == Status.SUCCESS
    with serving(root, DAEMON):
        assert attempt(root, "alice", token.code(1)).status == Status.SUCCESS


@each_way
def test_each_device_lets_in(root: DataRoot, way: str) -> None:
    """Any of a user's devices lets in, whichever was used before."""
    first, second = enroll(root, "alice", "phone"), enroll(root, "alice", "tablet")
    with serving(root, way):
        assert attempt(root, "alice", second.code()).status == Status.SUCCESS
        assert attempt(root, "alice", first.code()).status == Status.SUCCESS
    names = [record["device"]["name"] for record in root.audit()]
    assert names == ["tablet", "phone"]


@each_way
def test_code_of_another_user_is_refused(root: DataRoot, way: str) -> None:
    """One user's code is a wrong one for another, and is not used up by that."""
    alice, bob = enroll(root, "alice"), enroll(root, "bob")
    code = bob.code()
    with serving(root, way):
        assert attempt(root, alice.user, code).status == Status.AUTH_ERR
        assert attempt(root, bob.user, code).status == Status.SUCCESS


@each_way
def test_user_without_device_is_asked_alike(root: DataRoot, way: str) -> None:
    """A user without a device is asked as often as another and refused; the record tells."""
    enroll(root, "alice")
    with serving(root, way):
        outcome = attempt(root, "nobody", *["123456"] * 3)
    assert (outcome.status, outcome.prompts) == (Status.AUTH_ERR, ALL_PROMPTS)
    assert set(root.reasons()) == {"not_enrolled"}


@each_way
@pytest.mark.parametrize(
    "spell", ["{0}{1} {2}{3}{4}{5}", " {0}{1}{2}{3}{4}{5} ", "{0} {1} {2} {3} {4} {5}"]
)
def test_spaces_are_allowed(root: DataRoot, way: str, spell: str) -> None:
    """A code may be typed with spaces, as applications show it."""
    phone = enroll(root, "alice")
    with serving(root, way):
        assert attempt(root, "alice", spell.format(*phone.code())).status == Status.SUCCESS


@pytest.mark.parametrize("how", MANGLED)
def test_what_is_no_code_is_refused(root: DataRoot, how: str) -> None:
    """A right code that is written otherwise than in 6 to 8 ASCII digits is none."""
    phone = enroll(root, "alice")
    assert attempt(root, "alice", MANGLED[how](phone.code())).status == Status.AUTH_ERR
    (record, *_) = root.audit()
    assert record["outcome"] == "denied"
    assert attempt(root, "alice", phone.code()).status == Status.SUCCESS


def test_what_was_typed_is_not_recorded(root: DataRoot) -> None:
    """Neither the log nor the state has a typed answer or a name that no account has."""
    phone = enroll(root, "alice")
    typed = [phone.wrong_code(), "my-password-by-mistake", phone.code()]
    attempt(root, "alice", *typed)
    attempt(root, "my-password-as-user", "x")
    kept = [*root.library.rglob("*"), root.audit_log]
    data = b"".join(path.read_bytes() for path in kept if path.is_file())
    assert not [word for word in [*typed[:2], "my-password-as-user"] if word.encode() in data]
    assert f'"{typed[2]}"'.encode() not in data


@each_way
@pytest.mark.parametrize(("step", "status"), [
    (-2, Status.AUTH_ERR), (-1, Status.SUCCESS), (1, Status.SUCCESS), (2, Status.AUTH_ERR),
])  # fmt: skip
def test_window_is_one_step(root: DataRoot, way: str, step: int, status: int) -> None:
    """One time step either side of now counts, two do not."""
    phone = enroll(root, "alice")
    sql(root, "DELETE FROM used_step")
    with serving(root, way):
        wait_for_step(10)
        assert attempt(root, "alice", phone.code(step)).status == status
    assert root.reasons()[0] == ("code_accepted" if status == Status.SUCCESS else "wrong_code")


@each_way
def test_clock_set_back_makes_no_code_good_again(root: DataRoot, way: str) -> None:
    """Where the last accepted step lies an hour ahead, codes of now are refused, uncounted."""
    phone = enroll(root, "alice")
    sql(root, "UPDATE used_step SET step = ?", int(time.time() + 3600) // 30)
    with serving(root, way):
        assert attempt(root, "alice", phone.code(), phone.code(1)).status == Status.AUTH_ERR
    assert root.reasons()[:2] == ["code_reused", "code_reused"]


@each_way
def test_nobody_to_ask_refuses(root: DataRoot, way: str) -> None:
    """A host whose conversation fails is refused, and no wrong code is counted."""
    phone = enroll(root, "alice")
    with serving(root, way):
        for _ in range(6):
            assert attempt(root, "alice", None).status == Status.AUTH_ERR
        assert attempt(root, "alice", phone.code()).status == Status.SUCCESS
    assert root.reasons() == ["no_conversation"] * 6 + ["code_accepted"]
