# SPDX-License-Identifier: Apache-2.0
"""What the database has of hosts' audit logs, and who may do what with it. Owns SQL only.

A host may add and neither read, change nor remove: what it has shipped its root cannot take back.
A name is of the role that claimed it first, so where each host has a role of its own, no host adds
to another's chain; where they share one, signatures tell.
"""

from typing import Final

_FLEET = "fleet text NOT NULL DEFAULT pam_mfa.own_fleet() REFERENCES pam_mfa.fleet"
_OWN = "fleet = (SELECT pam_mfa.own_fleet())"
TABLES: Final = "audit_host, audit_record, audit_alive, audit_other"


def audit_schema(host: str, administrator: str) -> str:
    """Return the statements, for the two groups of roles."""
    return f"""
CREATE TABLE pam_mfa.audit_host(
    {_FLEET}, host text NOT NULL, role name NOT NULL DEFAULT session_user, claim text NOT NULL,
    PRIMARY KEY (fleet, host));
CREATE TABLE pam_mfa.audit_record(
    id bigint GENERATED ALWAYS AS IDENTITY, {_FLEET}, host text NOT NULL, chain integer NOT NULL,
    sequence bigint NOT NULL, hash text NOT NULL, line bytea NOT NULL CHECK (length(line) < 131072),
    PRIMARY KEY (fleet, host, chain, id), UNIQUE (fleet, host, chain, sequence, hash));
CREATE TABLE pam_mfa.audit_alive(
    {_FLEET}, host text NOT NULL, sign text NOT NULL, PRIMARY KEY (fleet, host));
CREATE TABLE pam_mfa.audit_other(
    {_FLEET}, host text NOT NULL, claim text NOT NULL, PRIMARY KEY (fleet, host));
CREATE FUNCTION pam_mfa.has_audit_name(asked text) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'SELECT EXISTS (SELECT FROM pam_mfa.audit_host WHERE fleet = pam_mfa.own_fleet()
        AND host = asked AND role = session_user)';
CREATE FUNCTION pam_mfa.audit_claim(asked text) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'SELECT claim FROM pam_mfa.audit_host WHERE fleet = pam_mfa.own_fleet() AND host = asked';
-- The last record of each chain, and one record's hash: all that a host may know of what is there.
CREATE FUNCTION pam_mfa.audit_heads(asked text)
    RETURNS TABLE (chain integer, sequence bigint, hash text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'SELECT each.chain, found.sequence, found.hash FROM generate_series(1, 99) each(chain)
        CROSS JOIN LATERAL (SELECT one.sequence, one.hash FROM pam_mfa.audit_record one
            WHERE one.fleet = pam_mfa.own_fleet() AND one.host = asked AND one.chain = each.chain
            ORDER BY one.id DESC LIMIT 1) found ORDER BY each.chain';
CREATE FUNCTION pam_mfa.audit_hash(asked text, number integer, place bigint) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'SELECT one.hash FROM pam_mfa.audit_record one WHERE one.fleet = pam_mfa.own_fleet()
        AND one.host = asked AND one.chain = number AND one.sequence = place
        ORDER BY one.id LIMIT 1';
CREATE FUNCTION pam_mfa.tell_alive(asked text, told text) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'INSERT INTO pam_mfa.audit_alive(host, sign) SELECT asked, told
        WHERE pam_mfa.has_audit_name(asked)
        ON CONFLICT (fleet, host) DO UPDATE SET sign = excluded.sign';
CREATE FUNCTION pam_mfa.tell_other(asked text, told text) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'INSERT INTO pam_mfa.audit_other(host, claim) VALUES (asked, told)
        ON CONFLICT (fleet, host) DO UPDATE SET claim = excluded.claim';
ALTER TABLE pam_mfa.audit_host ENABLE ROW LEVEL SECURITY;
ALTER TABLE pam_mfa.audit_record ENABLE ROW LEVEL SECURITY;
ALTER TABLE pam_mfa.audit_alive ENABLE ROW LEVEL SECURITY;
ALTER TABLE pam_mfa.audit_other ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON pam_mfa.audit_host USING ({_OWN})
    WITH CHECK ({_OWN} AND role = session_user);
CREATE POLICY own ON pam_mfa.audit_record USING ({_OWN})
    WITH CHECK ({_OWN} AND pam_mfa.has_audit_name(host));
CREATE POLICY own ON pam_mfa.audit_alive USING ({_OWN});
CREATE POLICY own ON pam_mfa.audit_other USING ({_OWN});
GRANT INSERT ON pam_mfa.audit_host, pam_mfa.audit_record TO {host}, {administrator};
GRANT SELECT ON pam_mfa.audit_host, pam_mfa.audit_record, pam_mfa.audit_alive, pam_mfa.audit_other
    TO {administrator};
"""  # noqa: S608 - constants of the schema
