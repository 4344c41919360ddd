# SPDX-License-Identifier: Apache-2.0
"""Proof that an SSH key is at hand: OpenSSH's own signatures, good and bad ones."""

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from doubles import make_layout
from sk_keys import (
    PATIENCE,
    TYPES,
    certify,
    fingerprint_of,
    make_plain_key,
    make_sk_key,
    public_half,
)
from sk_signing import sign
from ssh_key_bench import KEY, LINE, Host, invoke, make_host

from pam_mfa.cli import ssh_keys
from pam_mfa.errors import RefusedError
from pam_mfa.lifecycle import DevicesChangedError, KeyRefusedError, PendingSshKey, SshKeyWish
from pam_mfa.ssh_key_enabling import CHALLENGE_SECONDS
from pam_mfa.ssh_keys import ECDSA, format_key
from pam_mfa.ssh_possession import BEGIN, format_armored, namespace_of
from pam_mfa.sshsig import parse_armored, verify_armored

HOST = os.uname().nodename
ENABLE = ("enable", "ssh-key", "alice", "--public-key")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host where nobody is enrolled, which the command line acts on."""
    host = make_host(tmp_path, monkeypatch)
    yield host
    host.store.close()


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """Alice's key."""
    return make_sk_key(tmp_path / "laptop")


def begin(host: Host, key: Path, user: str = "alice", name: str = "") -> PendingSshKey:
    """Begin to enable a key."""
    return host.lifecycle.begin_ssh_key(user, public_half(key).read_text(), SshKeyWish(name))


def prove(pending: PendingSshKey, key: Path, end: str = "\n") -> str:
    """Have a key sign what is asked for."""
    return sign(key, pending.namespace, pending.challenge + end)


def refusal(host: Host, pending: PendingSshKey, signature: str) -> str:
    """Return why a proof is refused; that enables nothing, and is recorded."""
    before = host.lifecycle.list_devices(pending.user)
    with pytest.raises(KeyRefusedError) as caught:
        host.lifecycle.enable_proven_ssh_key(pending, signature)
    assert before == host.lifecycle.list_devices(pending.user)
    record = host.records()[-1]
    assert ("denied", "unproven_registration", pending.user) == (
        record["outcome"], record["reason"], record["user"],
    )  # fmt: skip
    assert record["detail"] in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_proven(host: Host, tmp_path: Path, kind: str, end: str) -> None:
    """A signature of ssh-keygen over the challenge enables the key, whatever ends its line."""
    key = make_sk_key(tmp_path / "key", kind)
    pending = begin(host, key)
    device = host.lifecycle.enable_proven_ssh_key(pending, prove(pending, key, end))
    assert (device,) == host.lifecycle.list_devices("alice")
    (record,) = host.records()
    detail = f"proven by a signature; {fingerprint_of(public_half(key))}"
    assert ("success", detail) == (record["outcome"], record["detail"])
    status = host.lifecycle.device_statuses("alice")[0]
    assert (None, 0) == (status.last_used_at, status.drift)


def test_counter_is_noted(host: Host, laptop: Path) -> None:
    """The key's counter is noted for later, and forgotten with the key."""
    pending = begin(host, laptop)
    text = prove(pending, laptop)
    counter = verify_armored(
        parse_armored(text), pending.namespace, f"{pending.challenge}\n".encode()
    ).counter
    serial_number = host.lifecycle.enable_proven_ssh_key(pending, text).serial_number
    assert counter == host.store.read_devices([serial_number])[serial_number].step
    assert counter == host.records()[-1]["sign_count"]
    host.lifecycle.deactivate("alice", serial_number, leave_none=True)
    assert {} == host.store.read_devices([serial_number])


def test_vouched(host: Host) -> None:
    """A key that an administrator vouches for is enabled, and the record says so."""
    host.lifecycle.vouch_for_ssh_key(host.lifecycle.begin_ssh_key("alice", LINE))
    (record,) = host.records()
    assert record["detail"].startswith("vouched for, no signature; SHA256:")


def test_certificate(host: Host, laptop: Path, tmp_path: Path) -> None:
    """A key is enabled by its certificate's text, and proven by the key itself."""
    certificate = certify(make_plain_key(tmp_path / "authority"), laptop, "alice")
    pending = host.lifecycle.begin_ssh_key("alice", certificate.read_text())
    host.lifecycle.enable_proven_ssh_key(pending, prove(pending, laptop))
    assert 1 == len(host.lifecycle.list_devices("alice"))


def test_challenge_names_what_it_is_for(host: Host, laptop: Path) -> None:
    """What is signed says host, user and key, and its namespace is of this purpose and host."""
    pending = begin(host, laptop)
    for part in (HOST, "alice", fingerprint_of(public_half(laptop))):
        assert part in pending.challenge
    assert f"pam-mfa-enable@{HOST}" == pending.namespace
    assert 32 == len(pending.challenge.rpartition(" ")[2])


