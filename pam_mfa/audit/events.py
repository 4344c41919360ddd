# SPDX-License-Identifier: Apache-2.0
"""What a record of the audit log can tell: names, outcomes and reasons are closed lists.

``record.schema.json`` has the same lists; a test holds the two together. An event never holds a
secret, a code, or what somebody typed as a user name that no account has.
"""

import enum
from typing import NamedTuple


class EventName(enum.StrEnum):
    """What happened, in AWS's manner."""

    VERIFY_MFA = "VerifyMfa"
    SKIP_MFA = "SkipMfa"
    ENABLE_MFA_DEVICE = "EnableMfaDevice"
    RESYNC_MFA_DEVICE = "ResyncMfaDevice"
    DEACTIVATE_MFA_DEVICE = "DeactivateMfaDevice"
    ISSUE_BYPASS = "IssueBypass"
    IMPORT_DEVICES = "ImportDevices"
    COPY_STORE = "CopyStore"
    ROTATE_SEAL_KEY = "RotateSealKey"
    LOCK_USER = "LockUser"
    UNLOCK_USER = "UnlockUser"
    END_MFA_SESSIONS = "EndMfaSessions"
    START_VERIFIER = "StartVerifier"
    STOP_VERIFIER = "StopVerifier"
    CHANGE_POLICY = "ChangePolicy"
    CHECKPOINT = "Checkpoint"  # the log about itself, from here on
    MEND_LOG = "MendLog"
    RESUME_LOG = "ResumeLog"


class Outcome(enum.StrEnum):
    """How it ended."""

    SUCCESS = "success"
    DENIED = "denied"
    ERROR = "error"


class Reason(enum.StrEnum):
    """Why it ended so; a closed list."""

    CODE_ACCEPTED = "code_accepted"
    RESYNCHRONIZED = "resynchronized"
    WRONG_CODE = "wrong_code"
    MALFORMED_CODE = "malformed_code"
    EMPTY_ANSWER = "empty_answer"
    CODE_REUSED = "code_reused"
    LOCKED = "locked"
    TOO_MANY_FAILURES = "too_many_failures"
    NOT_ENROLLED = "not_enrolled"
    NO_ACCEPTABLE_DEVICE = "no_acceptable_device"
    NO_CONVERSATION = "no_conversation"
    ABANDONED = "abandoned"
    TIMED_OUT = "timed_out"
    CALLER_NOT_ALLOWED = "caller_not_allowed"
    DEVICES_UNREADABLE = "devices_unreadable"
    STORE_UNAVAILABLE = "store_unavailable"  # the fleet's database, so nobody can be verified
    UNENROLLED_ALLOWED = "unenrolled_allowed"
    ENROLLMENT_DUE = "enrollment_due"
    DENIED_BY_RULE = "denied_by_rule"
    SKIPPED_BY_RULE = "skipped_by_rule"
    REQUESTED = "requested"
    PASSWORD_REFUSED = "password_refused"  # noqa: S105 - a reason, not a password
    NOT_ALLOWED = "not_allowed"
    TOUCH_ACCEPTED = "touch_accepted"
    KEY_ABSENT = "key_absent"
    KEY_TIMED_OUT = "key_timed_out"
    KEY_UNUSABLE = "key_unusable"
    KEY_PIN_REFUSED = "key_pin_refused"
    UNPROVEN_ASSERTION = "unproven_assertion"
    POSSIBLE_CLONE = "possible_clone"
    SSH_KEY_ACCEPTED = "ssh_key_accepted"
    SSH_KEY_NOT_ENROLLED = "ssh_key_not_enrolled"
    AGENT_SIGNATURE_ACCEPTED = "agent_signature_accepted"
    AGENT_KEY_ABSENT = "agent_key_absent"  # the agent lists no enrolled key, or is locked
    AGENT_REFUSED = "agent_refused"  # to sign with a key that it lists
    AGENT_TIMED_OUT = "agent_timed_out"
    AGENT_UNUSABLE = "agent_unusable"  # it closed, or answered what no agent answers
    UNPROVEN_SIGNATURE = "unproven_signature"
    NOT_POSSIBLE = "not_possible"  # with these devices
    DEVICES_CHANGED = "devices_changed"  # since the user was verified
    UNPROVEN_REGISTRATION = "unproven_registration"
    MFA_AGE_FRESH = "mfa_age_fresh"
    VERIFIED_EARLIER = "verified_earlier"  # in a phase of the same login
    NOT_VERIFIED = "not_verified"  # in any phase of this login
    STARTED = "started"
    STOPPED = "stopped"
    POLICY_ACCEPTED = "policy_accepted"
    POLICY_REFUSED = "policy_refused"  # the policy before stays in force, or every login is refused
    INTERVAL = "interval"  # of checkpoints: so many records, or so long since the last one
    ROTATION = "rotation"
    START = "start"  # the first one that a key has signed
    TORN_LINE = "torn_line"  # a power cut has cut the last line
    STATE_LOST = (
        "state_lost"  # the log goes further than the state: the state was restored or made new
    )
    LOG_LOST = "log_lost"  # the state goes further than the log: records were taken away
    LOG_CHANGED = "log_changed"  # the log's last line is not the one that was written


class DeviceField(NamedTuple):
    """The device of a record."""

    serial_number: str
    type: str
    name: str


class PolicyField(NamedTuple):
    """The policy that a ``ChangePolicy`` tells of."""

    sha256: str  # over the file, and the fragments that it includes, each after its length
    is_accepted: bool


class TornField(NamedTuple):
    """What a ``MendLog`` found behind the last whole line."""

    bytes: int
    sha256: str


class HeadField(NamedTuple):
    """What the state or the log had as the last record, where a ``ResumeLog`` found them apart."""

    sequence: int
    hash: str


class Event(NamedTuple):
    """One record, before it has an id and a place in the chain.

    Empty fields are left out of the line.
    """

    name: EventName
    outcome: Outcome
    reason: Reason
    at: float  # seconds since the epoch
    user: str = ""
    unknown_user: str = ""  # the pseudonym of a name that no account has
    service: str = ""
    phase: str = ""
    tty: str = ""
    rhost: str = ""  # as the host program tells it
    ruser: str = ""
    device: DeviceField | None = None
    sign_count: int | None = None  # of a security key's assertion
    mode: str = ""
    rule: str = ""  # of the policy, that decided; "": its defaults
    caller_uid: int | None = None  # of the process that asked, by the kernel's word
    caller_pid: int | None = None
    login_uid: int | None = None  # as whom the caller once logged in, by the kernel's word
    detail: str = ""
    login_session: int | None = None  # the caller's, by the kernel's word
    unknown_name: str = ""  # that name itself, where policy wants it written down
    source_address: str = ""  # of SSH_CONNECTION, or of rhost where that is an address
    is_claim: bool | None = None  # whether service, tty, rhost and source are a user's own words
    mfa_age: int | None = None  # seconds since the verification that counted
    duration_ms: int | None = None  # from the request to this record
    policy: PolicyField | None = None
    torn: TornField | None = None
    state_head: HeadField | None = None
    log_head: HeadField | None = None
    # Of a code that was accepted: its time step or counter, or its number in a set on paper. A
    # state that is lost is rebuilt by it.
    used_step: int | None = None
    offline: bool | None = None  # True: judged while the fleet's database could not be reached
