# SPDX-License-Identifier: Apache-2.0
"""Every kind of device at a login through real libpam: tokens, recovery codes, bypass, resync."""

import base64
import io
import json
import re
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import pskc
import pytest
from authenticator import enroll
from installed import PERIOD, REPOSITORY, DataRoot, wait_for_step
from serving import each_way, serving

PAPER = re.compile(r"\b(?:[A-Z2-7]{4}-){3}[A-Z2-7]{4}\b")
FIGURES = REPOSITORY / "tests/vectors/rfc6030"
RFC_SEED = b"12345678901234567890"  # of the RFC's encrypted figures
PASSWORD = "correct horse"
LAST_WORDS = "That was your last recovery code. Ask your administrator for a new set"


class HardwareToken(NamedTuple):
    """A token that a vendor delivers; its codes are oathtool's."""

    serial_number: str
    seed: bytes
    digits: int = 6
    is_event_based: bool = False

    def code(self, step: int = 0) -> str:
        """Return the code of a counter, or of the time step this many after the current one."""
        moment = ["--counter", str(step)]
        if not self.is_event_based:
            moment = ["--now", f"@{int(time.time()) + step * PERIOD}"]
        kind = "--hotp" if self.is_event_based else "--totp"
        done = subprocess.run(
            ["oathtool", kind, *moment, "--digits", str(self.digits), "-"],
            input=self.seed.hex(), capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        return done.stdout.strip()

    def give(self, root: DataRoot, user: str, first: int = 0) -> "HardwareToken":
        """Enable it for a user by two codes, the first of this step."""
        if not self.is_event_based:
            wait_for_step(10)
        codes = [self.code(first), self.code(first + 1)]
        root.command(
            "enable", "token", user, "--serial-number", self.serial_number, "--codes", *codes
        )
        return self


def new_token(serial_number: str = "A-1", *, is_event_based: bool = False) -> HardwareToken:
    """Return a token with a fresh seed."""
    seed = b"\xff" + secrets.token_bytes(19)
    return HardwareToken(serial_number, seed, is_event_based=is_event_based)


def take_in(root: DataRoot, *tokens: HardwareToken) -> str:
    """Import a vendor's CSV file of tokens; return what is said of it."""
    rows = [
        f"{one.serial_number};{one.seed.hex()};{'HOTP' if one.is_event_based else 'TOTP'};Acme"
        for one in tokens
    ]
    path = root.path / "tokens.csv"
    path.write_text("\n".join(["Serial No;Seed;Type;Vendor", *rows, ""]), "ascii")
    return root.command("token", "import", str(path)).stdout


def log_in(root: DataRoot, *answers: str, user: str = "alice") -> tuple[bool, str]:
    """Run a service's stack through real libpam; return whether it lets in, and what was shown."""
    (root.services / "demo").write_text(
        f"auth required {root.module}\naccount required pam_permit.so\n"
    )
    done = root.command(
        "try", user, "--service", "demo", "--pam-dir", str(root.services),
        stdin="".join(f"{answer}\n" for answer in answers), check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode == 0, done.stdout


def lets_in(root: DataRoot, *answers: str, user: str = "alice") -> bool:
    """Whether a service's stack lets a user in."""
    return log_in(root, *answers, user=user)[0]


def rows_of(root: DataRoot, *arguments: str) -> dict[str, dict[str, Any]]:
    """Return a command's JSON rows by serial number; a user's devices with what is the user's."""
    rows: list[dict[str, Any]] = json.loads(root.command(*arguments, "--json").stdout)
    devices = [{**row, **device} for row in rows for device in row.get("devices", [row])]
    return {device["serial_number"]: device for device in devices}


def recovery_codes(root: DataRoot, user: str = "alice") -> list[str]:
    """Make a set of recovery codes and return them."""
    codes = PAPER.findall(root.command("enable", "recovery", user).stdout)
    assert len(set(codes)) == 10
    return codes


def bypass_code(root: DataRoot, user: str = "alice") -> str:
    """Issue a bypass and return its code."""
    (code,) = PAPER.findall(root.command("bypass", user, "--for", "10m").stdout)
    return str(code)


def edit(path: Path, pattern: str, text: str) -> None:
    """Change a file in place, so that it keeps its owner and mode."""
    changed, count = re.subn(pattern, text, path.read_text("ascii"))
    assert count == 1
    path.write_text(changed, "ascii")


def write_pskc(path: Path, token: HardwareToken, **encryption: Any) -> str:  # noqa: ANN401
    """Have python-pskc write a document of one token, encrypted by a password or a key."""
    document = pskc.PSKC()
    profile = f"urn:ietf:params:xml:ns:keyprov:pskc:{'hotp' if token.is_event_based else 'totp'}"
    document.add_key(
        algorithm=profile, serial=token.serial_number, manufacturer="Acme", secret=token.seed,
        counter=0, response_length=token.digits, response_encoding="DECIMAL",
    )  # fmt: skip
    if "password" in encryption:
        document.encryption.setup_pbkdf2(**encryption)
    elif encryption:
        document.encryption.setup_preshared_key(**encryption)
    out = io.BytesIO()
    document.write(out)
    path.write_bytes(out.getvalue())
    return str(path)


@each_way
def test_event_token(root: DataRoot, way: str) -> None:
    """Each code of an event-based token lets in once, in its order, and no older one after it."""
    token = new_token(is_event_based=True)
    take_in(root, token)
    token.give(root, "alice")
    with serving(root, way):
        assert [lets_in(root, token.code(step)) for step in (1, 2, 2, 3, 2)] == [
            False, True, False, True, False,
        ]  # fmt: skip
    (first, *_) = [record for record in root.audit() if record["outcome"] == "success"]
    assert first["device"] == {"serial_number": "A-1", "type": "token", "name": "token"}


@each_way
def test_look_ahead(root: DataRoot, way: str) -> None:
    """A code ten counters after the last used one lets in, one of eleven does not."""
    token = new_token(is_event_based=True)
    take_in(root, token)
    token.give(root, "alice")
    with serving(root, way):
        assert [lets_in(root, token.code(step)) for step in (1 + 11, 1 + 10)] == [False, True]
        assert [lets_in(root, token.code(step)) for step in (11 + 11, 11 + 10)] == [False, True]


@each_way
def test_time_token(root: DataRoot, way: str) -> None:
    """A time-based token's codes let in once each, and nobody else's user by them."""
    token = new_token()
    take_in(root, token)
    token.give(root, "alice", -2)
    code = token.code()
    with serving(root, way):
        assert not lets_in(root, code, user="bob")
        assert [lets_in(root, code), lets_in(root, code)] == [True, False]


@each_way
def test_drifting_token(root: DataRoot, way: str) -> None:
    """A token whose clock is twenty minutes ahead is enabled so, and its codes of now let in."""
    token = new_token()
    take_in(root, token)
    token.give(root, "alice", 40)
    with serving(root, way):
        assert [lets_in(root, token.code(step)) for step in (0, 1, 42)] == [False, False, True]
    assert rows_of(root, "status", "alice")["A-1"]["drift"] == 41


@each_way
def test_recovery_code(root: DataRoot, way: str) -> None:
    """A recovery code lets in once, however it is typed, and says how many are left."""
    enroll(root, "alice")
    codes = recovery_codes(root)
    with serving(root, way):
        did, shown = log_in(root, codes[0])
        assert (did, "A recovery code was used; 9 of 10 are left." in shown) == (True, True)
        did, shown = log_in(root, codes[0])
        assert (did, "recovery code was used" in shown) == (False, False)
        assert lets_in(root, codes[1].replace("-", " ").lower())
        assert not lets_in(root, codes[2], user="bob")
    assert rows_of(root, "list", "alice").keys() == rows_of(root, "status", "alice").keys()


@each_way
def test_last_recovery_code(root: DataRoot, way: str) -> None:
    """All ten codes let in; the last one says what to do, and no other says so."""
    enroll(root, "alice")
    codes = recovery_codes(root)
    with serving(root, way):
        ends = [log_in(root, code) for code in codes]
    assert [did for did, _ in ends] == [True] * 10
    assert [LAST_WORDS in shown for _, shown in ends] == [False] * 9 + [True]
    (row,) = [one for one in rows_of(root, "status", "alice").values() if one["type"] == "recovery"]
    assert row["codes_left"] == 0


@each_way
def test_old_recovery_codes(root: DataRoot, way: str) -> None:
    """After a new set was made the old codes let nobody in."""
    enroll(root, "alice")
    old, new = recovery_codes(root), recovery_codes(root)
    with serving(root, way):
        assert [lets_in(root, old[0]), lets_in(root, new[0])] == [False, True]


@each_way
def test_bypass(root: DataRoot, way: str) -> None:
    """A bypass lets its user in once, who need not have a device, and is recorded."""
    code = bypass_code(root)
    with serving(root, way):
        assert not lets_in(root, code, user="bob")
        assert [lets_in(root, code), lets_in(root, code)] == [True, False]
    (issued,) = root.audit("IssueBypass")
    used = [one["device"] for one in root.audit() if one["outcome"] == "success"]
    assert (issued["user"], used) == ("alice", [issued["device"]])


@each_way
def test_expired_bypass(root: DataRoot, way: str) -> None:
    """A bypass past its time is a wrong code."""
    code = bypass_code(root)
    edit(root.device_file("alice"), r"expires_at: \S+", "expires_at: 2020-01-01T00:00:00Z")
    with serving(root, way):
        assert not lets_in(root, code)
    assert root.reasons()[0] == "wrong_code"


@each_way
def test_replaced_bypass(root: DataRoot, way: str) -> None:
    """A new bypass ends the one before."""
    old, new = bypass_code(root), bypass_code(root)
    with serving(root, way):
        assert [lets_in(root, old), lets_in(root, new)] == [False, True]


@each_way
def test_resync_of_a_phone(root: DataRoot, way: str) -> None:
    """Two consecutive codes of a clock far off let in, and afterwards one is enough."""
    phone = enroll(root, "alice")
    wait_for_step(10)
    with serving(root, way):
        assert not lets_in(root, phone.code(100))
        did, shown = log_in(root, phone.code(100), phone.code(101))
        assert (did, "the next one that your device shows" in shown) == (True, True)
        assert lets_in(root, phone.code(102))
    (record,) = root.audit("ResyncMfaDevice")
    assert (record["reason"], record["device"]["name"]) == ("resynchronized", "phone")
    assert abs(rows_of(root, "status", "alice")[phone.serial_number]["drift"] - 101) <= 1


@each_way
def test_resync_of_an_event_token(root: DataRoot, way: str) -> None:
    """A token that was pressed in a pocket is brought into step by two codes at the login."""
    token = new_token(is_event_based=True)
    take_in(root, token)
    token.give(root, "alice")
    with serving(root, way):
        assert not lets_in(root, token.code(500), token.code(502))
        assert lets_in(root, token.code(500), token.code(501))
        assert [lets_in(root, token.code(step)) for step in (501, 502)] == [False, True]


def test_resync_by_command(root: DataRoot) -> None:
    """An administrator brings a token into step by the codes that its user reads out."""
    token = new_token(is_event_based=True)
    take_in(root, token)
    token.give(root, "alice")
    pair = [token.code(700), token.code(701)]
    done = root.command("resync", "alice", "A-1", "--codes", *pair)
    assert "Resynchronized A-1 of alice" in done.stdout
    assert root.command("resync", "alice", "A-1", "--codes", *pair, check=False).returncode == 1
    assert [lets_in(root, token.code(step)) for step in (701, 702)] == [False, True]


def test_status(root: DataRoot) -> None:
    """The status has every device with its last use, drift, codes left and the user's lock."""
    phone = enroll(root, "alice")
    recovery_codes(root)
    assert lets_in(root, phone.code())
    rows = rows_of(root, "status", "alice")
    assert [row["type"] for row in rows.values()] == ["virtual", "recovery"]
    for row in rows.values():
        assert {"user", "serial_number", "type", "last_used_at", "drift", "codes_left",
                "locked_until"} < set(row)  # fmt: skip
    used, unused = rows.values()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", used["last_used_at"])
    assert (used["user"], used["drift"], used["codes_left"], used["locked_until"]) == (
        "alice", 0, None, None,
    )  # fmt: skip
    assert (unused["last_used_at"], unused["codes_left"]) == (None, 10)


def test_status_of_a_locked_user(root: DataRoot) -> None:
    """The status says that a user is locked and how to end it, and unlocking ends it."""
    phone = enroll(root, "alice")
    for _ in range(2):
        assert not lets_in(root, *[phone.wrong_code()] * 3)
    assert rows_of(root, "status")[phone.serial_number]["locked_until"] > "2024"
    assert "pam-mfa unlock alice" in root.command("status", "alice").stdout
    assert not lets_in(root, phone.code())
    root.command("unlock", "alice")
    assert rows_of(root, "status")[phone.serial_number]["locked_until"] is None
    assert lets_in(root, phone.code())


@each_way
def test_all_devices_are_lost(root: DataRoot, way: str) -> None:
    """Taking every device from a user ends every code, and gives a token back to the stock."""
    token = new_token(is_event_based=True)
    take_in(root, token)
    token.give(root, "alice")
    phone, codes, bypass = enroll(root, "alice"), recovery_codes(root), bypass_code(root)
    with serving(root, way):
        root.command("deactivate", "alice", "--all", "--leave-none")
        for code in (token.code(2), phone.code(), codes[0], bypass):
            assert not lets_in(root, code)
    assert (rows_of(root, "list", "alice"), rows_of(root, "token", "list")["A-1"]["user"]) == (
        {}, "",
    )  # fmt: skip
    token.give(root, "bob", 2)
    assert lets_in(root, token.code(4), user="bob")


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--all"], 1), ([], 2), (["--all", "A-1"], 2), (["A-1"], 1)]
)
def test_deactivation_is_refused(root: DataRoot, arguments: list[str], status: int) -> None:
    """Nothing is deactivated without the word that leaves a user without a device."""
    token = new_token(is_event_based=True)
    take_in(root, token)
    token.give(root, "alice")
    done = root.command("deactivate", "alice", *arguments, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert rows_of(root, "list", "alice").keys() == {"A-1"}


def test_import_of_csv(root: DataRoot) -> None:
    """The dialect of a file is shown, the tokens are listed free, and again adds nothing."""
    tokens = [new_token("A-1"), new_token("A-2", is_event_based=True)]
    said = take_in(root, *tokens)
    assert "separator ';', columns serial_number, seed, type, manufacturer, seeds in hex" in said
    assert "Imported 2 tokens; 0 were in stock already." in said
    assert "Imported 0 tokens; 2 were in stock already." in take_in(root, *tokens)
    found = {name: (row["kind"], row["user"], row["manufacturer"])
             for name, row in rows_of(root, "token", "list").items()}  # fmt: skip
    assert found == {"A-1": ("TOTP 30 s", "", "Acme"), "A-2": ("HOTP", "", "Acme")}


def test_import_of_bad_csv(root: DataRoot) -> None:
    """A bad row is named by its line and refuses the file, unless bad ones may be skipped."""
    path = root.path / "tokens.csv"
    good = new_token()
    path.write_text(f"serial,seed\nA-1,{good.seed.hex()}\nA-2,{good.seed.hex()[:-1]}\n", "ascii")
    done = root.command("token", "import", str(path), check=False)
    assert (done.returncode, "tokens.csv, line 3: token A-2" in done.stderr) == (1, True)
    assert rows_of(root, "token", "list") == {}
    root.command("token", "import", str(path), "--dry-run")
    assert rows_of(root, "token", "list") == {}
    root.command("token", "import", str(path), "--skip-bad")
    assert rows_of(root, "token", "list").keys() == {"A-1"}


@each_way
def test_pskc_by_password(root: DataRoot, way: str) -> None:
    """A document that python-pskc encrypted by a password gives a token that lets in."""
    token = new_token(is_event_based=True)
    path = write_pskc(root.path / "tokens.xml", token, password=PASSWORD)
    said = root.command("token", "import", path, "--password", "-", stdin=f"{PASSWORD}\n").stdout
    assert "PSKC (RFC 6030), encrypted, 1 key packages" in said
    token.give(root, "alice")
    with serving(root, way):
        assert lets_in(root, token.code(2))


def test_pskc_by_key(root: DataRoot) -> None:
    """A document that python-pskc encrypted by a pre-shared key gives a token that lets in."""
    token, key = new_token(is_event_based=True), secrets.token_bytes(16)
    path = write_pskc(root.path / "tokens.xml", token, key=key)
    root.command("token", "import", path, "--key", "-", stdin=f"{key.hex()}\n")
    token.give(root, "alice")
    assert lets_in(root, token.code(2))


@pytest.mark.parametrize(
    ("option", "line"), [("--password", "wrong"), ("--password", ""), ("--key", "00" * 16),
                         ("--key", "nothex"), ("", "")],
)  # fmt: skip
def test_pskc_by_a_wrong_word(root: DataRoot, option: str, line: str) -> None:
    """By a wrong password or key, or none, nothing is imported and a sentence says why."""
    path = write_pskc(root.path / "tokens.xml", new_token(), password=PASSWORD)
    given = [option, "-"] if option else []
    done = root.command("token", "import", path, *given, stdin=f"{line}\n", check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert rows_of(root, "token", "list") == {}


@pytest.mark.parametrize(
    ("figure", "option", "word"),
    [(3, "", ""), (6, "--key", "12345678901234567890123456789012"), (7, "--password", "qwerty")],
)
def test_figures_of_the_rfc(root: DataRoot, figure: int, option: str, word: str) -> None:
    """The RFC's own documents give the token whose eight-digit codes oathtool makes."""
    given = [option, "-"] if option else []
    path = FIGURES / f"figure{figure}.xml"
    root.command("token", "import", str(path), *given, stdin=f"{word}\n")
    token = HardwareToken("987654321", RFC_SEED, 8, is_event_based=True).give(root, "alice")
    assert lets_in(root, token.code(2))


def test_seeds_are_not_kept_or_shown(root: DataRoot) -> None:
    """No seed of an import stands in what is kept, logged or said."""
    token = new_token(is_event_based=True)
    path = write_pskc(root.path / "tokens.xml", token, password=PASSWORD)
    done = root.command("token", "import", path, "--password", "-", stdin=f"{PASSWORD}\n")
    token.give(root, "alice")
    kept = [one.read_bytes() for one in (*root.library.rglob("*"), root.audit_log) if one.is_file()]
    data = b"".join(kept) + done.stdout.encode() + done.stderr.encode()
    for form in (token.seed, token.seed.hex().encode(), base64.b32encode(token.seed),
                 base64.b64encode(token.seed), PASSWORD.encode()):  # fmt: skip
        assert form not in data
