# SPDX-License-Identifier: Apache-2.0
"""Attestation files of SSH keys: what a security key of software says of a key that it made.

Laid out as OpenSSH's PROTOCOL.u2f has it; ssh-keygen itself writes the one of sk-dummy.
"""

import datetime
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result
from doubles import START, make_layout
from fido2 import cbor
from fido2.webauthn import AttestationObject
from hypothesis import given
from hypothesis import strategies as st
from metadata_service import CERTIFIED, Service, describe_model
from ports import MODEL, KeyHost, Ports
from security_key.faults import Fault
from security_key.injected import InjectedKey
from security_key.key import SecurityKey
from security_key.model import U2F_ONLY, AttestationKind
from security_key.model import Model as KeyModel
from sk_keys import TYPES, make_sk_key, public_half
from ssh_key_bench import KEY, LINE

from pam_mfa.cli.__main__ import commands
from pam_mfa.cli.session import Session
from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.factors.attestation import Models
from pam_mfa.factors.metadata import Metadata, parse_metadata
from pam_mfa.factors.security_key import UnprovenError
from pam_mfa.factors.ssh_attestation import Evidence, verify_ssh_attestation
from pam_mfa.lifecycle import KeyRefusedError, SshKeyWish
from pam_mfa.policy import Fido
from pam_mfa.ssh_attestation import SshAttestation, parse_attestation
from pam_mfa.ssh_keys import ECDSA, ED25519, SshKey, format_key, parse_key
from pam_mfa.ssh_wire import SshFormatError, pack_strings

ANY = Models()
OTHER_MODEL = "00000000-0000-4000-8000-000000000001"
CHALLENGE = b"a challenge of the administrator's\n"
VERSION = b"ssh-sk-attest-v01"
KINDS = {"ed25519-sk": KeyModel(algorithms=(-8,)), "ecdsa-sk": KeyModel(algorithms=(-7,))}


class Made(NamedTuple):
    """An SSH key, and what its maker says of it."""

    key: SshKey
    certificate: bytes
    signature: bytes
    authenticator_data: bytes

    def evidence(self, challenge: bytes = CHALLENGE, **parts: bytes) -> Evidence:
        """Return the two files, with parts of a test's own."""
        return Evidence(file_of(self._replace(**parts)), challenge)  # type: ignore[arg-type]


def file_of(made: Made) -> bytes:
    """Return an attestation file's bytes."""
    data = made.authenticator_data
    wrapped = cbor.encode(data) if data else b""
    return pack_strings(VERSION, made.certificate, made.signature, wrapped) + bytes(8)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyHost]:
    """A host with ports and an empty store, which the command line acts on."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    ports = Ports(monkeypatch)
    host = KeyHost(make_layout(tmp_path / "root"), ports)
    monkeypatch.setattr(Session, "lifecycle", property(lambda _: host.lifecycle))
    monkeypatch.setattr(Session, "is_own", property(lambda _: False))
    yield host
    host.store.close()
    ports.close()


def make(
    host: KeyHost,
    injected: InjectedKey,
    hashed: bytes = hashlib.sha256(CHALLENGE).digest(),
    application: str = "ssh:",
) -> Made:
    """Have a security key make an SSH key, as ssh-keygen has it asked."""
    pending = host.lifecycle.begin_fido("maker")
    made = host.register(
        injected, pending, client_data_hash=hashed, rp_id=application, algorithms=(-7, -8)
    )
    attested = AttestationObject(made.attestation_object)
    data = attested.auth_data.credential_data
    assert data is not None
    public: Any = data.public_key
    is_ecdsa = public[3] == -7
    point = b"\4" + public[-2] + public[-3] if is_ecdsa else public[-2]
    certificates: Any = attested.att_stmt.get("x5c", [b""])
    return Made(
        SshKey(ECDSA if is_ecdsa else ED25519, point, application),
        certificates[0],
        attested.att_stmt.get("sig", b""),
        bytes(attested.auth_data),
    )


def refusal(made: Made, evidence: Evidence, models: Models = ANY) -> str:
    """Return why an attestation proves nothing."""
    with pytest.raises(UnprovenError) as caught:
        verify_ssh_attestation(made.key, evidence, models)
    return str(caught.value)


@pytest.mark.parametrize("kind", TYPES)
def test_good(host: KeyHost, kind: str) -> None:
    """A file of a model that policy lists, under a root that it names, is accepted."""
    injected = host.ports.plug(KINDS[kind])
    made = make(host, injected)
    models = Models(aaguids=(MODEL,), roots=(injected.key.memory.attestation.root,))
    assert (MODEL, "packed, certificate") == verify_ssh_attestation(
        made.key, made.evidence(), models
    )


def test_good_by_u2f(host: KeyHost) -> None:
    """A U2F key's file is accepted: its certificate names the model, the rest does not."""
    injected = host.ports.plug(U2F_ONLY)
    made = make(host, injected)
    models = Models(aaguids=(MODEL,), roots=(injected.key.memory.attestation.root,))
    assert ("", "fido-u2f, certificate") == verify_ssh_attestation(
        made.key, made.evidence(), models
    )


