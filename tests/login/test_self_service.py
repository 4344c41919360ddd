# SPDX-License-Identifier: Apache-2.0
"""Self-service: users who are not root manage their own devices, on a private host."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from host_accounts import Account
from installed import DataRoot, new_secret, totp, wait_for_step
from phone import CODE_PROMPT, Phone
from private_host import PrivateHost
from self_service_command import ALL_ALLOWED, NOTHING_ALLOWED, run_as, self_service
from terminal_session import Answer
from verifier_process import set_policy

CAROL = Account("carol-of-tests", "correct horse")
DAVE = Account("dave-of-tests", "battery staple")
NAME = CAROL.name
PASSWORD: Answer = ("Password: *$", CAROL.password)
WRONG: Answer = ("Password: *$", "wrong")


@pytest.fixture
def host(root: DataRoot) -> Iterator[PrivateHost]:
    """A private host with two accounts and the service, everything allowed."""
    with PrivateHost([CAROL, DAVE]) as started, self_service(started, root):
        yield started


def secret_in(shown: str) -> str:
    """Return the secret key that was shown for typing."""
    found = re.search(r"secret key into it \(time based\): ([A-Z2-7 ]+)", shown)
    assert found, shown
    return found[1].replace(" ", "")


FIRST: Answer = ("First code: *$", lambda shown: totp(secret_in(shown), -1))
SECOND: Answer = ("Second code.*: *$", lambda shown: totp(secret_in(shown), 0))


def records(root: DataRoot, name: str) -> list[tuple[str, str]]:
    """Return the outcomes and reasons of one kind of record."""
    return [(one["outcome"], one["reason"]) for one in root.audit(name)]


def test_first_device_needs_the_password(root: DataRoot, host: PrivateHost) -> None:
    """A user without a device enables one after the login password, by two codes of it."""
    wait_for_step()
    done = run_as(host, root, NAME, ["enable", "virtual", NAME], [PASSWORD, FIRST, SECOND])
    assert done.status == 0, done.output
    assert done.last_line.startswith(f"Enabled virtual/{NAME}/phone")
    assert root.device_file(NAME).exists()
    [record] = root.audit("EnableMfaDevice")
    uid = int(host.run(["id", "-u", NAME]).stdout)
    assert (record["user"], record["caller_uid"]) == (NAME, uid)


def test_wrong_password_changes_nothing(root: DataRoot, host: PrivateHost) -> None:
    """Who does not know the login password is shown no secret and enables nothing."""
    done = run_as(host, root, NAME, ["enable", "virtual", NAME], [WRONG])
    assert done.status == 1
    assert "password was not accepted" in done.output
    assert "secret key" not in done.output
    assert not root.device_file(NAME).exists()
    assert records(root, "EnableMfaDevice") == [("denied", "password_refused")]


def test_second_device_needs_the_first(root: DataRoot, host: PrivateHost) -> None:
    """A user who has a device must verify with it before another one is enabled."""
    phone = Phone(root, NAME)
    arguments = ["enable", "virtual", NAME, "--name", "tablet"]
    code = (CODE_PROMPT, phone.code())
    wait_for_step()
    done = run_as(host, root, NAME, arguments, [PASSWORD, code, FIRST, SECOND])
    assert done.status == 0, done.output
    [record] = root.audit()
    assert (record["outcome"], record["service"]) == ("success", "pam-mfa")


def test_stolen_password_enables_no_second_device(root: DataRoot, host: PrivateHost) -> None:
    """The password without the device is refused, and its guesses are counted and recorded."""
    phone = Phone(root, NAME)
    guesses = [(CODE_PROMPT, phone.wrong_code())] * 3
    done = run_as(host, root, NAME, ["enable", "virtual", NAME], [PASSWORD, *guesses])
    assert done.status == 1
    assert "you were not verified" in done.output
    assert "secret key" not in done.output
    assert root.reasons() == ["wrong_code"] * 3
    assert "tablet" not in root.command("list", NAME).stdout


def test_report_only_policy_does_not_weaken_self_service(root: DataRoot, host: PrivateHost) -> None:
    """A policy that only reports refusals of logins still refuses here."""
    phone = Phone(root, NAME)
    set_policy(root, "mode: enforce", "mode: report-only")
    guesses = [(CODE_PROMPT, phone.wrong_code())] * 3
    done = run_as(host, root, NAME, ["enable", "virtual", NAME], [PASSWORD, *guesses])
    assert done.status == 1
    assert "secret key" not in done.output


def test_somebody_elses_account_is_refused(root: DataRoot, host: PrivateHost) -> None:
    """A user cannot list, enable, resync or deactivate another user's devices."""
    Phone(root, DAVE.name)
    serial_number = f"virtual/{DAVE.name}/phone"
    for arguments in (
        ["list", DAVE.name],
        ["status", DAVE.name],
        ["enable", "virtual", DAVE.name],
        ["enable", "recovery", DAVE.name],
        ["resync", DAVE.name, serial_number],
        ["deactivate", DAVE.name, serial_number],
    ):
        done = run_as(host, root, NAME, arguments)
        assert (done.status, done.prompts) == (1, ()), done.output
        assert "your own devices only" in " ".join(done.output.split())
    assert records(root, "DeactivateMfaDevice") == [("denied", "caller_not_allowed")]
    assert serial_number in root.command("list").stdout


