# SPDX-License-Identifier: Apache-2.0
"""Policy files: bytes in, a policy or every mistake out.

Pure. Unknown keys are refused with their line and the nearest known key, because a misspelled rule
is a hole.
"""

import re
from collections.abc import Callable, Sequence

from pam_mfa.document import SIZE_MAX, Section, parse_document
from pam_mfa.errors import BrokenSystemError
from pam_mfa.lockout import LockoutRule
from pam_mfa.oath import SEED_BITS_LOWEST, SEED_BITS_MINIMUM
from pam_mfa.policy.faults import Faults
from pam_mfa.policy.values import read_devices, read_duration, read_number, read_word
from pam_mfa.policy.words import (
    DEVICE_TYPES,
    Agent,
    AgentKeys,
    AuditRules,
    Fido,
    Mode,
    OnFailure,
    Policy,
    SelfService,
    SignCount,
    StoreRules,
    Unenrolled,
    UnknownUsers,
    UserVerification,
)

VERSION = 1
POLICY_SIZE_MAX = 262144  # bytes: some 2,000 rules
FRAGMENT_SIZE_MAX = SIZE_MAX
_AAGUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_FAILURES_MAX = 1000
_PROMPTS_MAX = 10
_LOOK_AHEAD_MAX = 50  # RFC 4226, section 7.4: as small as usability allows
_WINDOW_MAX = 10  # time steps: five minutes either side
_SEED_BITS_MAX = 256
_CHECKPOINT_MAX = 1_000_000  # records
_KEYS = (
    "version", "mode", "defaults", "totp", "hotp", "lockout", "self_service", "fido", "agent",
    "agent_keys", "audit", "store", "rules", "include",
)  # fmt: skip
# Given the directory that a policy includes, gives its fragments' names and bytes, in their order.
ReadFragments = Callable[[str], Sequence[tuple[str, bytes]]]


def _read_none(directory: str) -> Sequence[tuple[str, bytes]]:
    del directory
    return ()


def parse_policy(data: bytes, source: str, read_fragments: ReadFragments = _read_none) -> Policy:
    """Read a policy file.

    Args:
        data: the file's bytes.
        source: its name, for messages.
        read_fragments: what reads the directory that it includes.

    Raises:
        DocumentError: with the line, the key, and the nearest known key.
        BrokenSystemError: as ``read_fragments`` raises.
    """
    policy, errors = check_policy(data, source, read_fragments)
    if errors:
        raise errors[0]
    return policy


def check_policy(
    data: bytes, source: str, read_fragments: ReadFragments = _read_none
) -> tuple[Policy, list[BrokenSystemError]]:
    """Read a policy file and return everything that is wrong with it.

    Where something is, the policy is not one to decide by.

    Raises:
        DocumentError: it is no document at all.
    """
    top = parse_document(data, source, POLICY_SIZE_MAX)
    faults = Faults()
    faults.refuse_unknown(top, _KEYS)
    faults.try_or(None, _require_version, top)
    policy = _read_settings(top, faults)
    if "rules" in top or "include" in top:
        policy = _read_rules(top, faults, policy, read_fragments)
    return policy, faults.errors


def parse_store(data: bytes, source: str) -> StoreRules:
    """Read what a policy file says of the store, whatever is wrong elsewhere in it.

    Raises:
        DocumentError: that is wrong, or it is no document at all.
    """
    faults = Faults()
    rules = _read_store(parse_document(data, source, POLICY_SIZE_MAX), faults)
    if faults.errors:
        raise faults.errors[0]
    return rules


def _read_store(top: Section, faults: Faults) -> StoreRules:
    if "store" not in top:
        return StoreRules()
    from pam_mfa.policy.stores import read_store  # noqa: PLC0415 - start-up cost

    return read_store(top, faults)


def _require_version(top: Section) -> None:
    if top.require("version", int) != VERSION:
        raise top.error("version", f"must be {VERSION} for this program")