def test_good_by_itself(host: KeyHost) -> None:
    """A key that attests itself is accepted where policy asks for no model, and only there."""
    made = make(host, host.ports.plug(KeyModel(attestation=AttestationKind.SELF)))
    attested = verify_ssh_attestation(made.key, made.evidence(), ANY)
    assert (MODEL, "packed, by itself") == attested
    for models in (Models(aaguids=(MODEL,)), Models(roots=(b"root",))):
        assert "does not prove which model" in refusal(made, made.evidence(), models)


def test_challenge_as_its_own_hash(host: KeyHost) -> None:
    """A challenge of 32 bytes is also taken as OpenSSH 8.2 to 8.8 did: signed as it is."""
    challenge = bytes(range(32))
    made = make(host, host.ports.plug(), hashed=challenge)
    assert MODEL == verify_ssh_attestation(made.key, made.evidence(challenge), ANY).aaguid


def test_data_without_its_wrapping(host: KeyHost) -> None:
    """Authenticator data that are not wrapped in CBOR are read, too."""
    made = make(host, host.ports.plug())
    data = pack_strings(VERSION, made.certificate, made.signature, made.authenticator_data)
    attested = verify_ssh_attestation(made.key, Evidence(data + bytes(8), CHALLENGE), ANY)
    assert MODEL == attested.aaguid


def test_application(host: KeyHost) -> None:
    """A key for an application of its own is attested for that one alone."""
    made = make(host, host.ports.plug(), application="ssh:laptop")
    assert MODEL == verify_ssh_attestation(made.key, made.evidence(), ANY).aaguid
    other = made._replace(key=made.key._replace(application="ssh:"))
    assert "another application" in refusal(other, made.evidence())


@pytest.mark.parametrize("challenge", [CHALLENGE[:-1], CHALLENGE + b"\n", bytes(32)])
def test_other_challenge(host: KeyHost, challenge: bytes) -> None:
    """A file that was made for another challenge is refused."""
    made = make(host, host.ports.plug())
    assert "made for another challenge" in refusal(made, made.evidence(challenge))


@pytest.mark.parametrize("challenge", [b"", bytes(1025)])
def test_no_challenge(host: KeyHost, challenge: bytes) -> None:
    """Without the challenge nothing can be checked."""
    made = make(host, host.ports.plug())
    assert "missing, or too long" in refusal(made, made.evidence(challenge))


@pytest.mark.parametrize("kind", TYPES)
def test_attestation_of_another_key(host: KeyHost, kind: str) -> None:
    """A good file is refused with a key of software that its owner would rather use."""
    made = make(host, host.ports.plug(KINDS[kind]))
    size = len(made.key.point) - 1
    forged = made._replace(key=made.key._replace(point=made.key.point[:1] + bytes(size)))
    assert "is another key's" in refusal(forged, made.evidence())
    other_type = made._replace(key=KEY if kind == "ecdsa-sk" else make(host, _es256(host)).key)
    assert "is another key's" in refusal(other_type, made.evidence())


def _es256(host: KeyHost) -> InjectedKey:
    return host.ports.plug(KINDS["ecdsa-sk"])


def test_certificate_of_another_maker(host: KeyHost) -> None:
    """A certificate that did not sign is refused, however good it is."""
    made = make(host, host.ports.plug())
    other = SecurityKey().memory.attestation
    assert "is wrong" in refusal(made, made.evidence(certificate=other.certificate))


def test_unlisted_model(host: KeyHost) -> None:
    """A model that policy does not list is refused by its name."""
    made = make(host, host.ports.plug())
    sentence = refusal(made, made.evidence(), Models(aaguids=(OTHER_MODEL,)))
    assert f"policy does not list its model, {MODEL}" == sentence


def test_other_root(host: KeyHost) -> None:
    """A maker of the very same name, whose root policy does not name, is refused."""
    made = make(host, host.ports.plug())
    models = Models(roots=(SecurityKey().memory.attestation.root,))
    assert "none of the roots" in refusal(made, made.evidence(), models)