def test_another_users_serial_number_is_refused(root: DataRoot, host: PrivateHost) -> None:
    """Naming another user's device as one's own deactivates nothing."""
    phone = Phone(root, NAME)
    Phone(root, DAVE.name)
    arguments = ["deactivate", NAME, f"virtual/{DAVE.name}/phone"]
    done = run_as(host, root, NAME, arguments, [PASSWORD, (CODE_PROMPT, phone.code())])
    assert done.status == 1
    assert DAVE.name in root.command("list", DAVE.name).stdout


@pytest.mark.parametrize("permission", ["enable", "deactivate", "resync"])
def test_policy_decides(root: DataRoot, host: PrivateHost, permission: str) -> None:
    """What policy does not allow is refused before anything is asked."""
    Phone(root, NAME)
    allowed = ALL_ALLOWED.replace(f"{permission}: true", f"{permission}: false")
    set_policy(root, ALL_ALLOWED, allowed)
    serial_number = f"virtual/{NAME}/phone"
    arguments = {
        "enable": ["enable", "virtual", NAME],
        "deactivate": ["deactivate", NAME, serial_number],
        "resync": ["resync", NAME, serial_number],
    }[permission]
    done = run_as(host, root, NAME, arguments)
    assert (done.status, done.prompts) == (1, ())
    assert f"does not let users {permission}" in done.output


def test_shipped_policy_allows_nothing(root: DataRoot, host: PrivateHost) -> None:
    """By the shipped policy only administrators change devices."""
    set_policy(root, ALL_ALLOWED, NOTHING_ALLOWED)
    done = run_as(host, root, NAME, ["enable", "recovery", NAME])
    assert (done.status, done.prompts) == (1, ())
    assert records(root, "EnableMfaDevice") == [("denied", "not_allowed")]


def test_list_and_status(root: DataRoot, host: PrivateHost) -> None:
    """A user sees own devices without any question."""
    Phone(root, NAME)
    Phone(root, DAVE.name)
    listed = run_as(host, root, NAME, ["list", "--json"])
    rows: list[dict[str, Any]] = json.loads(listed.output)
    assert [row["serial_number"] for row in rows] == [f"virtual/{NAME}/phone"]
    status = run_as(host, root, NAME, ["status", "--json"])
    assert [row["user"] for row in json.loads(status.output)] == [NAME]


