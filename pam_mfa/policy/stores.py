# SPDX-License-Identifier: Apache-2.0
"""The policy's ``store``: which engine keeps devices and state, and how it is reached.

Pure. Read on its own, too, by what changes devices: a mistake elsewhere in the file must not send a
change to another store than the one that logins ask.
"""

import re
from typing import Final
from urllib.parse import unquote

from pam_mfa.document import Section
from pam_mfa.policy.faults import Faults
from pam_mfa.policy.offline import read_offline
from pam_mfa.policy.values import read_duration, read_number, read_word
from pam_mfa.policy.words import POSTGRESQL_PORT, Account, Engine, Server, StoreRules

KEYS: Final = (
    "engine", "url", "tls", "passfile", "timeout", "connections", "administrator",
    "offline",
)  # fmt: skip
_TLS: Final = ("root_certificate", "certificate", "key")
_ADMINISTRATOR: Final = ("user", "passfile", "certificate", "key")
_TIMEOUT_LEAST: Final = 2.0  # seconds: libpq waits no shorter for a connection
_TIMEOUT_MOST: Final = 30.0
_CONNECTIONS_MOST: Final = 32
_URL: Final = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^:@/?#]+)(?P<password>:[^@/?#]*)?@)?"
    r"(?P<hosts>[^@/?#]+)/(?P<database>[^/?#]+)(?P<more>[?#].*)?",
    re.ASCII,
)
_HOST: Final = re.compile(
    r"(?P<name>[^:\[\]]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE
)


def read_store(top: Section, faults: Faults) -> StoreRules:
    """Return what a policy says of the store; mistakes are noted."""
    section = faults.section(top, "store", KEYS)
    # Where this is wrong no other engine may take its place: it is the one that cannot be opened.
    return faults.try_or(StoreRules(Engine.POSTGRESQL), _read, section, faults)


def _read(section: Section, faults: Faults) -> StoreRules:
    engine = read_word(section, "engine", Engine, Engine.EMBEDDED)
    if engine is Engine.EMBEDDED:
        for key in KEYS[1:]:
            if key in section:
                raise section.error(key, "goes with 'engine: postgresql' only")
        return StoreRules()
    tls = faults.section(section, "tls", _TLS)
    administrator = faults.section(section, "administrator", _ADMINISTRATOR)
    offline = read_offline(section, faults)
    servers, user, database = _read_url(section)
    root_certificate = _path(tls, "root_certificate")
    if not root_certificate and not all(server.is_socket for server in servers):
        raise section.error(
            "tls",
            "names no 'root_certificate', so nobody could tell the database from an impostor",
            "Name the file of the authority that has signed the database's certificate.",
        )
    default = StoreRules()
    timeout = read_duration(section, "timeout", default.timeout)
    if not _TIMEOUT_LEAST <= timeout <= _TIMEOUT_MOST:
        raise section.error("timeout", f"is not {_TIMEOUT_LEAST:.0f}s to {_TIMEOUT_MOST:.0f}s")
    passfile = _path(section, "passfile")
    return StoreRules(
        engine=engine,
        servers=servers,
        database=database,
        root_certificate=root_certificate,
        account=Account(user, passfile, *_pair(tls)),
        administrator=_read_administrator(section, administrator),
        timeout=timeout,
        connections=read_number(
            section, "connections", (1, _CONNECTIONS_MOST), default.connections
        ),
        offline=offline,
    )


def _read_url(section: Section) -> tuple[tuple[Server, ...], str, str]:
    match = _URL.fullmatch(section.require("url", str))
    form = "Write it as postgresql://USER@HOST/DATABASE; more hosts are separated by commas."
    if match is None or not match["user"]:
        raise section.error("url", "is no address of a PostgreSQL database with a user", form)
    if match["password"]:
        raise section.error(
            "url",
            "has a password in it, and everybody may read a policy",
            "Have the database know this host by a certificate (tls: certificate, key), or put "
            "the password into a file that only pam-mfa can read (passfile).",
        )
    if match["more"]:
        raise section.error("url", "has options, which are keys of their own here", form)
    hosts = [_HOST.fullmatch(one) for one in match["hosts"].split(",")]
    servers = tuple(
        Server(unquote(one["name"]).strip("[]"), int(one["port"] or POSTGRESQL_PORT))
        for one in hosts
        if one
    )
    if len(servers) != len(hosts):
        raise section.error("url", "names a host that is none", form)
    return servers, unquote(match["user"]), unquote(match["database"])


def _read_administrator(section: Section, found: Section) -> Account:
    if "administrator" not in section:
        return Account()
    user = found.require("user", str)
    return Account(user, _path(found, "passfile"), *_pair(found))


def _pair(section: Section) -> tuple[str, str]:
    certificate, key = _path(section, "certificate"), _path(section, "key")
    if bool(certificate) != bool(key):
        missing = "key" if certificate else "certificate"
        raise section.error("certificate" if certificate else "key", f"goes with '{missing}' only")
    return certificate, key


def _path(section: Section, key: str) -> str:
    path = section.get(key, str, default="")
    if key in section and not path.startswith("/"):
        raise section.error(key, "must be an absolute path")
    return path