def test_metadata(host: KeyHost) -> None:
    """Policy's metadata of the FIDO Alliance judges a file as it judges a registration."""
    service, injected = Service(START), host.ports.plug()
    made, root = make(host, injected), injected.key.memory.attestation.root
    for reports, word in ((CERTIFIED, ""), (({"status": "REVOKED", "effectiveDate": "2020-01-01"},),
                                            "REVOKED")):  # fmt: skip
        blob = service.sign(describe_model(root, aaguid=MODEL, reports=reports))
        models = Models(metadata=_read_metadata(service, blob))
        if word:
            assert word in refusal(made, made.evidence(), models)
        else:
            assert MODEL == verify_ssh_attestation(made.key, made.evidence(), models).aaguid


def _read_metadata(service: Service, blob: bytes) -> Metadata:
    now = datetime.datetime.fromtimestamp(START, datetime.UTC)
    return parse_metadata(blob, "mds.jwt", service.root, now)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.NO_USER_PRESENCE, "nobody touched"),
        (Fault.WRONG_RP_ID_HASH, "another application"),
        (Fault.BAD_SIGNATURE, "is wrong"),
        (Fault.WRONG_AAGUID, "is wrong"),
    ],
)
def test_lies(host: KeyHost, fault: Fault, reason: str) -> None:
    """Each lie in a file is refused for itself."""
    injected = host.ports.plug()
    injected.faults.switch_on(fault)
    made = make(host, injected)
    assert reason in refusal(made, made.evidence())


def test_model_that_u2f_does_not_sign(host: KeyHost) -> None:
    """A model written into a U2F key's file is nobody's word: it is not signed."""
    made = make(host, host.ports.plug(U2F_ONLY))
    data = made.authenticator_data
    changed = data[:37] + bytes.fromhex(OTHER_MODEL.replace("-", "")) + data[53:]
    assert "is wrong" in refusal(made, made.evidence(authenticator_data=changed))


@pytest.mark.parametrize("kind", TYPES)
def test_key_of_sk_dummy(tmp_path: Path, kind: str) -> None:
    """The file that ssh-keygen writes for a provider that attests nothing proves nothing."""
    (tmp_path / "challenge").write_bytes(CHALLENGE)
    options = (f"challenge={tmp_path / 'challenge'}", f"write-attestation={tmp_path / 'file'}")
    key = make_sk_key(tmp_path / "key", kind, *options)
    data = (tmp_path / "file").read_bytes()
    assert SshAttestation(b"", b"", b"") == parse_attestation(data)
    with pytest.raises(UnprovenError, match="attests nothing"):
        verify_ssh_attestation(
            parse_key(public_half(key).read_text()), Evidence(data, CHALLENGE), ANY
        )


GOOD_FILE = pack_strings(VERSION, b"certificate", b"signature", b"data") + bytes(8)


def test_file() -> None:
    """A file's three parts are read."""
    assert (b"certificate", b"signature", b"data") == parse_attestation(GOOD_FILE)


@pytest.mark.parametrize("size", range(len(GOOD_FILE)))
def test_cut_anywhere(size: int) -> None:
    """A file that is cut is none."""
    with pytest.raises(SshFormatError):
        parse_attestation(GOOD_FILE[:size])


@pytest.mark.parametrize(
    "data",
    [
        GOOD_FILE + b"\0",
        GOOD_FILE.replace(b"v01", b"v00"),
        b"\xff\xff\xff\xff" + GOOD_FILE,
        pack_strings(VERSION) + b"\x40\0\0\0" + bytes(100),
        pack_strings(VERSION, bytes(9000), b"", b"") + bytes(8),
    ],
    ids=["more", "version", "4 GB", "1 GB", "long"],
)
def test_no_file(data: bytes) -> None:
    """What has bytes behind its end, another version, or an impossible length is refused."""
    with pytest.raises(SshFormatError):
        parse_attestation(data)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """No bytes whatever do anything but prove nothing."""
    with pytest.raises(UnprovenError):
        verify_ssh_attestation(KEY, Evidence(data, CHALLENGE), ANY)


@given(st.binary(max_size=200), st.binary(max_size=80), st.binary(max_size=200))
def test_any_parts(certificate: bytes, signature: bytes, data: bytes) -> None:
    """Nor do any parts of a file that is whole."""
    head = hashlib.sha256(b"ssh:").digest() + b"\x41" + bytes(4)
    for each in (data, head + data):
        made = Made(KEY, certificate, signature, each)
        with pytest.raises(UnprovenError):
            verify_ssh_attestation(KEY, Evidence(file_of(made), CHALLENGE), ANY)