def test_recovery_codes_replace_a_lost_phone(root: DataRoot, host: PrivateHost) -> None:
    """A user makes recovery codes, loses the phone, enables another and deactivates the old one."""
    phone = Phone(root, NAME)
    made = run_as(
        host, root, NAME, ["enable", "recovery", NAME], [PASSWORD, (CODE_PROMPT, phone.code())]
    )
    codes = re.findall(r"^ *((?:[A-Z2-7]{4}-){3}[A-Z2-7]{4})$", made.output, re.MULTILINE)
    assert len(set(codes)) == 10
    wait_for_step()
    arguments = ["enable", "virtual", NAME, "--name", "new"]
    code = (CODE_PROMPT, codes[0])
    enabled = run_as(host, root, NAME, arguments, [PASSWORD, code, FIRST, SECOND])
    assert enabled.status == 0, enabled.output
    arguments = ["deactivate", NAME, f"virtual/{NAME}/phone"]
    gone = run_as(host, root, NAME, arguments, [PASSWORD, (CODE_PROMPT, codes[1])])
    assert gone.status == 0, gone.output
    names = [row["name"] for row in json.loads(root.command("list", NAME, "--json").stdout)]
    assert sorted(names) == ["new", "recovery"]


def test_last_device_stays(root: DataRoot, host: PrivateHost) -> None:
    """A user cannot switch the second factor off by deactivating the last device."""
    phone = Phone(root, NAME)
    arguments = ["deactivate", NAME, f"virtual/{NAME}/phone"]
    done = run_as(host, root, NAME, arguments, [PASSWORD, (CODE_PROMPT, phone.code())])
    assert done.status == 1
    assert "no MFA device left" in " ".join(done.output.split())
    for more in (["--leave-none"], []):
        other = run_as(host, root, NAME, ["deactivate", NAME, "--all", *more])
        assert other.status == 1
    assert root.device_file(NAME).exists()


def test_token_of_the_stock(root: DataRoot, host: PrivateHost) -> None:
    """A user takes the token that was handed out, by its serial number and two codes."""
    secret = new_secret()
    delivery = root.path / "tokens.csv"
    delivery.write_text(f"serial_number,seed,algorithm,digits,period\nT-1,{secret},SHA1,6,30\n")
    root.command("token", "import", str(delivery), "--seed-encoding", "base32")
    wait_for_step()
    codes: list[Answer] = [
        ("First code: *$", totp(secret, -1)),
        ("Second code.*: *$", totp(secret)),
    ]
    arguments = ["enable", "token", NAME, "--serial-number", "T-1"]
    done = run_as(host, root, NAME, arguments, [PASSWORD, *codes])
    assert done.status == 0, done.output
    assert secret not in done.output


def test_resync_by_the_pair_that_verifies(root: DataRoot, host: PrivateHost) -> None:
    """A user's device that is hours off is resynchronized by the two codes that verify."""
    secret = root.enroll(NAME)
    hours_off = 2 * 120
    codes = [(CODE_PROMPT, totp(secret, hours_off)), (CODE_PROMPT, totp(secret, hours_off + 1))]
    serial_number = f"virtual/{NAME}/phone"
    done = run_as(host, root, NAME, ["resync", NAME, serial_number], [PASSWORD, *codes])
    assert done.status == 0, done.output
    [row] = json.loads(root.command("status", NAME, "--json").stdout)
    assert abs(row["devices"][0]["drift"] - hours_off - 1) <= 1


def test_no_service(root: DataRoot) -> None:
    """Without the service the command says what to start, and ends as a broken system does."""
    with PrivateHost([CAROL]) as host:
        done = run_as(host, root, NAME, ["list"])
    assert done.status == 3
    assert "pam-mfa-selfd.socket" in done.output


def test_service_of_somebody_else_is_told_nothing(root: DataRoot) -> None:
    """A program of another user that listens in the service's place gets no petition."""
    program = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666); s.listen()\n"
        "print('ready', flush=True)\n"
        "print(s.accept()[0].recv(100), flush=True)\n"
    )
    run = root.path / "run"
    run.chmod(0o777)
    with PrivateHost([CAROL, DAVE]) as host:
        path = str(run / "pam-mfa-selfd.sock")
        argv = ["runuser", "-u", DAVE.name, "--", "/usr/bin/python3", "-c", program, path]
        with subprocess.Popen(host.command(argv), stdout=subprocess.PIPE, text=True) as thief:
            assert thief.stdout is not None
            assert thief.stdout.readline() == "ready\n"
            done = run_as(host, root, NAME, ["enable", "virtual", NAME])
            got = thief.stdout.readline()
    assert done.status == 3
    assert "was not started by root" in " ".join(done.output.split())
    assert got == "b''\n"
