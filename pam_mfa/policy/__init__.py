# SPDX-License-Identifier: Apache-2.0
"""Policy: what the file says, and what it decides.

Pure: bytes and a context in, a decision out; the only room that decides. ``words`` has what a file
can say, ``parsing`` and ``rules`` read it, ``conditions`` and ``networks`` match, ``decision``
decides; ``checking`` and ``explaining`` tell of it, and no login loads those two.
"""

from pam_mfa.policy.decision import (
    Action,
    Decision,
    UnknownGroupsError,
    asks_everyone,
    decide,
    decides_in,
    find_rule,
)
from pam_mfa.policy.parsing import (
    FRAGMENT_SIZE_MAX,
    POLICY_SIZE_MAX,
    VERSION,
    ReadFragments,
    check_policy,
    parse_policy,
    parse_store,
)
from pam_mfa.policy.values import SMS_REASON, parse_duration
from pam_mfa.policy.words import (
    DEVICE_TYPES,
    Account,
    Agent,
    AgentKeys,
    AuditRules,
    Condition,
    Context,
    Effect,
    Engine,
    Fido,
    Mode,
    Offline,
    OnFailure,
    Policy,
    Rule,
    SelfService,
    Server,
    SignCount,
    StoreRules,
    Unenrolled,
    UnknownUsers,
    UserVerification,
)

__all__ = [
    "DEVICE_TYPES",
    "FRAGMENT_SIZE_MAX",
    "POLICY_SIZE_MAX",
    "SMS_REASON",
    "VERSION",
    "Account",
    "Action",
    "Agent",
    "AgentKeys",
    "AuditRules",
    "Condition",
    "Context",
    "Decision",
    "Effect",
    "Engine",
    "Fido",
    "Mode",
    "Offline",
    "OnFailure",
    "Policy",
    "ReadFragments",
    "Rule",
    "SelfService",
    "Server",
    "SignCount",
    "StoreRules",
    "Unenrolled",
    "UnknownGroupsError",
    "UnknownUsers",
    "UserVerification",
    "asks_everyone",
    "check_policy",
    "decide",
    "decides_in",
    "find_rule",
    "parse_duration",
    "parse_policy",
    "parse_store",
]
