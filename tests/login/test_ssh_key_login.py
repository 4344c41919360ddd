# SPDX-License-Identifier: Apache-2.0
"""Logins signed by a security key at the client: real sshd, ssh and ssh-keygen, shipped files."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from console_login import DEFAULT_SUDOERS, Console
from host_accounts import Account
from installed import DataRoot
from phone import FAILURES, PROMPTS, Phone, typed
from private_host import PrivateHost
from service_stack import joined, password_then_code, shipped, shipped_sshd_config
from sk_keys import (
    PROVIDER,
    TYPES,
    certify,
    fingerprint_of,
    make_plain_key,
    make_sk_key,
    public_half,
)
from ssh_client import SshClient, ssh_login
from sshd_server import Sshd
from terminal_session import LoginResult
from verifier_process import EITHER_VERIFIER, Verifier, set_policy

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of this kind need root")

ALICE = Account("alice-of-tests", "correct horse")
BOB = Account("bob-of-tests", "battery staple")
NAME = ALICE.name
REFUSED = 255
CODE_PROMPT = f"({NAME}@127.0.0.1) Verification code: "
TRUST = "TrustedUserCAKeys /etc/ssh/authority.pub"
NO_PROMPT: tuple[str, ...] = ()
EACH_TYPE = pytest.mark.parametrize("kind", TYPES)
SIGNED = "ssh_key_accepted"
NOT_ENROLLED = "ssh_key_not_enrolled"
CODE = "code_accepted"


@pytest.fixture
def host() -> Iterator[PrivateHost]:
    """A private host with Alice's and Bob's accounts."""
    with PrivateHost([ALICE, BOB]) as started:
        yield started


@pytest.fixture
def sshd(host: PrivateHost, root: DataRoot) -> Iterator[Sshd]:
    """An sshd that asks for a key and a code, by the shipped files."""
    with _server(host, shipped("sshd-key-and-code", root)) as started:
        yield started


@pytest.fixture
def phone(root: DataRoot) -> Phone:
    """Alice's phone, her other device."""
    return Phone(root, NAME)


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """Alice's key, on the security key in her laptop."""
    return make_sk_key(tmp_path / "laptop")


def _server(host: PrivateHost, stack: str, *config: str) -> Sshd:
    """Return sshd under the name by which it is known, with the shipped settings."""
    shipped_config = shipped_sshd_config("key-and-code.conf")
    return Sshd(host, stack, config=[*config, *shipped_config], service="sshd")


def enroll(root: DataRoot, user: str, key: Path) -> None:
    """Enable a key for a user, as an administrator does."""
    path = str(public_half(key))
    root.command("enable", "ssh-key", user, "--public-key", path, "--name", "laptop", "--vouch")


def come(sshd: Sshd, key: Path, *codes: str, options: tuple[str, ...] = ()) -> LoginResult:
    """Come as Alice by this key, typing these codes."""
    client = SshClient(sshd.port, (f"SecurityKeyProvider={PROVIDER}", *options), key)
    return client.login(NAME, typed(*codes))


def what_came(result: LoginResult) -> tuple[bool, tuple[str, ...]]:
    """Return whether somebody is in, and what was asked."""
    return (result.status, result.last_line) == (0, NAME), result.prompts


IN_SILENTLY = (True, NO_PROMPT)
IN_BY_CODE = (True, (CODE_PROMPT,))


@EITHER_VERIFIER
@EACH_TYPE
def test_enrolled_key(
    root: DataRoot, sshd: Sshd, tmp_path: Path, kind: str, verifier: Verifier
) -> None:
    """A login signed by an enrolled key of a security key is asked nothing, and is recorded."""
    key = make_sk_key(tmp_path / "key", kind)
    enroll(root, NAME, key)
    sshd.authorize(NAME, key)
    with verifier(root):
        result = come(sshd, key)
    assert what_came(result) == IN_SILENTLY
    (record,) = root.audit()
    expected = {
        "outcome": "success", "reason": SIGNED, "user": NAME, "service": "sshd", "phase": "auth",
        "rhost": "127.0.0.1", "caller_uid": 0,
    }  # fmt: skip
    assert {name: record.get(name) for name in expected} == expected
    assert (record["device"]["name"], record["device"]["type"]) == ("laptop", "ssh-key")


@pytest.fixture
def authority(host: PrivateHost, tmp_path: Path) -> Path:
    """An authority that signs users' keys; sshd trusts it where ``TRUST`` says so."""
    key = make_plain_key(tmp_path / "authority")
    shutil.copyfile(public_half(key), host.etc / "ssh/authority.pub")
    return key


