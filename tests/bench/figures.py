# SPDX-License-Identifier: Apache-2.0
"""From attempts to figures, and figures as a table or as JSON. Pure: no clock, no machine."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from machine import Machine
from one_login import Attempt
from peers import GOOGLE_AUTHENTICATOR

FEWEST_FOR_A_QUANTILE = 2


@dataclass
class Series:
    """All rounds of one contender at one level."""

    name: str
    at_once: int
    rounds: list[list[Attempt]] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """One contender at one level; times in milliseconds, of accepted logins only."""

    name: str
    at_once: int
    attempted: int
    accepted: int
    statuses: dict[int, int]
    p50_ms: float | None
    p95_ms: float | None
    per_second: float
    round_p50_ms: list[float | None]
    round_per_second: list[float]


@dataclass(frozen=True)
class Compared:
    """Figures beside those of pam_google_authenticator at the same level."""

    figures: Figures
    time_ratio: float | None
    rate_ratio: float | None


def summarize(series: Series) -> Figures:
    """Return a series' figures; the rate counts accepted logins only."""
    attempts = [attempt for a_round in series.rounds for attempt in a_round]
    accepted = [attempt for attempt in attempts if attempt.accepted]
    elapsed = sum(_elapsed(a_round) for a_round in series.rounds)
    return Figures(
        name=series.name,
        at_once=series.at_once,
        attempted=len(attempts),
        accepted=len(accepted),
        statuses=dict(Counter(attempt.status for attempt in attempts)),
        p50_ms=_percentile(accepted, 50),
        p95_ms=_percentile(accepted, 95),
        per_second=len(accepted) / elapsed if elapsed else 0.0,
        round_p50_ms=[_percentile(_accepted(a_round), 50) for a_round in series.rounds],
        round_per_second=[len(_accepted(one)) / _elapsed(one) for one in series.rounds],
    )


def compare(all_figures: Sequence[Figures]) -> list[Compared]:
    """Put every contender beside pam_google_authenticator at its level."""
    peers = {one.at_once: one for one in all_figures if one.name == GOOGLE_AUTHENTICATOR}
    compared = []
    for figures in all_figures:
        peer = peers.get(figures.at_once)
        compared.append(
            Compared(
                figures,
                time_ratio=_ratio(figures.p50_ms, peer.p50_ms if peer else None),
                rate_ratio=_ratio(figures.per_second, peer.per_second if peer else None),
            )
        )
    return compared


def as_json(machine: Machine, compared: Sequence[Compared]) -> str:
    """Return everything measured, PAM return codes and single rounds included."""
    results = [
        asdict(one.figures) | {"time_ratio": one.time_ratio, "rate_ratio": one.rate_ratio}
        for one in compared
    ]
    return json.dumps({"machine": asdict(machine), "results": results}, indent=2)


def as_text(machine: Machine, compared: Sequence[Compared]) -> str:
    """Return the machine and one aligned table a level."""
    facts = asdict(machine)
    packages = facts.pop("packages")
    rows = [(key.replace("_", " "), str(value)) for key, value in (facts | packages).items()]
    width = max(len(key) for key, _ in rows)
    lines = [f"{key:<{width}}  {value}" for key, value in rows]
    for at_once in dict.fromkeys(one.figures.at_once for one in compared):
        lines += [
            "",
            f"{at_once} at once; accepted logins only; x GA: beside {GOOGLE_AUTHENTICATOR}",
        ]
        lines += _table([one for one in compared if one.figures.at_once == at_once])
    return "\n".join(lines)


def _table(compared: Sequence[Compared]) -> list[str]:
    """Return one level's lines: names to the left, figures to the right."""
    rows = [("", "accepted", "p50 ms", "p95 ms", "x GA", "logins/s", "x GA")]
    for one in compared:
        figures = one.figures
        rows.append(
            (
                figures.name,
                f"{figures.accepted}/{figures.attempted}",
                _number(figures.p50_ms, 2),
                _number(figures.p95_ms, 2),
                _number(one.time_ratio, 3),
                _number(figures.per_second, 0),
                _number(one.rate_ratio, 3),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def _number(value: float | None, decimals: int) -> str:
    """Return a number as text, a dash for none."""
    return "-" if value is None else f"{value:.{decimals}f}"


def _ratio(value: float | None, base: float | None) -> float | None:
    """Return value / base where there is a base."""
    return value / base if value is not None and base else None


def _accepted(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts that were let in."""
    return [attempt for attempt in attempts if attempt.accepted]


def _elapsed(attempts: Sequence[Attempt]) -> float:
    """Return the seconds from the first start to the last end, over all workers."""
    return max(one.ended for one in attempts) - min(one.began for one in attempts)


def _percentile(attempts: Sequence[Attempt], percent: int) -> float | None:
    """Return a percentile of the durations in milliseconds, None without attempts."""
    durations = [attempt.seconds * 1000 for attempt in attempts]
    if len(durations) < FEWEST_FOR_A_QUANTILE:
        return durations[0] if durations else None
    return statistics.quantiles(durations, n=100, method="inclusive")[percent - 1]
