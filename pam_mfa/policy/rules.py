# SPDX-License-Identifier: Apache-2.0
"""Rules as a file has them: read strictly, every mistake told with its line and key.

Loaded where a policy has rules only.
"""

import re
from collections.abc import Callable, Iterator

from pam_mfa.document import Section
from pam_mfa.errors import DocumentError
from pam_mfa.mfa_age import LOGIN_LONGEST, Scope
from pam_mfa.policy.conditions import (
    DAYS,
    LOCAL,
    MINUTES,
    REMOTE,
    From,
    Groups,
    Names,
    NotFrom,
    Phases,
    Terminals,
    When,
    name_terminal,
)
from pam_mfa.policy.faults import Faults
from pam_mfa.policy.networks import HostBitsError, Network, parse_network
from pam_mfa.policy.values import read_devices, read_duration, read_word
from pam_mfa.policy.words import Condition, Effect, Mode, Rule
from pam_mfa.wire import TEXT_MAX, Phase

RULES_MAX = 2000
_NAME_MAX = 100  # characters; it stands in every record
_KEYS = ("name", "match", "then", "require", "message", "mode", "mfa_age", "scope")
_MATCHES = (
    "phase", "service", "user", "group", "tty", "from", "not_from", "weekday", "time", "zone",
)  # fmt: skip
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", re.ASCII)
_WORDS_OF_THEN = (Effect.SKIP.value, Effect.DENY.value)


class RuleReader:
    """Reads the rules of a policy and of its fragments, whose names are unique together."""

    def __init__(self, faults: Faults) -> None:
        """Take where mistakes go."""
        self.rules: list[Rule] = []
        self._faults = faults
        self._places: dict[str, str] = {}

    def read(self, top: Section) -> None:
        """Add the rules under a document's key ``rules``."""
        sections = self._faults.try_or([], top.sections, "rules")
        for section in sections:
            if len(self.rules) == RULES_MAX:
                self._faults.add(top.error("rules", f"are more than {RULES_MAX} in all"))
                return
            rule = self._read_rule(section)
            if rule is not None:
                self.rules.append(rule)

    def _read_rule(self, section: Section) -> Rule | None:
        """Return a rule; None where something in it is wrong, which is noted."""
        faults = self._faults
        before = len(faults.errors)
        faults.refuse_unknown(section, _KEYS)
        name = faults.try_or("", self._read_name, section)
        conditions = self._read_conditions(section)
        effect = faults.try_or(Effect.DENY, _read_effect, section)
        devices = faults.try_or((), _read_require, section)
        message = faults.try_or("", _read_message, section, effect)
        mode = faults.try_or(None, _read_mode, section)
        mfa_age = faults.try_or(0.0, _read_mfa_age, section, effect)
        scope = faults.try_or(Scope.SESSION, _read_scope, section)
        if len(faults.errors) > before:
            return None
        place = f"{section.source}, line {section.line}"
        phases = next((one.phases for one in conditions if isinstance(one, Phases)), frozenset())
        return Rule(
            name, conditions, effect, devices, message, mode, place, mfa_age, scope, phases
        )  # fmt: skip

    def _read_name(self, section: Section) -> str:
        name = section.require("name", str)
        if not name.strip() or len(name) > _NAME_MAX or not name.isprintable():
            raise section.error("name", f"must be of 1 to {_NAME_MAX} printable characters")
        if name in self._places:
            raise section.error(
                "name",
                f"is '{name}', as of the rule in {self._places[name]}",
                "Records and explanations tell rules by their names.",
            )
        self._places[name] = f"{section.source}, line {section.line}"
        return name

    def _read_conditions(self, section: Section) -> tuple[Condition, ...]:
        if "match" not in section:
            self._faults.add(section.error(
                "match", "is missing", "Where a rule is for everybody, write: match: {}"
            ))  # fmt: skip
            return ()
        match = self._faults.section(section, "match", _MATCHES)
        found = []
        for keys, read in _READERS:  # groups come last: they have to be looked up
            if any(key in match for key in keys):
                condition = self._faults.try_or(None, read, match)
                if condition is not None:
                    found.append(condition)
        return tuple(found)


def _read_effect(section: Section) -> Effect:
    if ("then" in section) == ("require" in section):
        key = "then" if "then" in section else "name"
        raise section.error(
            key,
            "stands beside 'require'" if key == "then" else "names a rule that does nothing",
            "A rule has one of these: then: skip, then: deny, require: [...]",
        )
    if "require" in section:
        return Effect.REQUIRE
    word = section.require("then", str)
    if word not in _WORDS_OF_THEN:
        raise section.error("then", f"is '{word}', not one of {', '.join(_WORDS_OF_THEN)}")
    return Effect(word)


def _read_require(section: Section) -> tuple[str, ...]:
    return read_devices(section, "require") if "require" in section else ()


def _read_message(section: Section, effect: Effect) -> str:
    message = section.get("message", str, default="")
    if "message" in section and effect is not Effect.DENY:
        raise section.error("message", "goes with 'then: deny' only")
    if not message.isprintable() or len(message.encode()) > TEXT_MAX:
        raise section.error("message", f"must be one line of at most {TEXT_MAX} bytes")
    return message


def _read_mode(section: Section) -> Mode | None:
    return read_word(section, "mode", Mode, Mode.ENFORCE) if "mode" in section else None


def _read_mfa_age(section: Section, effect: Effect) -> float:
    if "mfa_age" in section and effect is not Effect.REQUIRE:
        raise section.error("mfa_age", "goes with 'require' only")
    return read_duration(section, "mfa_age", 0.0)


def _read_scope(section: Section) -> Scope:
    if "scope" in section and "mfa_age" not in section:
        raise section.error("scope", "goes with 'mfa_age' only", "It says where the age counts.")
    return read_word(section, "scope", Scope, Scope.SESSION)