def _read_settings(top: Section, faults: Faults) -> Policy:
    default = Policy()
    defaults = faults.section(top, "defaults", ("devices", "unenrolled", "prompts"))
    totp = faults.section(top, "totp", ("window", "minimum_seed_bits"))
    hotp = faults.section(top, "hotp", ("look_ahead",))
    lockout = faults.section(top, "lockout", ("failures", "within", "for"))
    self_service = faults.section(top, "self_service", SelfService._fields)
    fido = faults.section(
        top, "fido", ("user_verification", "sign_count", "touch", "insert", "attestation")
    )
    audit = faults.section(top, "audit", AuditRules._fields)
    agent = faults.section(top, "agent", ("timeout",))
    bits = (SEED_BITS_LOWEST, _SEED_BITS_MAX)
    number, word = read_number, read_word
    return Policy(
        mode=faults.try_or(default.mode, word, top, "mode", Mode, Mode.ENFORCE),
        devices=faults.try_or(DEVICE_TYPES, _devices, defaults),
        unenrolled=faults.try_or(
            default.unenrolled, word, defaults, "unenrolled", Unenrolled, Unenrolled.DENY
        ),
        prompts=faults.try_or(3, number, defaults, "prompts", (1, _PROMPTS_MAX), 3),
        window=faults.try_or(1, number, totp, "window", (0, _WINDOW_MAX), 1),
        look_ahead=faults.try_or(10, number, hotp, "look_ahead", (1, _LOOK_AHEAD_MAX), 10),
        minimum_seed_bits=faults.try_or(
            SEED_BITS_MINIMUM, number, totp, "minimum_seed_bits", bits, SEED_BITS_MINIMUM
        ),
        lockout=faults.try_or(default.lockout, _lockout, lockout),
        self_service=faults.try_or(default.self_service, _self_service, self_service),
        fido=faults.try_or(default.fido, _fido, fido, faults),
        audit=faults.try_or(default.audit, _audit, audit),
        store=_read_store(top, faults),
        agent=Agent(
            faults.try_or(30.0, read_duration, agent, "timeout", default.agent.timeout),
            faults.try_or(AgentKeys.SK, word, top, "agent_keys", AgentKeys, AgentKeys.SK),
        ),
    )


def _read_rules(
    top: Section, faults: Faults, policy: Policy, read_fragments: ReadFragments
) -> Policy:
    """Add the rules of the file, and behind them those of the directory that it includes."""
    from pam_mfa.policy.rules import (  # noqa: PLC0415 - start-up cost: only where there are rules
        RuleReader,
        find_memory,
        name_groups,
        refuse_more,
    )

    reader = RuleReader(faults)
    if "rules" in top:
        reader.read(top)
    if "include" in top:
        directory = faults.try_or("", _include, top)
        for source, data in faults.try_or((), read_fragments, directory) if directory else ():
            empty = Section(source, "", 1)
            fragment = faults.try_or(empty, parse_document, data, source, FRAGMENT_SIZE_MAX)
            for error in refuse_more(fragment):
                faults.add(error)
            if "rules" in fragment:
                reader.read(fragment)
    return policy._replace(
        rules=tuple(reader.rules),
        groups=name_groups(reader.rules),
        memory=find_memory(reader.rules),
    )


def _include(top: Section) -> str:
    directory = top.require("include", str)
    if not directory.isprintable() or not directory:
        raise top.error("include", "names no directory")
    return directory


def _devices(section: Section) -> tuple[str, ...]:
    return read_devices(section, "devices") if "devices" in section else DEVICE_TYPES


def _lockout(section: Section) -> LockoutRule:
    default = LockoutRule()
    return LockoutRule(
        failures=read_number(section, "failures", (1, _FAILURES_MAX), default.failures),
        within=read_duration(section, "within", default.within),
        lock_for=read_duration(section, "for", default.lock_for),
    )


def _self_service(section: Section) -> SelfService:
    return SelfService(*(section.get(key, bool, default=False) for key in SelfService._fields))


def _fido(section: Section, faults: Faults) -> Fido:
    known = ("aaguids", "roots", "metadata", "metadata_root")
    attestation, default = faults.section(section, "attestation", known), Fido()
    aaguids = attestation.texts("aaguids") if "aaguids" in attestation else []
    if any(not _AAGUID.fullmatch(one) for one in aaguids):
        raise attestation.error("aaguids", "must be a list of UUIDs, in lower case")
    if "aaguids" in attestation and not aaguids:
        raise attestation.error("aaguids", "is empty, so no key could ever be enabled")
    if "metadata_root" in attestation and "metadata" not in attestation:
        raise attestation.error("metadata_root", "goes with 'metadata' only")
    return Fido(
        read_word(section, "user_verification", UserVerification, default.user_verification),
        read_word(section, "sign_count", SignCount, default.sign_count),
        read_duration(section, "touch", default.touch),
        read_duration(section, "insert", default.insert),
        tuple(aaguids),
        *(_path(attestation, key) for key in ("metadata", "metadata_root", "roots")),
    )


def _audit(section: Section) -> AuditRules:
    default = AuditRules()
    return AuditRules(
        read_word(section, "on_failure", OnFailure, default.on_failure),
        read_word(section, "unknown_users", UnknownUsers, default.unknown_users),
        section.get("journal", bool, default=default.journal),
        section.get("syslog", bool, default=default.syslog),
        section.get("kernel", bool, default=default.kernel),
        read_number(section, "checkpoint_every", (1, _CHECKPOINT_MAX), default.checkpoint_every),
        read_duration(section, "checkpoint_within", default.checkpoint_within),
    )


def _path(section: Section, key: str) -> str:
    path = section.get(key, str, default="")
    if key in section and not path.startswith("/"):
        raise section.error(key, "must be an absolute path")
    return path
