# SPDX-License-Identifier: Apache-2.0
"""What becomes of devices, at real logins: out of step, one of many, deactivated, locked out."""

import os
from collections.abc import Iterator, Sequence

import pytest
from entrance import (
    ALICE,
    EACH_ENTRANCE,
    NAME,
    ONE_ENTRANCE,
    Entrance,
    Opening,
    open_sshd,
)
from installed import DataRoot
from otp_device import (
    accepted_devices,
    bypass_code,
    new_device,
    recovery_codes,
    status_of,
)
from phone import FAILURES, NEXT_PROMPT, PROMPTS
from private_host import PrivateHost
from token_vendor import COUNTER, TokenVendor

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of this kind need root")

CODE_PROMPTS = ("Verification code: ", *(NEXT_PROMPT,) * (PROMPTS - 1))
HOUR = 120  # time steps of 30 seconds
PHONE = f"virtual/{NAME}/phone"
WRONG, RIGHT = "wrong_code", "code_accepted"


@pytest.fixture(scope="module")
def host() -> Iterator[PrivateHost]:
    """A private host with Alice's account; every test writes the PAM stacks that it uses."""
    with PrivateHost([ALICE]) as started:
        yield started


@pytest.fixture
def come(opening: Opening, root: DataRoot, host: PrivateHost) -> Iterator[Entrance]:
    """The entrance that a test is run for."""
    with opening.entrance(root, host) as entrance:
        yield entrance


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> TokenVendor:
    """A vendor of tokens."""
    return TokenVendor(tmp_path_factory.mktemp("vendor"))


@EACH_ENTRANCE
def test_resync_of_an_application(root: DataRoot, come: Entrance) -> None:
    """A phone that is five hours ahead logs in by two codes, and then by one at a time."""
    phone = new_device("phone").enable_application(root, NAME)
    require_resync(root, come, phone.codes(5 * HOUR, 3))
    drift = status_of(root, NAME)[PHONE]["drift"]
    # The codes are of one moment; a time step may have begun before their use.
    assert drift in (5 * HOUR, 5 * HOUR + 1)


@EACH_ENTRANCE
def test_resync_of_a_time_token(root: DataRoot, come: Entrance, vendor: TokenVendor) -> None:
    """A token, enabled when it was twenty hours behind, logs in by two codes of five hours ago."""
    token = new_device("AC-0815")
    vendor.deliver(root, token)
    token.enable_token(root, NAME, token.codes(-20 * HOUR, 2))
    require_resync(root, come, token.codes(-5 * HOUR, 3))
    assert status_of(root, NAME)[token.name]["drift"] in (-5 * HOUR, -5 * HOUR + 1)


@EACH_ENTRANCE
def test_resync_of_an_event_token(root: DataRoot, come: Entrance, vendor: TokenVendor) -> None:
    """A token pressed hundreds of times in a pocket logs in by two codes, then by one at a time."""
    token = new_device("AC-4711", period=0)
    vendor.deliver(root, token)
    token.enable_token(root, NAME, token.codes(COUNTER, 2))
    codes = token.codes(COUNTER + 700, 4)
    require_resync(root, come, codes[:3])
    again = come(codes[1], codes[3])
    assert (again.is_in, again.prompts) == (True, CODE_PROMPTS[:2])


def require_resync(root: DataRoot, come: Entrance, codes: Sequence[str]) -> None:
    """Have the first two of three codes resynchronize and let in, then the third one let in."""
    resync, after = come(*codes[:2]), come(codes[2])
    assert (resync.is_in, resync.prompts) == (True, CODE_PROMPTS[:2])
    assert (after.is_in, after.prompts) == (True, CODE_PROMPTS[:1])
    assert root.reasons() == [WRONG, RIGHT, RIGHT]
    (record,) = root.audit("ResyncMfaDevice")
    names = [record["device"]["name"], *accepted_devices(root)]
    assert (record["user"], record["reason"], len(set(names))) == (NAME, "resynchronized", 1)


@ONE_ENTRANCE
def test_no_resync_beyond_a_day(root: DataRoot, come: Entrance) -> None:
    """Two codes of more than a day away do not count, nor do two that skip one between them."""
    phone = new_device("phone").enable_application(root, NAME)
    far = come(*phone.codes(25 * HOUR, 2), phone.code(1))
    first, _, third = phone.codes(5 * HOUR, 3)
    skipping = come(first, third, first)
    assert [(one.is_in, one.prompts) for one in (far, skipping)] == [
        (True, CODE_PROMPTS),
        (False, CODE_PROMPTS),
    ]
    assert root.reasons() == [WRONG, WRONG, RIGHT, WRONG, WRONG, WRONG]
    assert (root.audit("ResyncMfaDevice"), status_of(root, NAME)[PHONE]["drift"]) == ([], 0)


@ONE_ENTRANCE
def test_no_resync_beyond_a_thousand(root: DataRoot, come: Entrance, vendor: TokenVendor) -> None:
    """Two codes of a token more than 1,000 counters ahead do not count."""
    token = new_device("AC-4711", period=0)
    vendor.deliver(root, token)
    token.enable_token(root, NAME, token.codes(COUNTER, 2))
    used = COUNTER + 1
    visit = come(*token.codes(used + 1000, 2), token.code(used + 1))
    assert (visit.is_in, visit.prompts) == (True, CODE_PROMPTS)
    assert (root.reasons(), root.audit("ResyncMfaDevice")) == ([WRONG, WRONG, RIGHT], [])