def test_replayed(host: Host, laptop: Path) -> None:
    """A signature is good once: it brings no key back that was taken away."""
    pending = begin(host, laptop)
    signature = prove(pending, laptop)
    device = host.lifecycle.enable_proven_ssh_key(pending, signature)
    host.lifecycle.deactivate("alice", device.serial_number, leave_none=True)
    again = begin(host, laptop)
    assert pending.challenge != again.challenge
    assert "not over a challenge that is good now" in refusal(host, again, signature)
    host.lifecycle.enable_proven_ssh_key(again, prove(again, laptop))


def test_used_meanwhile(host: Host, laptop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two who bring the same signature at once, one comes through."""
    pending = begin(host, laptop)
    signature = prove(pending, laptop)
    run = host.lifecycle._enable  # noqa: SLF001 - the moment between judging and using

    def enable_first(*arguments: object) -> object:
        monkeypatch.setattr(host.lifecycle, "_enable", run)
        device = host.lifecycle.enable_proven_ssh_key(pending, signature)
        host.lifecycle.deactivate("alice", device.serial_number, leave_none=True)
        return run(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(host.lifecycle, "_enable", enable_first)
    with pytest.raises(RefusedError, match="used meanwhile"):
        host.lifecycle.enable_proven_ssh_key(pending, signature)
    assert () == host.lifecycle.list_devices("alice")


@pytest.mark.parametrize("seconds", [CHALLENGE_SECONDS - 6, CHALLENGE_SECONDS])
def test_in_time(host: Host, laptop: Path, seconds: float) -> None:
    """A challenge is good for five minutes at least."""
    host.clock.now = CHALLENGE_SECONDS * 1000.0 + 5
    pending = begin(host, laptop)
    signature = prove(pending, laptop)
    host.clock.now += seconds
    assert host.lifecycle.enable_proven_ssh_key(pending, signature)


@pytest.mark.parametrize("seconds", [2 * CHALLENGE_SECONDS, 86400, -CHALLENGE_SECONDS - 1])
def test_expired(host: Host, laptop: Path, seconds: float) -> None:
    """A challenge is good for ten minutes at most, and not before it was made."""
    pending = begin(host, laptop)
    signature = prove(pending, laptop)
    host.clock.now += seconds
    assert "too old" in refusal(host, pending, signature)


def test_signed_by_another_key(host: Host, laptop: Path, tmp_path: Path) -> None:
    """Another key's signature over this key's challenge enables neither."""
    other = make_sk_key(tmp_path / "other")
    pending = begin(host, laptop)
    assert "signed by another key" in refusal(host, pending, prove(pending, other))


def test_text_that_names_the_key(host: Host, laptop: Path, tmp_path: Path) -> None:
    """A text that names the right key around another key's signature proves nothing."""
    other = make_sk_key(tmp_path / "other")
    pending = begin(host, laptop)
    armored = parse_armored(prove(pending, other))
    forged = format_armored(pending.key, pending.namespace, armored.signature)
    assert "not over a challenge" in refusal(host, pending, forged)


def test_other_namespace(host: Host, laptop: Path) -> None:
    """A signature for another purpose, or for another host, enables no key here."""
    pending = begin(host, laptop)
    for namespace in ("file", f"pam-mfa@{HOST}", namespace_of("elsewhere")):
        signature = sign(laptop, namespace, pending.challenge + "\n")
        assert "another purpose or host" in refusal(host, pending, signature)


def test_other_user(host: Host, laptop: Path) -> None:
    """What was signed for one user enables the key for no other."""
    signature = prove(begin(host, laptop, "mallory"), laptop)
    assert "another user's" in refusal(host, begin(host, laptop, "root"), signature)


def test_other_host(host: Host, laptop: Path, tmp_path: Path) -> None:
    """What another host's challenge was signed for is good for nothing here, of whatever name."""
    other = Host(make_layout(tmp_path / "other"))
    signature = prove(begin(other, laptop), laptop)
    other.store.close()
    assert "not over a challenge" in refusal(host, begin(host, laptop), signature)


def test_untouched(host: Host, tmp_path: Path) -> None:
    """A signature that nobody touched the key for shows nothing of who is there."""
    key = make_sk_key(tmp_path / "key", "ed25519-sk", "no-touch-required")
    pending = begin(host, key)
    assert "nobody touched" in refusal(host, pending, prove(pending, key))


@pytest.mark.parametrize(
    "text",
    ["", "vouch", "A" * 10000, "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n",
     "-----BEGIN SSH SIGNATURE-----\n\u00e4AAA\n-----END SSH SIGNATURE-----\n",
     "-----BEGIN SSH SIGNATURE-----\n\x1b[2J\n-----END SSH SIGNATURE-----\n"],
)  # fmt: skip
def test_no_signature(host: Host, laptop: Path, text: str) -> None:
    """What is no signature's text proves nothing, and nothing of it is shown."""
    assert "\x1b" not in refusal(host, begin(host, laptop), text)


def test_every_byte_counts(host: Host, laptop: Path) -> None:
    """A signature with one character changed proves nothing, or is the same one still."""
    pending = begin(host, laptop)
    lines = prove(pending, laptop).splitlines()
    for line in range(1, len(lines) - 1):
        other = "B" if lines[line][20] == "A" else "A"
        changed = [*lines]
        changed[line] = f"{lines[line][:20]}{other}{lines[line][21:]}"
        assert refusal(host, pending, "\n".join(changed))


def test_armor(host: Host, laptop: Path) -> None:
    """The text that is made of an agent's signature is ssh-keygen's own, byte for byte."""
    pending = begin(host, laptop)
    text = prove(pending, laptop)
    assert text == format_armored(pending.key, pending.namespace, parse_armored(text).signature)


def test_devices_changed(host: Host, laptop: Path) -> None:
    """A proof that was begun beside other devices is refused."""
    pending = begin(host, laptop)._replace(beside=frozenset(("virtual/alice/phone",)))
    with pytest.raises(DevicesChangedError):
        host.lifecycle.enable_proven_ssh_key(pending, prove(pending, laptop))


def test_taken_meanwhile(host: Host, laptop: Path) -> None:
    """A key that was enabled by somebody else meanwhile is not enabled twice."""
    pending = begin(host, laptop, name="second")
    host.lifecycle.vouch_for_ssh_key(begin(host, laptop, name="first"))
    with pytest.raises(RefusedError, match="has this key already"):
        host.lifecycle.enable_proven_ssh_key(pending, prove(pending, laptop))


def told(result: Result) -> str:
    """Return a refused command's sentence and hint."""
    assert isinstance(result.exception, RefusedError)
    return f"{result.exception} {result.exception.hint}"


def shown_command(output: str) -> tuple[str, str]:
    """Return the namespace and the challenge of the command that is shown for copying."""
    words = shlex.split(output[output.index("printf") :])
    assert ["printf", "%s\\n", words[2], "|", "ssh-keygen", "-Y", "sign", "-n"] == words[:8]
    return words[8], words[2]


def test_command_without_proof(host: Host, laptop: Path) -> None:
    """A script that brings no proof and does not vouch is refused, and shown what to sign."""
    result = invoke(host, *ENABLE, str(public_half(laptop)))
    assert "nothing proves that SHA256:" in told(result)
    assert "--vouch" in told(result)
    assert () == host.lifecycle.list_devices("alice")
    pending = begin(host, laptop)
    assert (pending.namespace, pending.challenge) == shown_command(result.output)


def test_command_with_signature(host: Host, laptop: Path, tmp_path: Path) -> None:
    """What the command showed, signed, enables the key when it is run again."""
    public_key = str(public_half(laptop))
    namespace, challenge = shown_command(invoke(host, *ENABLE, public_key).output)
    (tmp_path / "signature").write_text(sign(laptop, namespace, f"{challenge}\n"))
    result = invoke(host, *ENABLE, public_key, "--signature", str(tmp_path / "signature"))
    fingerprint = fingerprint_of(public_half(laptop))
    assert (0, f"Enabled ssh-key/alice/ssh-key for alice: {fingerprint}.\n") == (
        result.exit_code, result.output,
    )  # fmt: skip


def test_command_with_signature_on_standard_input(host: Host, laptop: Path) -> None:
    """A hyphen reads the signature from standard input."""
    pending = begin(host, laptop)
    text = prove(pending, laptop)
    words = (*ENABLE, str(public_half(laptop)), "--signature", "-")
    assert 0 == invoke(host, *words, stdin=text).exit_code


def test_file_cannot_vouch(host: Host, laptop: Path) -> None:
    """A signature file that says "vouch" vouches for nothing: users hand such files in."""
    words = (*ENABLE, str(public_half(laptop)), "--signature", "-")
    assert "the signature" in told(invoke(host, *words, stdin="vouch\n"))
    assert () == host.lifecycle.list_devices("alice")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take standard input for a terminal."""

    class Terminal:
        def __init__(self) -> None:
            self.stdin = self

        def isatty(self) -> bool:
            return True

        def readline(self, limit: int) -> str:
            import sys  # noqa: PLC0415 - what CliRunner has put there

            return sys.stdin.readline(limit)

    monkeypatch.setattr(ssh_keys, "sys", Terminal())


@pytest.mark.usefixtures("terminal")
def test_pasted(host: Host, laptop: Path) -> None:
    """On a terminal the signature is pasted, with or without what ssh-keygen says before it."""
    text = prove(begin(host, laptop), laptop)
    said = "Signing data on standard input\nConfirm user presence for key ED25519-SK\n"
    result = invoke(host, *ENABLE, str(public_half(laptop)), stdin=f"{said}{text}more\n")
    assert (0, True) == (result.exit_code, "Paste the signature here" in result.output)
    assert "proven by a signature" in host.records()[-1]["detail"]


@pytest.mark.usefixtures("terminal")
def test_vouched_on_a_terminal(host: Host, laptop: Path) -> None:
    """On a terminal an administrator may type that they vouch, and that is recorded."""
    result = invoke(host, *ENABLE, str(public_half(laptop)), stdin="vouch\n")
    assert 0 == result.exit_code
    assert "vouched for, no signature" in host.records()[-1]["detail"]


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    "typed", ["", "\n", "y\n", "yes\nvouch\n", "VOUCH\n", "x" * 5000, f"{BEGIN}\n", "a\n" * 300]
)
def test_anything_else_on_a_terminal(host: Host, laptop: Path, typed: str) -> None:
    """Nothing but the whole word vouches: neither Enter nor a yes typed without reading."""
    result = invoke(host, *ENABLE, str(public_half(laptop)), stdin=typed)
    assert "nothing was enabled" in told(result)
    assert () == host.lifecycle.list_devices("alice")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--public-key", "-", "--from-agent"),
        ("--public-key", "-", "--vouch", "--signature", "/dev/null"),
        ("--from-agent", "--vouch"),
        ("--public-key", "-", "--signature", "-"),
        ("--public-key", "-", "--fingerprint", "SHA256:x"),
        ("--public-key", "-", "--attestation", "/dev/null"),
        ("--public-key", "-", "--challenge", "/dev/null"),
    ],
    ids=" ".join,
)
def test_wrong_usage(host: Host, words: tuple[str, ...]) -> None:
    """What contradicts itself is wrong usage, and enables nothing."""
    assert 2 == invoke(host, "enable", "ssh-key", "alice", *words, stdin=LINE).exit_code
    assert () == host.lifecycle.list_devices("alice")


def test_plain_key(host: Host, tmp_path: Path) -> None:
    """A key that lives in a file is refused by its name, vouched for or not."""
    key = public_half(make_plain_key(tmp_path / "plain"))
    for more in ((), ("--vouch",)):
        sentence = told(invoke(host, *ENABLE, str(key), *more))
        assert "'ssh-ed25519' is no type of key that lives on a security key" in sentence


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_plain_key_where_policy_says_any(host: Host, tmp_path: Path, kind: str) -> None:
    """With agent_keys: any a key in a file is enabled by its signature, which tells of no touch."""
    host.set_policy("agent_keys: any")
    key = tmp_path / "plain"
    words = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(key)]
    subprocess.run(words, check=True, timeout=PATIENCE)
    namespace, challenge = shown_command(invoke(host, *ENABLE, str(public_half(key))).output)
    words = [*ENABLE, str(public_half(key)), "--signature", "-"]
    assert 0 == invoke(host, *words, stdin=sign(key, namespace, challenge)).exit_code
    record = host.records()[-1]
    assert f"proven by a signature; {fingerprint_of(public_half(key))}" == record["detail"]
    assert "sign_count" not in record


def test_plain_key_has_no_model(host: Host, tmp_path: Path) -> None:
    """Where policy asks for a model, a key in a file has none to show, whatever agent_keys says."""
    host.set_policy(
        "agent_keys: any\nfido: {attestation: {aaguids: [00000000-0000-4000-8000-000000000001]}}"
    )
    key = public_half(make_plain_key(tmp_path / "plain"))
    assert "which model of security key" in told(invoke(host, *ENABLE, str(key), "--vouch"))


def test_users_that_need_quotes(host: Host) -> None:
    """A challenge for a directory's user, with a backslash in it, is shown as a shell takes it."""
    user = "EXAMPLE\\bob smith"
    result = invoke(host, "enable", "ssh-key", user, "--public-key", "-", stdin=LINE)
    assert f" for {user} on " in shown_command(result.output)[1]


def test_point_off_the_curve(host: Host) -> None:
    """A key that is no point of its curve can be given, and nothing proves it."""
    odd = KEY._replace(type=ECDSA, point=b"\4" + bytes(64))
    pending = host.lifecycle.begin_ssh_key("alice", format_key(odd))
    text = format_armored(odd, pending.namespace, bytes(10))
    assert "not over a challenge" in refusal(host, pending, text)
