# SPDX-License-Identifier: Apache-2.0
"""The audit log away from its host: each record copied once to where others cannot change it.

Each host keeps its own chain; a target has a copy of it, byte for byte, so that it is verified as
the log itself is. ``source`` reads what a target lacks, ``shipper`` puts it there; ``sinks`` says
what a target must be able to do, ``file_sink``, ``syslog_sink`` and ``database`` are such;
``hosts`` is what stands beside the records there, ``position`` what is remembered on the host.
``fleet_check`` verifies all hosts of a target, which ``archives`` reads.

A verifier never waits for any of it, and no login loads it.
"""

from pam_mfa.audit_shipping.archives import Archive, Directory
from pam_mfa.audit_shipping.fleet_check import (
    FleetFinding,
    FleetKind,
    HostReport,
    Measures,
    check_fleet,
)
from pam_mfa.audit_shipping.shipper import Shipper
from pam_mfa.audit_shipping.sinks import Chain, RecordSink

__all__ = [
    "Archive",
    "Chain",
    "Directory",
    "FleetFinding",
    "FleetKind",
    "HostReport",
    "Measures",
    "RecordSink",
    "Shipper",
    "check_fleet",
]