def test_eight_devices(root: DataRoot, host: PrivateHost, vendor: TokenVendor) -> None:
    """With eight devices of every kind, each alone logs in by ssh; a ninth is refused."""
    shown = enable_eight(root, vendor)
    with Opening(open_sshd, DataRoot.daemon).entrance(root, host) as come:
        visits = {name: come(code) for name, code in shown.items()}
    assert {name: visit.is_in for name, visit in visits.items()} == dict.fromkeys(shown, True)
    assert {visit.prompts for visit in visits.values()} == {CODE_PROMPTS[:1]}
    assert accepted_devices(root) == list(shown)
    ninth = new_device("AC-9")
    vendor.deliver(root, ninth)
    pair = ninth.codes(-1, 2)
    done = root.command(
        "enable", "token", NAME, "--serial-number", ninth.name, "--codes", *pair, check=False
    )
    assert (done.returncode, "has 8 devices, the most" in done.stderr) == (1, True)
    assert len(status_of(root, NAME)) == 8


def enable_eight(root: DataRoot, vendor: TokenVendor) -> dict[str, str]:
    """Enable eight devices for Alice; return what each shows next, by its name."""
    phones = [
        new_device("phone"),
        new_device("tablet", "SHA256", 8),
        new_device("laptop", "SHA512", 6, 60),
    ]
    clocks = [new_device("AC-1"), new_device("AC-2", digits=8)]
    counters = [new_device("AC-3", period=0), new_device("AC-4", digits=8, period=0)]
    vendor.deliver(root, *clocks, *counters)
    for phone in phones:
        phone.enable_application(root, NAME)
    shown = {"recovery": recovery_codes(root, NAME)[0]}
    for token, first in ((one, -1 if one.period else COUNTER) for one in (*clocks, *counters)):
        *pair, shown[token.name] = token.codes(first, 3)
        token.enable_token(root, NAME, pair)
    return shown | {phone.name: phone.code(1) for phone in phones}


@EACH_ENTRANCE
def test_deactivated_device(root: DataRoot, come: Entrance) -> None:
    """The code of a deactivated device is a wrong one, and the other device lets in."""
    lost = new_device("phone").enable_application(root, NAME)
    other = new_device("tablet").enable_application(root, NAME)
    root.command("deactivate", NAME, PHONE)
    visit = come(lost.code(1), other.code(1))
    assert (visit.is_in, visit.prompts) == (True, CODE_PROMPTS[:2])
    assert (root.reasons(), accepted_devices(root)) == ([WRONG, RIGHT], [other.name])


@ONE_ENTRANCE
def test_new_phone_of_the_same_name(root: DataRoot, come: Entrance) -> None:
    """A new phone, enabled in the place of one that was hours ahead, has no drift and lets in."""
    old = new_device("phone").enable_application(root, NAME)
    assert come(*old.codes(5 * HOUR, 2)).is_in
    root.command("deactivate", NAME, PHONE, "--leave-none")
    new = new_device("phone").enable_application(root, NAME)
    row = status_of(root, NAME)[PHONE]
    assert (row["drift"], row["last_used_at"]) == (0, None)
    assert come(new.code(1)).is_in


@EACH_ENTRANCE
def test_all_devices_are_lost(root: DataRoot, come: Entrance) -> None:
    """With every device deactivated none lets in, and a bypass code does, once."""
    phone = new_device("phone").enable_application(root, NAME)
    paper = recovery_codes(root, NAME)
    root.command("deactivate", NAME, "--all", "--leave-none")
    refused = come(phone.code(1), paper[0], phone.code(1))
    assert (refused.is_in, refused.prompts) == (False, CODE_PROMPTS)
    assert root.reasons() == ["not_enrolled"] * PROMPTS
    code = bypass_code(root, NAME)
    assert [come(code).is_in, come(*[code] * PROMPTS).is_in] == [True, False]
    assert root.reasons()[PROMPTS:] == [RIGHT, *["code_reused"] * PROMPTS]


@EACH_ENTRANCE
def test_locked_user(root: DataRoot, come: Entrance) -> None:
    """A locked user sees what any wrong code shows, loses no code by it, and waits for unlock."""
    phone = new_device("phone").enable_application(root, NAME)
    paper = recovery_codes(root, NAME)
    wrong = [come(*[phone.wrong_code()] * PROMPTS) for _ in range(2)]
    locked = come(phone.code(1), paper[0], phone.code(1))
    assert status_of(root, NAME)[PHONE]["locked_until"]
    assert (locked.is_in, locked.prompts, locked.shown) == (False, CODE_PROMPTS, wrong[0].shown)
    root.command("unlock", NAME)
    assert [come(code).is_in for code in (phone.code(1), paper[0])] == [True, True]
    assert root.reasons() == [WRONG] * FAILURES + ["locked"] * 4 + [RIGHT] * 2
