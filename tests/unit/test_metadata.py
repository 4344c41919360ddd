# SPDX-License-Identifier: Apache-2.0
"""The FIDO Alliance's metadata: who may sign it, and what it says of a key's model."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from doubles import START, make_layout
from metadata_service import CERTIFIED, Service, describe_model
from ports import MODEL, QUICK, KeyHost, Ports
from security_key.injected import InjectedKey
from security_key.key import SecurityKey
from security_key.model import U2F_ONLY, AttestationKind, Model

from pam_mfa.errors import BrokenSystemError, RefusedError
from pam_mfa.factors.attestation import Models, Wanted, verify_registration
from pam_mfa.factors.metadata import (
    Metadata,
    find_pinned_root,
    load_certificates,
    parse_metadata,
)
from pam_mfa.factors.security_key import UnprovenError
from pam_mfa.policy import Fido

NOW = datetime.datetime.fromtimestamp(START, datetime.UTC)
Report = dict[str, Any]


@pytest.fixture(scope="module")
def service() -> Service:
    """A metadata service."""
    return Service(START)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyHost]:
    """A host with ports and an empty store."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    ports = Ports(monkeypatch)
    host = KeyHost(make_layout(tmp_path), ports)
    yield host
    host.store.close()
    ports.close()


def read(service: Service, blob: bytes, root: x509.Certificate | None = None) -> Metadata:
    """Read a file."""
    return parse_metadata(blob, "mds.jwt", root or service.root, NOW)


def judge(host: KeyHost, injected: InjectedKey, metadata: Metadata) -> None:
    """Have a key make a credential and judge what the metadata says of it."""
    pending = host.lifecycle.begin_fido("alice")
    made = host.register(injected, pending)
    models = Models(metadata=metadata)
    wanted = Wanted(pending.creation, must_verify_user=False, models=models)
    verify_registration(made.attestation_object, wanted)


def describe(injected: InjectedKey, *reports: Report) -> dict[str, Any]:
    """Return an entry on a key's model."""
    root = injected.key.memory.attestation.root
    return describe_model(root, aaguid=MODEL, reports=reports or CERTIFIED)


def test_certified(host: KeyHost, service: Service) -> None:
    """A key of a certified model, whose certificate leads to its maker's root, is accepted."""
    injected = host.ports.plug()
    judge(host, injected, read(service, service.sign(describe(injected)) + b"\n"))


def test_certified_u2f_key(host: KeyHost, service: Service) -> None:
    """A U2F key's model is found by its certificate's key."""
    injected = host.ports.plug(U2F_ONLY)
    attestation = injected.key.memory.attestation
    certificate = x509.load_der_x509_certificate(attestation.certificate)
    identifier = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest.hex()
    entry = describe_model(attestation.root, key_identifier=identifier)
    judge(host, injected, read(service, service.sign(entry)))


def test_unknown_model(host: KeyHost, service: Service) -> None:
    """A model that the metadata does not have is refused."""
    with pytest.raises(UnprovenError, match="does not know its model"):
        judge(host, host.ports.plug(), read(service, service.sign()))


def test_claimed_model(host: KeyHost, service: Service) -> None:
    """A key that claims a certified model, with a certificate of its own making, is refused."""
    entry = describe_model(SecurityKey().memory.attestation.root, aaguid=MODEL)
    with pytest.raises(UnprovenError, match="does not know its model"):
        judge(host, host.ports.plug(), read(service, service.sign(entry)))


@pytest.mark.parametrize("kind", [AttestationKind.SELF, AttestationKind.NONE])
def test_no_certificate(host: KeyHost, service: Service, kind: AttestationKind) -> None:
    """A key that only vouches for itself is refused."""
    injected = host.ports.plug(Model(attestation=kind))
    with pytest.raises(UnprovenError, match="does not prove which model"):
        judge(host, injected, read(service, service.sign(describe(injected))))


@pytest.mark.parametrize(
    "statuses",
    [
        (),
        ("NOT_FIDO_CERTIFIED",),
        ("SELF_ASSERTION_SUBMITTED",),
        ("FIPS140_CERTIFIED_L1",),
        ("A_WORD_OF_TOMORROW",),
    ],
)
def test_not_certified(host: KeyHost, service: Service, statuses: tuple[str, ...]) -> None:
    """A model without a certification is refused."""
    injected = host.ports.plug()
    entry = describe(injected) | {"statusReports": [{"status": one} for one in statuses]}
    with pytest.raises(UnprovenError, match="not FIDO Certified"):
        judge(host, injected, read(service, service.sign(entry)))