@EACH_TYPE
def test_certificate(
    root: DataRoot, host: PrivateHost, authority: Path, tmp_path: Path, kind: str
) -> None:
    """A certificate of an enrolled key, by an authority that sshd trusts, is asked nothing."""
    key = make_sk_key(tmp_path / "key", kind)
    enroll(root, NAME, key)
    certify(authority, key, NAME)
    with _server(host, shipped("sshd-key-and-code", root), TRUST) as sshd:
        assert what_came(come(sshd, key)) == IN_SILENTLY
    assert root.reasons() == [SIGNED]


def test_certificate_of_a_key_that_is_not_enrolled(
    root: DataRoot, host: PrivateHost, authority: Path, phone: Phone, laptop: Path
) -> None:
    """No authority can enroll a key: what it has signed needs a code like any other."""
    certify(authority, laptop, NAME)
    with _server(host, shipped("sshd-key-and-code", root), TRUST) as sshd:
        assert what_came(come(sshd, laptop, phone.code())) == IN_BY_CODE
    assert root.reasons() == [NOT_ENROLLED, CODE]


def test_pam_ussh_pr_18_certificate_by_any_authority(
    root: DataRoot, host: PrivateHost, authority: Path, laptop: Path, tmp_path: Path
) -> None:
    """A certificate by an authority that sshd does not trust comes to nothing."""
    del authority
    enroll(root, NAME, laptop)
    certify(make_plain_key(tmp_path / "stranger"), laptop, NAME)
    with _server(host, shipped("sshd-key-and-code", root), TRUST) as sshd:
        assert what_came(come(sshd, laptop)) == (False, NO_PROMPT)
    assert root.reasons() == []


def test_plain_key(root: DataRoot, sshd: Sshd, phone: Phone, laptop: Path, tmp_path: Path) -> None:
    """A key that lives in a file needs a code, also where the user has a security key enrolled."""
    enroll(root, NAME, laptop)
    plain = make_plain_key(tmp_path / "plain")
    sshd.authorize(NAME, plain)
    assert what_came(come(sshd, plain, phone.code())) == IN_BY_CODE
    assert root.reasons() == [CODE]


@EITHER_VERIFIER
def test_key_that_is_not_enrolled(
    root: DataRoot, sshd: Sshd, phone: Phone, laptop: Path, verifier: Verifier
) -> None:
    """A security key that sshd takes and nobody has enrolled needs a code, and is recorded."""
    sshd.authorize(NAME, laptop)
    with verifier(root):
        assert what_came(come(sshd, laptop, phone.code())) == IN_BY_CODE
        wrong = come(sshd, laptop, *[phone.wrong_code()] * PROMPTS)
    assert wrong.status == REFUSED
    assert root.reasons() == [NOT_ENROLLED, CODE, NOT_ENROLLED, *["wrong_code"] * PROMPTS]
    assert root.audit()[0]["detail"] == fingerprint_of(public_half(laptop))


def test_deactivated(root: DataRoot, sshd: Sshd, phone: Phone, laptop: Path) -> None:
    """A key that was deactivated needs a code again."""
    enroll(root, NAME, laptop)
    sshd.authorize(NAME, laptop)
    assert what_came(come(sshd, laptop)) == IN_SILENTLY
    root.command("deactivate", NAME, f"ssh-key/{NAME}/laptop")
    assert what_came(come(sshd, laptop, phone.code())) == IN_BY_CODE
    assert root.reasons() == [SIGNED, NOT_ENROLLED, CODE]


def test_key_enrolled_for_somebody_else(
    root: DataRoot, sshd: Sshd, phone: Phone, laptop: Path, tmp_path: Path
) -> None:
    """Another user's enrolled key lets nobody in without a code, though sshd takes it."""
    enroll(root, NAME, laptop)
    of_bob = make_sk_key(tmp_path / "of-bob")
    enroll(root, BOB.name, of_bob)
    sshd.authorize(NAME, of_bob)
    assert what_came(come(sshd, of_bob, phone.code())) == IN_BY_CODE
    assert root.reasons() == [NOT_ENROLLED, CODE]


