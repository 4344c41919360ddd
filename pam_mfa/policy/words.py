# SPDX-License-Identifier: Apache-2.0
"""The words of a policy: what a file can say, as values. Decides nothing and reads nothing."""

import enum
from collections.abc import Collection
from typing import NamedTuple, Protocol

from pam_mfa.lockout import LockoutRule
from pam_mfa.mfa_age import Scope
from pam_mfa.oath import SEED_BITS_MINIMUM
from pam_mfa.wire import Phase

DEVICE_TYPES = ("ssh-key", "fido", "virtual", "token", "recovery")
POSTGRESQL_PORT = 5432


class Mode(enum.StrEnum):
    """Whether a denial is enforced or only recorded."""

    ENFORCE = "enforce"
    REPORT_ONLY = "report-only"


class Unenrolled(enum.StrEnum):
    """What becomes of a user without a device."""

    DENY = "deny"
    ALLOW = "allow"
    ENROLL = "enroll"  # after the first factor, in PAM's account phase


class SelfService(NamedTuple):
    """What users may do to their own devices."""

    enable: bool = False
    deactivate: bool = False
    resync: bool = False


class UserVerification(enum.StrEnum):
    """Whether a security key has to verify who touches it, by its PIN or a fingerprint."""

    REQUIRED = "required"
    PREFERRED = "preferred"  # where the key can
    DISCOURAGED = "discouraged"  # a touch is enough


class SignCount(enum.StrEnum):
    """What becomes of a security key whose signature counter goes back: a possible clone."""

    REFUSE = "refuse"
    WARN = "warn"


class Fido(NamedTuple):
    """How security keys that are attached to the machine are used."""

    user_verification: UserVerification = UserVerification.DISCOURAGED
    sign_count: SignCount = SignCount.REFUSE
    touch: float = 30.0  # seconds that a touch is waited for
    insert: float = 15.0  # seconds that an absent key is waited for
    aaguids: tuple[str, ...] = ()  # models that may be enabled; empty: all
    metadata: str = ""  # path of an MDS3 file: only FIDO Certified models; "": not asked
    metadata_root: str = ""  # path of the root that its signature leads to; "": the pinned one
    roots: str = ""  # path of certificates that attestations must lead to; "": not asked


class OnFailure(enum.StrEnum):
    """What becomes of a login that the audit log cannot take."""

    DENY = "deny"
    ALLOW = "allow"  # the verdict stands; its record waits in the state


class UnknownUsers(enum.StrEnum):
    """How a name is written down that no account has: it may be a password."""

    HASH = "hash"  # a keyed hash stands for it
    NAME = "name"


class AuditRules(NamedTuple):
    """How records are kept, and where else they go."""

    on_failure: OnFailure = OnFailure.DENY
    unknown_users: UnknownUsers = UnknownUsers.HASH
    journal: bool = True
    syslog: bool = True
    kernel: bool = False
    checkpoint_every: int = 1000  # records
    checkpoint_within: float = 3600.0  # seconds


class AgentKeys(enum.StrEnum):
    """Which enrolled keys in an ssh-agent count."""

    SK = "sk"  # those that live on a security key
    ANY = "any"  # those in files, too, which prove no touch


class Agent(NamedTuple):
    """How the ssh-agent of whoever runs sudo or su is asked."""

    timeout: float = 30.0  # seconds that a signature is waited for
    keys: AgentKeys = AgentKeys.SK


class Context(NamedTuple):
    """What rules can match on: one PAM call, at one moment."""

    phase: Phase
    user: str = ""
    service: str = ""
    tty: str = ""  # PAM's, with or without /dev/
    rhost: str = ""
    ssh_connection: str = ""
    at: float = 0.0  # seconds since the epoch
    groups: frozenset[str] | None = None  # those of the policy's that have the user; None: unknown


class Condition(Protocol):
    """One key of a rule's ``match``, or two that only mean something together."""

    @property
    def key(self) -> str:
        """The key, as the file has it."""

    def holds(self, context: Context) -> bool:
        """Whether it holds.

        Raises:
            UnknownGroupsError: it is about groups, and nobody has looked the user's up.
        """

    def describe(self, context: Context) -> str:
        """Say what is asked for and what there is, as "service is 'sudo', not one of login"."""

    def covers(self, other: "Condition") -> bool:
        """Whether it surely holds wherever the other one does; False where that is not plain."""


class Effect(enum.StrEnum):
    """What a rule has happen."""

    SKIP = "skip"
    DENY = "deny"
    REQUIRE = "require"


class Rule(NamedTuple):
    """One rule; it matches where every condition holds, so without any it always does."""

    name: str
    conditions: tuple[Condition, ...]  # the cheap ones first, groups last
    effect: Effect
    devices: tuple[str, ...] = ()  # acceptable types, where it requires some
    message: str = ""  # told to whom it denies
    mode: Mode | None = None  # None: the policy's
    place: str = ""  # its file and line, for messages
    mfa_age: float = 0.0  # seconds for which a verification counts; 0: for one login
    scope: Scope = Scope.SESSION  # where it counts
    phases: frozenset[Phase] = frozenset()  # in which it was named to decide; empty: see decision


class Engine(enum.StrEnum):
    """What keeps devices and state."""

    EMBEDDED = "embedded"
    POSTGRESQL = "postgresql"


class Server(NamedTuple):
    """One of the servers that may have the database: a name, an address, or a socket's folder."""

    host: str
    port: int = POSTGRESQL_PORT

    @property
    def is_socket(self) -> bool:
        """Whether it is reached without a network."""
        return self.host.startswith("/")


class Account(NamedTuple):
    """As whom the database is asked, and what proves it."""

    user: str = ""
    passfile: str = ""
    certificate: str = ""
    key: str = ""


class Offline(NamedTuple):
    """What a host does while its fleet's database cannot be reached; without types: nothing."""

    allow: tuple[str, ...] = ()  # types of devices that count
    seconds: float = 0.0  # since the database has answered last
    users: tuple[str, ...] = ()  # who is let in by them; none: everybody


class StoreRules(NamedTuple):
    """Where devices and state are kept."""

    engine: Engine = Engine.EMBEDDED
    servers: tuple[Server, ...] = ()  # the one that takes writes is asked
    database: str = ""
    root_certificate: str = ""  # of who signs the servers' certificates
    account: Account = Account()
    administrator: Account = Account()  # of whoever changes devices here; no user: the same
    timeout: float = 3.0  # seconds that an answer of the database is waited for
    connections: int = 4  # of one process, at most
    offline: Offline = Offline()


class Policy(NamedTuple):
    """A policy file's meaning, with the defaults of what it leaves out."""

    mode: Mode = Mode.ENFORCE
    devices: tuple[str, ...] = DEVICE_TYPES
    unenrolled: Unenrolled = Unenrolled.DENY
    prompts: int = 3
    window: int = 1  # time steps either side
    lockout: LockoutRule = LockoutRule()
    look_ahead: int = 10  # counters after the last used one
    self_service: SelfService = SelfService()
    fido: Fido = Fido()
    agent: Agent = Agent()
    minimum_seed_bits: int = SEED_BITS_MINIMUM  # of seeds that are imported
    rules: tuple[Rule, ...] = ()  # the first that matches decides
    groups: Collection[str] = frozenset()  # all that rules name
    audit: AuditRules = AuditRules()
    store: StoreRules = StoreRules()
    memory: float = 0.0  # seconds for which a rule may want a verification remembered; 0: none
