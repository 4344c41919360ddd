# SPDX-License-Identifier: Apache-2.0
"""What the suite's verifiers wrote into audit logs: read back, and judged by others' programs.

The schema that is shipped is held against every record by jsonschema; the chain is checked here
from the format's words alone, and signatures by cryptography, so that nothing under test makes its
own expected values.
"""

import base64
import functools
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jsonschema import Draft202012Validator

SCHEMA = Path(__file__).resolve().parent.parent / "pam_mfa/audit/record.schema.json"
ABOUT_THE_LOG = (
    "Checkpoint", "MendLog", "ResumeLog", "ChangePolicy", "StartVerifier", "StopVerifier",
)  # fmt: skip
LOG = "audit.jsonl"


def read_records(log: Path) -> list[dict[str, Any]]:
    """Return what a log tells of people; what it tells of itself and its verifiers is left out."""
    records = [json.loads(line) for line in read_lines(log)]
    return [record for record in records if record["event_name"] not in ABOUT_THE_LOG]


def read_lines(log: Path) -> list[bytes]:
    """Return a log's whole lines that are records; none where there is no log."""
    lines = log.read_bytes().splitlines(keepends=True) if log.is_file() else []
    return [line for line in lines if line.startswith(b"{") and line.endswith(b"}\n")]


def read_all(directory: Path) -> list[bytes]:
    """Return the lines of a log and of all that were rotated away, in the order of writing."""
    files = sorted(directory.glob(f"{LOG}*"), key=_age, reverse=True)
    lines: list[bytes] = []
    for file in files:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        lines += data.splitlines(keepends=True)
    return lines


def _age(file: Path) -> int:
    number = file.name.removeprefix(LOG).strip(".").removesuffix(".gz")
    return int(number or 0)


@functools.cache
def _validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def find_strangers(lines: Iterable[bytes]) -> Iterator[str]:
    """Go through what the schema has against records, a sentence each."""
    for line in lines:
        record = json.loads(line)
        if "sequence" not in record:
            continue  # a test's own line
        for error in _validator().iter_errors(record):
            yield f"{error.json_path}: {error.message} in {line.decode()}"
        if canonical(record) + b"\n" != line:
            yield f"not canonical: {line.decode()}"


def canonical(record: dict[str, Any]) -> bytes:
    """Return a record's one spelling."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def require_schema(directory: Path) -> None:
    """Hold the schema against every record that a test left under a directory."""
    logs = directory.glob(f"**/var/log/pam_mfa/{LOG}*")
    assert [fault for log in logs for fault in find_strangers(read_lines(log))] == []


def require_chain(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """Check each record's place, hash and signature; return the records."""
    records: list[dict[str, Any]] = []
    before, keys = "0" * 64, dict[str, bytes]()
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        assert (number, before) == (record["sequence"], record["previous"]), line
        before = hashlib.sha256(line[:-1]).hexdigest()
        if record["event_name"] == "Checkpoint":
            require_signature(record, keys)
        records.append(record)
    return records


def require_signature(checkpoint: dict[str, Any], keys: dict[str, bytes]) -> None:
    """Check a checkpoint's signature; its key is taken from the first one that has it."""
    signed = dict(checkpoint)
    signature = base64.b64decode(signed.pop("signature"))
    key_id = signed["public_key_id"]
    if "public_key" in signed:
        keys[key_id] = base64.b64decode(signed["public_key"])
    assert key_id == hashlib.sha256(keys[key_id]).hexdigest()[:16]
    try:
        Ed25519PublicKey.from_public_bytes(keys[key_id]).verify(signature, canonical(signed))
    except InvalidSignature as error:
        raise AssertionError(f"a checkpoint is not signed: {checkpoint}") from error