@pytest.mark.parametrize(
    "status",
    [
        "REVOKED",
        "USER_VERIFICATION_BYPASS",
        "USER_KEY_REMOTE_COMPROMISE",
        "USER_KEY_PHYSICAL_COMPROMISE",
        "ATTESTATION_KEY_COMPROMISE",
    ],
)
def test_bad_news(host: KeyHost, service: Service, status: str) -> None:
    """A certified model that was revoked or broken since is refused by that name."""
    injected = host.ports.plug()
    entry = describe(injected, *CERTIFIED, {"status": status, "effectiveDate": "2021-01-01"})
    with pytest.raises(UnprovenError, match=status):
        judge(host, injected, read(service, service.sign(entry)))


@pytest.mark.parametrize("field", ["certificate", "batchCertificate"])
def test_compromised_batch(host: KeyHost, service: Service, field: str) -> None:
    """Where one batch's certificate was compromised, keys of another batch are accepted."""
    injected = host.ports.plug()
    news: Report = {"status": "ATTESTATION_KEY_COMPROMISE"}
    other = x509.load_der_x509_certificate(SecurityKey().memory.attestation.certificate)
    own = x509.load_der_x509_certificate(injected.key.memory.attestation.certificate)

    def entry(certificate: x509.Certificate) -> dict[str, Any]:
        return describe(injected, *CERTIFIED, news | {field: encode(certificate)})

    judge(host, injected, read(service, service.sign(entry(other))))
    with pytest.raises(UnprovenError, match="ATTESTATION_KEY_COMPROMISE"):
        judge(host, injected, read(service, service.sign(entry(own))))


def encode(certificate: x509.Certificate) -> str:
    """Return a certificate as the metadata has it."""
    pem = certificate.public_bytes(Encoding.PEM).decode()
    return "".join(pem.splitlines()[1:-1])


def test_updates_are_no_bad_news(host: KeyHost, service: Service) -> None:
    """A model that has an update, or is no longer made, is accepted."""
    injected = host.ports.plug()
    entry = describe(injected, *CERTIFIED, {"status": "UPDATE_AVAILABLE"}, {"status": "RETIRED"})
    judge(host, injected, read(service, service.sign(entry)))


def test_tampered(host: KeyHost, service: Service) -> None:
    """A file in which something was changed is refused as a whole."""
    injected = host.ports.plug()
    revoked = service.sign(describe(injected, *CERTIFIED, {"status": "REVOKED"}))
    good = service.sign(describe(injected))
    head, _, signature = revoked.split(b".")
    with pytest.raises(BrokenSystemError, match="its signature is wrong"):
        read(service, b".".join((head, good.split(b".")[1], signature)))


def test_signed_for_another_name() -> None:
    """A file signed by somebody else's certificate under the same root is refused."""
    other = Service(START, name="www.example.com")
    with pytest.raises(BrokenSystemError, match=r"not signed by mds\.fidoalliance\.org"):
        read(other, other.sign())


def test_signed_under_another_root(service: Service) -> None:
    """A file whose certificates lead to another root is refused."""
    with pytest.raises(BrokenSystemError, match="not signed by"):
        read(service, service.sign(), Service(START).root)


def test_signed_by_the_wrong_key(service: Service) -> None:
    """The signer's certificate with a signature of another key is refused."""
    other = Service(START)
    other.signer, other.authority = service.signer, service.authority
    with pytest.raises(BrokenSystemError, match="its signature is wrong"):
        read(service, other.sign())


def test_authority_is_no_server(service: Service) -> None:
    """A chain that begins with an authority is refused."""
    chain = [encode(service.authority)]
    with pytest.raises(BrokenSystemError, match="not signed by"):
        read(service, service.sign(x5c=chain))


@pytest.mark.parametrize("header", [{"x5c": []}, {"x5c": None}, {"x5c": ["x"]}, {"alg": "none"}])
def test_bad_header(service: Service, header: dict[str, Any]) -> None:
    """A header without certificates, or with an algorithm that is none, is refused."""
    with pytest.raises(BrokenSystemError):
        read(service, service.sign(**header))


def test_expired_signer(service: Service) -> None:
    """A file whose signer's certificate is over is refused."""
    later = NOW + datetime.timedelta(days=90)
    with pytest.raises(BrokenSystemError, match="not signed by"):
        parse_metadata(service.sign(days=365), "mds.jwt", service.root, later)


def test_out_of_date(service: Service) -> None:
    """A file that was due to be replaced cannot know what was revoked since."""
    assert isinstance(read(service, service.sign(days=0)), Metadata)
    with pytest.raises(BrokenSystemError, match="due to be replaced on 2023-11-13"):
        read(service, service.sign(days=-1))