def test_locked_user(root: DataRoot, sshd: Sshd, phone: Phone, laptop: Path) -> None:
    """An enrolled key lets nobody in who is locked, until they are unlocked."""
    enroll(root, NAME, laptop)
    phone_only = ssh_key_off(root)
    sshd.authorize(NAME, laptop)
    for _ in range(2):
        come(sshd, laptop, *[phone.wrong_code()] * PROMPTS)
    root.policy.write_text(phone_only)
    locked = come(sshd, laptop, *[phone.code()] * PROMPTS)
    root.command("unlock", NAME)
    assert (locked.status, len(locked.prompts)) == (REFUSED, PROMPTS)
    assert what_came(come(sshd, laptop)) == IN_SILENTLY
    locks = ["locked"] * (2 * PROMPTS - FAILURES + 1 + PROMPTS)
    assert root.reasons() == [*["wrong_code"] * FAILURES, *locks, SIGNED]


def ssh_key_off(root: DataRoot) -> str:
    """Take SSH keys out of the policy; return the policy as it was."""
    before = root.policy.read_text()
    set_policy(root, "devices: [ssh-key, fido,", "devices: [fido,")
    return before


def test_policy_without_ssh_keys(root: DataRoot, sshd: Sshd, phone: Phone, laptop: Path) -> None:
    """Where policy does not name SSH keys, an enrolled one needs a code."""
    enroll(root, NAME, laptop)
    ssh_key_off(root)
    sshd.authorize(NAME, laptop)
    assert what_came(come(sshd, laptop, phone.code())) == IN_BY_CODE
    assert root.reasons() == [CODE]


def test_password_and_key(root: DataRoot, host: PrivateHost, laptop: Path) -> None:
    """Where PAM asks for the password, too, an enrolled key spares the code alone."""
    enroll(root, NAME, laptop)
    with _server(host, password_then_code(root)) as sshd:
        sshd.authorize(NAME, laptop)
        client = SshClient(sshd.port, (f"SecurityKeyProvider={PROVIDER}",), laptop)
        right = client.login(NAME, [("Password: $", ALICE.password)])
        wrong = client.login(NAME, [("Password: $", "battery staple")])
    assert (right.last_line, len(right.prompts)) == (NAME, 1)
    assert (wrong.status, len(wrong.prompts)) == (REFUSED, 1)


def test_joined_password_and_code(
    root: DataRoot, host: PrivateHost, laptop: Path, phone: Phone
) -> None:
    """With forward_pass, whose question is the password's, too, an enrolled key spares nothing."""
    enroll(root, NAME, laptop)
    with _server(host, joined(root)) as sshd:
        sshd.authorize(NAME, laptop)
        client = SshClient(sshd.port, (f"SecurityKeyProvider={PROVIDER}",), laptop)
        answer = f"{ALICE.password}{phone.code()}"
        result = client.login(NAME, [(r"Password and verification code.*: $", answer)])
    assert (result.last_line, len(result.prompts)) == (NAME, 1)
    assert root.reasons() == [CODE]


def test_two_keys(
    root: DataRoot, host: PrivateHost, laptop: Path, tmp_path: Path, phone: Phone
) -> None:
    """Where sshd asks for two keys, one of them enrolled is enough, and none is not."""
    enroll(root, NAME, laptop)
    one, other = (make_plain_key(tmp_path / name) for name in ("one", "other"))
    config = "AuthenticationMethods publickey,publickey,keyboard-interactive:pam"
    with _server(host, shipped("sshd-key-and-code", root), config) as sshd:
        for key in (one, other, laptop):
            sshd.authorize(NAME, key)
        plain_first = (f"IdentityFile={one}",)
        assert what_came(come(sshd, laptop, options=plain_first)) == IN_SILENTLY
        assert what_came(come(sshd, other, phone.code(), options=plain_first)) == IN_BY_CODE
    assert root.reasons() == [SIGNED, CODE]


@pytest.mark.parametrize("by", ["authorized_keys", "certificate"])
def test_signature_without_touch(
    root: DataRoot, host: PrivateHost, authority: Path, tmp_path: Path, by: str
) -> None:
    """By the shipped settings nobody but the administrator can spare the touch.

    Without that one setting, a user's own authorized_keys or a certificate spares it.
    """
    key = make_sk_key(tmp_path / "key", "ed25519-sk", "no-touch-required")
    enroll(root, NAME, key)
    if by == "certificate":
        certify(authority, key, NAME, "no-touch-required")
    stack = shipped("sshd-key-and-code", root)
    strict = [TRUST, *shipped_sshd_config("key-and-code.conf")]
    lenient = [line for line in strict if line != "PubkeyAuthOptions touch-required"]
    came = []
    for config in (strict, lenient):
        with Sshd(host, stack, config=config, service="sshd") as sshd:
            if by == "authorized_keys":
                sshd.authorize(NAME, key, options="no-touch-required")
            came.append(what_came(come(sshd, key)))
    assert came == [(False, NO_PROMPT), IN_SILENTLY]
    assert root.reasons() == [SIGNED]