def _read_texts(match: Section, key: str) -> list[str]:
    """Return a list of words, each there once; as text, which YAML does not take all words for."""
    texts = match.texts(key)
    if not texts:
        raise match.error(key, "is empty, so nothing could ever match")
    for index, text in enumerate(texts):
        if not text or not text.isprintable():
            raise match.error(key, "has a word without printable characters")
        if text in texts[:index]:
            raise match.error(key, f"names '{text}' twice")
    return texts


def _read_phases(match: Section) -> Condition:
    texts, known = _read_texts(match, "phase"), {one.name.lower(): one for one in Phase}
    for text in texts:
        if text not in known:
            raise match.error("phase", f"is '{text}', not one of {', '.join(known)}")
    return Phases(frozenset(known[text] for text in texts))


def _read_services(match: Section) -> Condition:
    return Names("service", frozenset(_read_texts(match, "service")))


def _read_users(match: Section) -> Condition:
    return Names("user", frozenset(_read_texts(match, "user")))


def _read_groups(match: Section) -> Condition:
    return Groups(frozenset(_read_texts(match, "group")))


def _read_terminals(match: Section) -> Condition:
    texts = _read_texts(match, "tty")
    names = [name_terminal(text) for text in texts if text not in (LOCAL, REMOTE)]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise match.error("tty", f"names '{name}' twice, with and without /dev/")
        if not name or set(name) & set("*?[ "):
            raise match.error(
                "tty", f"names '{name}', which is no terminal",
                "Write whole names as tty1 or pts/0, or the words local and remote.",
            )  # fmt: skip
    return Terminals(frozenset(names), LOCAL in texts, REMOTE in texts)


def _read_networks(match: Section, key: str) -> tuple[tuple[Network, ...], tuple[str, ...]]:
    networks: list[Network] = []
    texts = _read_texts(match, key)
    for text in texts:
        try:
            network = parse_network(text)
        except HostBitsError as error:
            raise match.error(
                key, f"names '{text}', which has host bits set", f"Did you mean '{error}'?"
            ) from error
        except ValueError as error:
            raise match.error(
                key, f"names '{text}', which is no network",
                "Write addresses as 10.0.0.0/8 or fd00::/8; names are not resolved.",
            ) from error  # fmt: skip
        if network in networks:
            raise match.error(
                key, f"names '{texts[networks.index(network)]}' twice, again as '{text}'"
            )
        networks.append(network)
    return tuple(networks), tuple(texts)


def _read_from(match: Section) -> Condition:
    return From(*_read_networks(match, "from"))


def _read_not_from(match: Section) -> Condition:
    return NotFrom(*_read_networks(match, "not_from"))


def _read_when(match: Section) -> Condition:
    days: tuple[str, ...] = DAYS
    if "weekday" in match:
        days = tuple(_read_texts(match, "weekday"))
        unknown = [day for day in days if day not in DAYS]
        if unknown:
            raise match.error("weekday", f"is '{unknown[0]}', not one of {', '.join(DAYS)}")
    start, end = _read_time(match) if "time" in match else (0, MINUTES)
    zone = _read_zone(match) if "zone" in match else "UTC"
    key = ", ".join(key for key in ("weekday", "time") if key in match)
    return When(frozenset(map(DAYS.index, days)), start, end, zone, key)


def _read_time(match: Section) -> tuple[int, int]:
    text = match.require("time", str)
    found = _TIME.fullmatch(text)
    start = int(found[1]) * 60 + int(found[2]) if found else 0
    end = int(found[3]) * 60 + int(found[4]) if found and found[3] else MINUTES
    if found is None or start == end:
        raise match.error("time", f"is '{text}', not a time of the day", "Write it as 08:00-18:00.")
    return start, end


def _read_zone(match: Section) -> str:
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - start-up cost: only where a rule has a zone

    zone = match.require("zone", str)
    if "weekday" not in match and "time" not in match:
        raise match.error("zone", "goes with 'weekday' and 'time' only")
    try:
        if _ZONE.fullmatch(zone):
            ZoneInfo(zone)
            return zone
    except (KeyError, ValueError, OSError):  # none, a directory, or no file of zones
        pass
    raise match.error("zone", f"is '{zone}', which this host knows no time zone by")


_READERS: tuple[tuple[tuple[str, ...], Callable[[Section], Condition]], ...] = (
    (("phase",), _read_phases),
    (("service",), _read_services),
    (("user",), _read_users),
    (("tty",), _read_terminals),
    (("from",), _read_from),
    (("not_from",), _read_not_from),
    (("weekday", "time", "zone"), _read_when),
    (("group",), _read_groups),
)


def find_memory(rules: list[Rule]) -> float:
    """Return for how many seconds a verification may be wanted by one of the rules; 0: for none."""
    wants = [rule for rule in rules if rule.mfa_age or rule.phases - {Phase.AUTH}]
    return max(LOGIN_LONGEST, *(rule.mfa_age for rule in wants)) if wants else 0.0


def name_groups(rules: list[Rule]) -> frozenset[str]:
    """Return every group that rules name."""
    return frozenset(
        name
        for rule in rules
        for condition in rule.conditions
        if isinstance(condition, Groups)
        for name in condition.names
    )


def refuse_more(fragment: Section) -> Iterator[DocumentError]:
    """Go through the errors for what a fragment has besides rules."""
    for key in fragment:
        if key == "include":
            yield fragment.error(
                key, "stands in a fragment, which includes nothing", "Include it in the policy."
            )
        elif key != "rules":
            yield fragment.error(
                key, "stands in a fragment, which has rules only", "It belongs into the policy."
            )