@pytest.mark.parametrize("blob", [b"", b".", b"..", b"a.b.c", b"{}", b"\xff" * 30])
def test_no_metadata(service: Service, blob: bytes) -> None:
    """What is no metadata is refused with a way out."""
    with pytest.raises(BrokenSystemError) as raised:
        read(service, blob)
    assert "https://mds3.fidoalliance.org/" in raised.value.hint


def test_load_certificates(service: Service) -> None:
    """Certificates are read as PEM, several, or one in DER."""
    pem = service.root.public_bytes(Encoding.PEM)
    assert [service.root] * 2 == load_certificates(pem * 2, "x")
    assert [service.root] == load_certificates(service.root.public_bytes(Encoding.DER), "x")
    for data in (b"", b"text", b"-----BEGIN CERTIFICATE-----\n"):
        with pytest.raises(BrokenSystemError):
            load_certificates(data, "x")


def test_pinned_root(service: Service) -> None:
    """The root that the FIDO Alliance names is known by its fingerprint, not by its name."""
    assert None is find_pinned_root([service.root])
    assert None is find_pinned_root([])


def test_policy_names_files(host: KeyHost, service: Service, tmp_path: Path) -> None:
    """The files that policy names are read, and decide."""
    injected = host.ports.plug()
    paths = {name: tmp_path / name for name in ("mds.jwt", "signer.pem", "roots.pem")}
    maker = x509.load_der_x509_certificate(injected.key.memory.attestation.root)
    paths["mds.jwt"].write_bytes(service.sign(describe(injected)))
    paths["signer.pem"].write_bytes(service.root.public_bytes(Encoding.PEM))
    paths["roots.pem"].write_bytes(maker.public_bytes(Encoding.PEM))
    fido = QUICK._replace(
        aaguids=(MODEL,),
        metadata=str(paths["mds.jwt"]),
        metadata_root=str(paths["signer.pem"]),
        roots=str(paths["roots.pem"]),
    )
    assert MODEL == host.enable(fido=fido).aaguid
    paths["mds.jwt"].write_bytes(service.sign(describe(injected, {"status": "REVOKED"})))
    with pytest.raises(RefusedError, match="REVOKED"):
        host.enable("bob", fido)
    record = host.records()[-1]
    assert ("denied", "unproven_registration", "bob") == (
        record["outcome"],
        record["reason"],
        record["user"],
    )


@pytest.mark.parametrize("field", ["metadata", "metadata_root", "roots"])
def test_missing_file(host: KeyHost, service: Service, tmp_path: Path, field: str) -> None:
    """A file that policy names and that is not there is told before anybody touches anything."""
    good = tmp_path / "signer.pem"
    good.write_bytes(service.root.public_bytes(Encoding.PEM))
    blob = tmp_path / "mds.jwt"
    blob.write_bytes(service.sign())
    missing: dict[str, Any] = {field: "/nonexistent"}
    fido = Fido(metadata=str(blob), metadata_root=str(good))._replace(**missing)
    with pytest.raises(BrokenSystemError, match="/nonexistent"):
        host.lifecycle.begin_fido("alice", fido)


def test_file_that_others_may_write(host: KeyHost, service: Service, tmp_path: Path) -> None:
    """A file that others may write decides nothing."""
    path = tmp_path / "roots.pem"
    path.write_bytes(service.root.public_bytes(Encoding.PEM))
    path.chmod(0o666)
    with pytest.raises(BrokenSystemError, match="0666"):
        host.lifecycle.begin_fido("alice", Fido(roots=str(path)))


def test_public_root_is_looked_for(
    host: KeyHost, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a root of policy's own, the host's public roots must have the pinned one."""
    bundle, blob = tmp_path / "bundle.crt", tmp_path / "mds.jwt"
    bundle.write_bytes(service.root.public_bytes(Encoding.PEM))
    blob.write_bytes(service.sign())
    monkeypatch.setattr("pam_mfa.key_models._PUBLIC_ROOTS", (str(bundle),))
    with pytest.raises(BrokenSystemError, match="GlobalSign Root CA - R3"):
        host.lifecycle.begin_fido("alice", Fido(metadata=str(blob)))
    fingerprint = service.root.fingerprint(SHA256()).hex()
    monkeypatch.setattr("pam_mfa.factors.metadata.ROOT_FINGERPRINT", fingerprint)
    assert host.lifecycle.begin_fido("alice", Fido(metadata=str(blob))).models.asks