def fido_of(tmp_path: Path, injected: InjectedKey, *models: str) -> Fido:
    """Return policy's part that names models and the maker's root."""
    path = tmp_path / "roots.der"
    path.write_bytes(injected.key.memory.attestation.root)
    path.chmod(0o644)
    return Fido(aaguids=models, roots=str(path))


def test_lifecycle(host: KeyHost, tmp_path: Path) -> None:
    """Where policy asks for a model, the file lets the key in, and the record says which it is."""
    injected = host.ports.plug()
    made, fido = make(host, injected), fido_of(tmp_path, injected, MODEL)
    wish = SshKeyWish("laptop", fido, made.evidence())
    host.lifecycle.vouch_for_ssh_key(
        host.lifecycle.begin_ssh_key("alice", format_key(made.key), wish)
    )
    detail = host.records()[-1]["detail"]
    assert f"vouched for, no signature; attestation: packed, certificate; model: {MODEL}" in detail


def test_policy_asks_and_nothing_is_shown(host: KeyHost, tmp_path: Path) -> None:
    """Where policy asks for a model, a key without a file is refused, vouched for or not."""
    fido = fido_of(tmp_path, host.ports.plug(), MODEL)
    with pytest.raises(RefusedError, match="no attestation was shown"):
        host.lifecycle.begin_ssh_key("alice", LINE, SshKeyWish(fido=fido))


def test_refused_model_is_recorded(host: KeyHost, tmp_path: Path) -> None:
    """A model that policy does not allow is refused, and recorded with its name."""
    injected = host.ports.plug()
    made, fido = make(host, injected), fido_of(tmp_path, injected, OTHER_MODEL)
    with pytest.raises(KeyRefusedError, match="does not list its model") as caught:
        host.lifecycle.begin_ssh_key(
            "alice", format_key(made.key), SshKeyWish("", fido, made.evidence())
        )
    assert "fido: attestation" in caught.value.hint
    record = host.records()[-1]
    assert ("denied", "unproven_registration") == (record["outcome"], record["reason"])
    assert MODEL in record["detail"]


def test_wrong_file_is_refused_though_nobody_asked(host: KeyHost) -> None:
    """A file that is brought must be good, also where policy asks for none."""
    made = make(host, host.ports.plug())
    wish = SshKeyWish(evidence=made.evidence(b"other"))
    with pytest.raises(KeyRefusedError, match="another challenge") as caught:
        host.lifecycle.begin_ssh_key("alice", format_key(made.key), wish)
    assert "leave --attestation out" in caught.value.hint


def test_roots_that_are_missing(host: KeyHost) -> None:
    """A file that policy names and nobody put there is a broken system, and not skipped."""
    with pytest.raises(BrokenSystemError, match="there is no /nonexistent"):
        host.lifecycle.begin_ssh_key("alice", LINE, SshKeyWish(fido=Fido(roots="/nonexistent")))


def enable(host: KeyHost, *words: str) -> Result:
    """Run the command for Alice, her key on standard input."""
    arguments = ["--root", str(host.layout.root), "enable", "ssh-key", "alice", "--vouch", *words]
    return CliRunner().invoke(commands, arguments)


def test_command(host: KeyHost, tmp_path: Path) -> None:
    """The command takes both files, and asks for them where policy does."""
    made = make(host, host.ports.plug())
    host.layout.policy.write_text(
        f"version: 1\nfido: {{attestation: {{aaguids: [{json.dumps(MODEL)}]}}}}\n"
    )
    host.layout.policy.chmod(0o644)
    (tmp_path / "key.pub").write_text(f"{format_key(made.key)} laptop\n")
    evidence = made.evidence()
    (tmp_path / "attestation").write_bytes(evidence.attestation)
    (tmp_path / "challenge").write_bytes(evidence.challenge)
    words = ("--public-key", str(tmp_path / "key.pub"))
    refused = enable(host, *words)
    assert isinstance(refused.exception, RefusedError)
    assert "write-attestation" in refused.exception.hint
    files = ("--attestation", str(tmp_path / "attestation"))
    done = enable(host, *words, *files, "--challenge", str(tmp_path / "challenge"))
    assert 0 == done.exit_code
    assert MODEL in host.records()[-1]["detail"]


@pytest.mark.parametrize("size", [8193, 100000])
def test_command_with_a_long_file(host: KeyHost, tmp_path: Path, size: int) -> None:
    """A file of any length is refused without being read whole."""
    (tmp_path / "key.pub").write_text(LINE)
    with (tmp_path / "file").open("wb") as file:
        file.truncate(size)
    words = ("--public-key", str(tmp_path / "key.pub"), "--challenge", "/etc/hostname")
    refused = enable(host, *words, "--attestation", str(tmp_path / "file"))
    assert "it is too long" in str(refused.exception)
