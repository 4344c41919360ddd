# SPDX-License-Identifier: Apache-2.0
"""What a policy says of the store: which engine, where it is, and nothing that is misspelled."""

from pathlib import Path

import pytest

from pam_mfa.errors import DocumentError
from pam_mfa.policy import Account, Engine, Server, StoreRules, check_policy, parse_store
from pam_mfa.store.policies import read_store_rules

WHOLE = """version: 1
store:
  engine: postgresql
  url: postgresql://web%20host@db1.example,[2001:db8::1]:6432/pam%5Fmfa
  tls: {root_certificate: /etc/ca.crt, certificate: /etc/host.crt, key: /etc/host.key}
  passfile: /etc/pass
  timeout: 5s
  connections: 8
  administrator: {user: desk, certificate: /etc/desk.crt, key: /etc/desk.key}
"""


def read(text: str) -> StoreRules:
    """Return what a policy says."""
    return parse_store(text.encode(), "policy.yaml")


def mistake(lines: str) -> str:
    """Return what is said of a store that is written wrongly."""
    with pytest.raises(DocumentError) as error:
        read(f"version: 1\nstore:\n  engine: postgresql\n{lines}")
    return f"{error.value} {error.value.hint}"


def test_without_a_store() -> None:
    """A policy that says nothing of it keeps everything on its host."""
    assert StoreRules(Engine.EMBEDDED) == read("version: 1")


def test_whole_store() -> None:
    """Everything that can be said is read."""
    expected = StoreRules(
        engine=Engine.POSTGRESQL,
        servers=(Server("db1.example"), Server("2001:db8::1", 6432)),
        database="pam_mfa",
        root_certificate="/etc/ca.crt",
        account=Account("web host", "/etc/pass", "/etc/host.crt", "/etc/host.key"),
        administrator=Account("desk", "", "/etc/desk.crt", "/etc/desk.key"),
        timeout=5.0,
        connections=8,
    )
    assert expected == read(WHOLE)
    assert [] == check_policy(WHOLE.encode(), "policy.yaml")[1]


def test_socket_needs_no_certificate() -> None:
    """A database that is reached by a socket of this host needs no authority."""
    url = "postgresql://web@%2Frun%2Fpostgresql/fleet"
    rules = read(f"version: 1\nstore: {{engine: postgresql, url: '{url}'}}")
    assert (Server("/run/postgresql"),) == rules.servers


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("  url: postgresql://web:secret@db/fleet\n", "has a password in it"),
        ("  url: postgresql://web@db/fleet?sslmode=disable\n", "options, which are keys"),
        ("  url: postgresql://db/fleet\n", "with a user"),
        ("  url: mysql://web@db/fleet\n", "is no address of a PostgreSQL database"),
        ("  url: postgresql://web@db:x/fleet\n", "names a host that is none"),
        ("  url: postgresql://web@db/fleet\n", "names no 'root_certificate'"),
        ("", "url"),
        (
            "  ulr: postgresql://web@db/fleet\n",
            "line 4: 'store.ulr' is not a known key Did you mean 'url'?",
        ),
        ("  url: postgresql://web@db/fleet\n  tls: {root_certificate: ca.crt}\n", "absolute path"),
        (
            "  url: postgresql://w@db/f\n  tls: {root_certificate: /ca, certificate: /host.crt}\n",
            "goes with 'key' only",
        ),
        (
            "  url: postgresql://web@db/fleet\n  tls: {root_certificate: /ca}\n  timeout: 1s\n",
            "is not 2s to 30s",
        ),
    ],
)
def test_mistakes(lines: str, words: str) -> None:
    """Each mistake is told with its key and what to write."""
    assert words in mistake(lines)


def test_password_is_not_quoted() -> None:
    """A password that somebody wrote into the URL is in no message."""
    assert "secret" not in mistake("  url: postgresql://web:secret@db/fleet\n")


def test_embedded_has_no_address() -> None:
    """An address without its engine is a mistake, and no store that is not asked."""
    with pytest.raises(DocumentError, match="goes with 'engine: postgresql' only"):
        read("version: 1\nstore: {url: 'postgresql://web@db/fleet'}")


def test_mistake_elsewhere(tmp_path: Path) -> None:
    """What changes devices finds its store in a policy that is broken elsewhere."""
    path = tmp_path / "policy.yaml"
    path.write_text(WHOLE + "rules: 7\nmoed: enforce\n", "utf-8")
    assert Engine.POSTGRESQL is read_store_rules(path).engine
    assert Engine.EMBEDDED is read_store_rules(tmp_path / "none.yaml").engine


def test_mistake_opens_nothing_else() -> None:
    """A policy with a mistake in its store names the one that cannot be opened."""
    policy, errors = check_policy(b"version: 1\nstore: {engine: postgresql}", "policy.yaml")
    assert (Engine.POSTGRESQL, True) == (policy.store.engine, bool(errors))
