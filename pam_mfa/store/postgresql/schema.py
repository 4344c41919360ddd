# SPDX-License-Identifier: Apache-2.0
"""What the database has, and who may do what with it.

Owns the SQL of every version, oldest first; what stands here is never changed once it was shipped,
only added to. Each table's rows are of one fleet, and row-level security shows a role the rows of
its own: of which fleet a role is, ``fleet_role`` says, which no host can read or write.

A host may look up devices, use steps up, count failures, lock, and remember; devices and the
inventory are for administrators. A step that goes back is refused by a trigger, whoever it is.
"""

from typing import Final

from pam_mfa.store.postgresql.audit_schema import audit_schema

VERSION: Final = 1
HOST: Final = "pam_mfa_host"
ADMINISTRATOR: Final = "pam_mfa_administrator"
LOCK: Final = 0x70616D6D6661  # "pammfa": of migrations, one at a time
_FLEET = "fleet text NOT NULL DEFAULT pam_mfa.own_fleet() REFERENCES pam_mfa.fleet"

_FIRST: Final = f"""
CREATE SCHEMA pam_mfa;
REVOKE ALL ON SCHEMA pam_mfa FROM PUBLIC;
CREATE TABLE pam_mfa.schema_version(version integer NOT NULL);
INSERT INTO pam_mfa.schema_version VALUES (0);
CREATE TABLE pam_mfa.fleet(
    fleet text PRIMARY KEY CHECK (fleet <> ''),
    key_check text NOT NULL DEFAULT '');
CREATE TABLE pam_mfa.fleet_role(
    role name PRIMARY KEY,
    fleet text NOT NULL REFERENCES pam_mfa.fleet);
-- By the role that has logged in: SET ROLE leads into no other fleet. Where more is done than the
-- caller may, operators have their schema: a search_path could lead to others of the same name.
CREATE FUNCTION pam_mfa.own_fleet() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    AS 'SELECT fleet FROM pam_mfa.fleet_role WHERE role OPERATOR(pg_catalog.=) session_user';
CREATE TABLE pam_mfa.device_document(
    {_FLEET}, user_key text NOT NULL, version bigint NOT NULL, document text NOT NULL,
    mac text NOT NULL, serial_numbers text[] NOT NULL DEFAULT '{{}}',
    PRIMARY KEY (fleet, user_key));
CREATE SEQUENCE pam_mfa.document_version;
CREATE TABLE pam_mfa.lock_state(
    {_FLEET}, user_key text NOT NULL, failures text NOT NULL DEFAULT '',
    locked_until double precision NOT NULL DEFAULT 0, PRIMARY KEY (fleet, user_key));
CREATE TABLE pam_mfa.used_step(
    {_FLEET}, serial_number text NOT NULL, step bigint NOT NULL,
    drift integer NOT NULL DEFAULT 0, used_at double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (fleet, serial_number));
CREATE TABLE pam_mfa.mfa_session(
    id bigint GENERATED ALWAYS AS IDENTITY, {_FLEET}, host text NOT NULL,
    user_key text NOT NULL, type text NOT NULL, serial_number text NOT NULL,
    device_hash text NOT NULL, service text NOT NULL, tty text NOT NULL, login text NOT NULL,
    parent text NOT NULL, session text NOT NULL, boot text NOT NULL, source text NOT NULL,
    at double precision NOT NULL, PRIMARY KEY (fleet, user_key, id));
CREATE INDEX mfa_session_of_device ON pam_mfa.mfa_session(fleet, serial_number);
CREATE TABLE pam_mfa.token(
    {_FLEET}, serial_number text NOT NULL, manufacturer text NOT NULL, algorithm text NOT NULL,
    digits integer NOT NULL, period integer NOT NULL, counter bigint NOT NULL,
    sealed_seed text NOT NULL, user_name text, PRIMARY KEY (fleet, serial_number));
CREATE TABLE pam_mfa.fingerprint(
    {_FLEET}, seed text NOT NULL, owner text NOT NULL, PRIMARY KEY (fleet, seed));
CREATE INDEX fingerprint_of_owner ON pam_mfa.fingerprint(fleet, owner);

-- A used code is never good again: not by a host that was broken into, nor by mistake.
CREATE FUNCTION pam_mfa.refuse_step_back() RETURNS trigger
    LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.step OPERATOR(pg_catalog.<) OLD.step
                OR NEW.serial_number OPERATOR(pg_catalog.<>) OLD.serial_number
                OR NEW.fleet OPERATOR(pg_catalog.<>) OLD.fleet THEN
            RAISE EXCEPTION 'a used step cannot go back' USING ERRCODE = 'P0M01';
        END IF;
        RETURN NEW;
    END $$;
CREATE TRIGGER refuse_step_back BEFORE UPDATE ON pam_mfa.used_step
    FOR EACH ROW EXECUTE FUNCTION pam_mfa.refuse_step_back();
-- Takes a step by one conditional update: only where it is what the judge has seen.
CREATE FUNCTION pam_mfa.take_step(
    taken text, seen bigint, new_step bigint, at double precision) RETURNS void
    LANGUAGE plpgsql AS $$
    DECLARE
        own CONSTANT text := pam_mfa.own_fleet();
    BEGIN
        IF seen IS NULL THEN
            INSERT INTO pam_mfa.used_step(fleet, serial_number, step, used_at)
                VALUES (own, taken, new_step, at) ON CONFLICT DO NOTHING;
        ELSE
            UPDATE pam_mfa.used_step
                SET step = greatest(step, new_step), used_at = greatest(used_at, at)
                WHERE fleet = own AND serial_number = taken AND step = seen;
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'a step was used meanwhile' USING ERRCODE = 'P0M02';
        END IF;
    END $$;

-- What judges need, under the users' locks, which are taken in their keys' order. One function,
-- whose plans a connection keeps: single statements cost a login twice the time.
CREATE FUNCTION pam_mfa.look(users text[], serials text[], asking text[], at_host text)
    RETURNS TABLE(kind text, key text, number bigint, moment double precision, words text[])
    LANGUAGE plpgsql AS $$
    DECLARE
        own CONSTANT text := pam_mfa.own_fleet();
    BEGIN
        IF cardinality(users) > 0 THEN
            INSERT INTO pam_mfa.lock_state(fleet, user_key)
                SELECT own, one FROM unnest(users) AS one WHERE NOT EXISTS (
                    SELECT FROM pam_mfa.lock_state AS known
                    WHERE known.fleet = own AND known.user_key = one)
                ORDER BY one ON CONFLICT DO NOTHING;
            RETURN QUERY SELECT 'lock', one.user_key, NULL::bigint, one.locked_until,
                    ARRAY[one.failures] FROM pam_mfa.lock_state AS one
                WHERE one.fleet = own AND one.user_key = ANY(users)
                ORDER BY one.user_key FOR UPDATE;
            RETURN QUERY SELECT 'version', one.user_key, one.version, NULL::double precision,
                    NULL::text[] FROM pam_mfa.device_document AS one
                WHERE one.fleet = own AND one.user_key = ANY(users);
        END IF;
        IF cardinality(serials) > 0 THEN
            RETURN QUERY SELECT 'step', one.serial_number, one.step, NULL::double precision,
                    NULL::text[] FROM pam_mfa.used_step AS one
                WHERE one.fleet = own AND one.serial_number = ANY(serials);
        END IF;
        IF cardinality(asking) > 0 THEN
            RETURN QUERY SELECT 'session', one.user_key, one.id, one.at,
                    ARRAY[one.type, one.serial_number, one.device_hash, one.service, one.tty,
                        one.login, one.parent, one.session, one.boot, one.source]
                FROM pam_mfa.mfa_session AS one
                WHERE one.fleet = own AND one.host = at_host AND one.user_key = ANY(asking)
                ORDER BY one.id;
        END IF;
    END $$;
-- A user's document, and what is known of the devices in it.
CREATE FUNCTION pam_mfa.read_document(user_key text, others text[])
    RETURNS TABLE(key text, number bigint, drift integer, moment double precision, words text[])
    LANGUAGE plpgsql STABLE AS $$
    DECLARE
        own CONSTANT text := pam_mfa.own_fleet();
        found pam_mfa.device_document;
    BEGIN
        SELECT * INTO found FROM pam_mfa.device_document AS one
            WHERE one.fleet = own AND one.user_key = read_document.user_key;
        RETURN QUERY SELECT '', found.version, NULL::integer, NULL::double precision,
            ARRAY[found.document, found.mac];
        RETURN QUERY SELECT one.serial_number, one.step, one.drift, one.used_at, NULL::text[]
            FROM pam_mfa.used_step AS one
            WHERE one.fleet = own AND one.serial_number = ANY(others || found.serial_numbers);
    END $$;

ALTER TABLE pam_mfa.fleet ENABLE ROW LEVEL SECURITY;
ALTER TABLE pam_mfa.device_document ENABLE ROW LEVEL SECURITY;
ALTER TABLE pam_mfa.lock_state ENABLE ROW LEVEL SECURITY;
ALTER TABLE pam_mfa.used_step ENABLE ROW LEVEL SECURITY;
ALTER TABLE pam_mfa.mfa_session ENABLE ROW LEVEL SECURITY;
ALTER TABLE pam_mfa.token ENABLE ROW LEVEL SECURITY;
ALTER TABLE pam_mfa.fingerprint ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON pam_mfa.fleet USING (fleet = (SELECT pam_mfa.own_fleet()));
CREATE POLICY own ON pam_mfa.device_document USING (fleet = (SELECT pam_mfa.own_fleet()));
CREATE POLICY own ON pam_mfa.lock_state USING (fleet = (SELECT pam_mfa.own_fleet()));
CREATE POLICY own ON pam_mfa.used_step USING (fleet = (SELECT pam_mfa.own_fleet()));
CREATE POLICY own ON pam_mfa.mfa_session USING (fleet = (SELECT pam_mfa.own_fleet()));
CREATE POLICY own ON pam_mfa.token USING (fleet = (SELECT pam_mfa.own_fleet()));
CREATE POLICY own ON pam_mfa.fingerprint USING (fleet = (SELECT pam_mfa.own_fleet()));

{audit_schema(HOST, ADMINISTRATOR)}
REVOKE ALL ON ALL TABLES IN SCHEMA pam_mfa FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pam_mfa FROM PUBLIC;
GRANT USAGE ON SCHEMA pam_mfa TO {HOST}, {ADMINISTRATOR};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pam_mfa TO {HOST}, {ADMINISTRATOR};
GRANT SELECT ON pam_mfa.schema_version, pam_mfa.fleet, pam_mfa.device_document
    TO {HOST}, {ADMINISTRATOR};
GRANT SELECT, INSERT, UPDATE ON pam_mfa.lock_state, pam_mfa.used_step TO {HOST}, {ADMINISTRATOR};
GRANT SELECT, INSERT, DELETE ON pam_mfa.mfa_session TO {HOST}, {ADMINISTRATOR};
GRANT INSERT, UPDATE, DELETE ON pam_mfa.device_document TO {ADMINISTRATOR};
GRANT USAGE ON SEQUENCE pam_mfa.document_version TO {ADMINISTRATOR};
GRANT DELETE ON pam_mfa.used_step TO {ADMINISTRATOR};
GRANT SELECT, INSERT, UPDATE, DELETE ON pam_mfa.token, pam_mfa.fingerprint TO {ADMINISTRATOR};
GRANT UPDATE (key_check) ON pam_mfa.fleet TO {ADMINISTRATOR};
UPDATE pam_mfa.schema_version SET version = 1;
"""  # noqa: S608 - constants of this file
MIGRATIONS: Final = (_FIRST,)
"""From each version to the next; each is one transaction."""
GROUPS: Final = "".join(
    f"""DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') THEN
            CREATE ROLE {role} NOLOGIN;
        END IF;
    END $$;
"""
    for role in (HOST, ADMINISTRATOR)
)