def test_report_only(root: DataRoot, sshd: Sshd, phone: Phone, laptop: Path) -> None:
    """In report-only mode an enrolled key is asked nothing, another lets in after any answer."""
    set_policy(root, "mode: enforce", "mode: report-only")
    sshd.authorize(NAME, laptop)
    wrong = come(sshd, laptop, *[phone.wrong_code()] * PROMPTS)
    enroll(root, NAME, laptop)
    assert (wrong.last_line, what_came(come(sshd, laptop))) == (NAME, IN_SILENTLY)
    assert root.reasons() == [NOT_ENROLLED, *["wrong_code"] * PROMPTS, SIGNED]


def plant(host: PrivateHost, key: Path) -> str:
    """Have Alice write into her home what sshd would write of this key; return its value."""
    kind, blob, _ = public_half(key).read_text().split()
    value = f"publickey {kind} {blob}"
    for name, text in {
        ".pam_environment": f'PLANTED DEFAULT=yes\nSSH_AUTH_INFO_0 DEFAULT="{value}"\n',
        ".ssh/environment": f"SSH_AUTH_INFO_0={value}\n",
    }.items():
        path = host.home(NAME) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        host.run(["chown", "-R", NAME, path.parent])
    return value


def test_planted_variable(
    root: DataRoot, host: PrivateHost, phone: Phone, laptop: Path, tmp_path: Path
) -> None:
    """What a user writes into the environment, in whatever way, is no signature.

    pam_env reads the user's file when the session begins, and not while PAM authenticates.
    """
    enroll(root, NAME, laptop)
    value = plant(host, laptop)
    plain = make_plain_key(tmp_path / "plain")
    stack = f"auth required pam_env.so user_readenv=1\n{shipped('sshd-key-and-code', root)}"
    config = ("AcceptEnv SSH_*", "PermitUserEnvironment yes")
    options = (f'SetEnv="SSH_AUTH_INFO_0={value}"', "SendEnv=SSH_AUTH_INFO_0")
    with _server(host, stack, *config) as sshd:
        sshd.authorize(NAME, plain, options=f'environment="SSH_AUTH_INFO_0={value}"')
        client = SshClient(sshd.port, options, plain, {"SSH_AUTH_INFO_0": value})
        result = client.login(NAME, typed(phone.code()), command="env")
    lines = result.output.splitlines()
    assert (result.status, result.prompts) == (0, (CODE_PROMPT,))
    assert {"PLANTED=yes", f"SSH_AUTH_INFO_0={value}"} <= set(lines)  # it came to the session
    assert root.reasons() == [CODE]


def test_planted_variable_under_sudo(
    root: DataRoot, host: PrivateHost, phone: Phone, laptop: Path
) -> None:
    """Under sudo nothing that the user has in the environment or at home is a signature."""
    enroll(root, NAME, laptop)
    value = plant(host, laptop)
    stack = f"auth required pam_env.so user_readenv=1\n{password_then_code(root)}"
    keep = f'Defaults env_keep += "SSH_AUTH_INFO_0"\n{DEFAULT_SUDOERS}'
    console = Console(host, sudo=stack, sudoers=keep)
    host.environment["SSH_AUTH_INFO_0"] = value
    password = ("password for .*: $", ALICE.password)
    result = console.sudo(NAME, [password, *typed(phone.code())])
    assert (result.last_line, len(result.prompts)) == ("root", 2)
    assert root.reasons() == [CODE]


def test_other_service(root: DataRoot, host: PrivateHost, phone: Phone, laptop: Path) -> None:
    """A program that is not known as sshd is not believed about signatures."""
    enroll(root, NAME, laptop)
    config = shipped_sshd_config("key-and-code.conf")
    with Sshd(host, shipped("sshd-key-and-code", root), config=config) as other:
        other.authorize(NAME, laptop)
        assert what_came(come(other, laptop, phone.code())) == IN_BY_CODE
    assert root.reasons() == [CODE]


def test_without_key(root: DataRoot, sshd: Sshd, phone: Phone, laptop: Path) -> None:
    """Where key and code are required, nobody comes as far as PAM without the key."""
    enroll(root, NAME, laptop)
    result = ssh_login(sshd.port, NAME, typed(phone.code()))
    assert (result.status, result.prompts, root.reasons()) == (REFUSED, (), [])
