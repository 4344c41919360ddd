# SPDX-License-Identifier: Apache-2.0
"""Switches services on, off and back: the order of the writes, whatever happens between them.

The journal is written before the first file and after the last one. What it says is unfinished, or
not confirmed in time, the next call of anything here undoes; so does the boot, and so does a timer.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pam_mfa.errors import BrokenSystemError, PamMfaError, RefusedError
from pam_mfa.store.layout import Layout
from pam_mfa.switching import undoing
from pam_mfa.switching.catalog import ALL, SSHD
from pam_mfa.switching.evidence import is_proven, read_passages
from pam_mfa.switching.journal import Journal, Record, Records, Stage
from pam_mfa.switching.placing import place, read_placed, require_changeable
from pam_mfa.switching.plan import Plan
from pam_mfa.switching.restoring import force_out_each, restore
from pam_mfa.switching.sshd import reload_sshd, require_effect

Arm = Callable[[float], str]


class Confirmed(NamedTuple):
    """What came of a confirmation."""

    confirmed: tuple[str, ...]
    unproven: tuple[str, ...]


class Switchboard:
    """The switches under one root."""

    def __init__(self, layout: Layout, arm: Arm | None = None) -> None:
        """Take the root; ``arm`` sees to it that ``expire`` is called so many seconds from now."""
        self._layout = layout
        self._root = layout.root
        self._journal = Journal(layout)
        self._arm = arm or (lambda seconds: undoing.arm(self._root, seconds, self._charge()))

    def read(self) -> Records:
        """Return what is switched; changes nothing."""
        return self._journal.read()

    def turn_on(self, plan: Plan, by: str, within: float) -> list[str]:
        """Carry a plan out; return sentences on what else was done.

        Args:
            plan: of services none of which is on.
            by: the caller's name.
            within: seconds after which it is undone, unless it is confirmed; 0: never.

        Raises:
            RefusedError: it could not be done, and everything is as it was.
        """
        with self._journal.lock():
            records = self._mended()[0]
            self._require_as_planned(plan, records)
            now = undoing.seconds_since_boot()
            deadline = now + within if within else 0.0
            new = {
                one.service: Record(
                    one.service, one.files, Stage.TURNING_ON, time.time(), by, not within,
                    undoing.current_boot(), deadline,
                )
                for one in plan.changes
            }  # fmt: skip
            self._journal.write({**records, **new})
            try:
                if within:
                    self._arm(within)
                self._carry_out(plan)
            except (OSError, PamMfaError) as error:
                self._take_back(records, new.values())
                raise RefusedError(
                    f"the switch failed, and everything is as it was: {error}",
                    hint=getattr(error, "hint", ""),
                ) from error
            done = {name: one._replace(stage=Stage.ON) for name, one in new.items()}
            self._journal.write({**records, **done})
            return [reload_sshd(self._root)] if SSHD in new else []

    def turn_off(self, words: Sequence[str], *, is_forced: bool) -> list[str]:
        """Bring services back to what they were before they were switched on.

        Raises:
            RefusedError: one is not switched on, or its files cannot be changed.
            BrokenSystemError: the journal is damaged; forced, that is no hindrance.
        """
        with self._journal.lock():
            try:
                records = self._journal.read()
            except BrokenSystemError:
                if not is_forced:
                    raise
                return self._force_out_blindly()
            self._journal.tidy()
            names = list(records) if ALL in words else list(dict.fromkeys(words))
            missing = [name for name in names if name not in records]
            if missing and not is_forced:
                raise RefusedError(
                    f"{missing[0]} is not switched on",
                    hint="See: pam-mfa switch status. To take out lines that were put in by hand: "
                    f"pam-mfa switch off {missing[0]} --force",
                )
            ending = [records[name] for name in names if name in records]
            if not is_forced:
                said = self._end(records, ending, is_forced=False)
                return [*said, reload_sshd(self._root)] if SSHD in names else said
            return self._force_out(records, ending, None if ALL in words else missing)

    def _force_out(
        self, records: Records, ending: Sequence[Record], missing: Sequence[str] | None
    ) -> list[str]:
        """End switches and take out lines of nobody's switch: as many as can be, whatever fails.

        Args:
            records: the journal.
            ending: what is switched on and meant.
            missing: services that are meant and were not switched on; None: every service.

        Raises:
            RefusedError: a file could not be changed; all others are.
        """
        said, held = self._end_able(records, ending, is_forced=True)
        for part in force_out_each(self._root, missing):
            said += part.said
            held = held or part.refusal
        if missing is None or SSHD in [*missing, *(one.service for one in ending)]:
            said.append(reload_sshd(self._root))
        _require_done(held)
        return said

    def _force_out_blindly(self) -> list[str]:
        """Do without a journal; it is set aside last, so a power cut before that loses nothing."""
        said = self._force_out({}, [], None)
        self._journal.set_aside()
        return said

    def confirm(self, names: Sequence[str], user: str | None, *, is_anyway: bool) -> Confirmed:
        """Keep what is switched on, where somebody has got in by it since.

        Args:
            names: services; none: all that wait for it.
            user: who must have got in; None: anybody.
            is_anyway: take it without that.

        Raises:
            RefusedError: nothing waits, or it was undone before.
        """
        with self._journal.lock():
            records, undone = self._mended()
            waiting = [one for one in records.values() if not one.confirmed]
            chosen = [one for one in waiting if not names or one.service in names]
            if not chosen:
                late = "; it was undone, for it was too late" if undone else ""
                raise RefusedError(
                    f"nothing that is switched on waits for a confirmation{late}",
                    hint="See: pam-mfa switch status",
                )
            passages = read_passages(self._layout.audit_log, min(one.at for one in chosen))
            proven = [
                one for one in chosen
                if is_anyway or is_proven(passages, one.service, one.at, user)
            ]  # fmt: skip
            kept = {one.service: one._replace(confirmed=True) for one in proven}
            if kept:
                self._journal.write({**records, **kept})
            unproven = [one.service for one in chosen if one.service not in kept]
            return Confirmed(tuple(kept), tuple(unproven))

    def expire(self) -> list[str]:
        """Undo what is interrupted or was not confirmed in time; return sentences on it."""
        with self._journal.lock():
            return self._mended()[1]

    def _charge(self) -> undoing.Charge:
        def is_waiting() -> bool:
            return any(
                one.stage is not Stage.ON or not one.confirmed for one in self.read().values()
            )

        return undoing.Charge(self.expire, is_waiting)

    def _mended(self) -> tuple[Records, list[str]]:
        """Return the journal with nothing in it that is due, and what was undone."""
        records = self._journal.read()
        self._journal.tidy()
        boot, now = undoing.current_boot(), undoing.seconds_since_boot()
        due = [one for one in records.values() if one.is_due(boot, now)]
        said, held = self._end_able(records, due, is_forced=False)
        kept = self._journal.read() if held else {}
        for one in (one for one in due if one.service not in kept):
            why = "was not confirmed in time" if one.stage is Stage.ON else "was interrupted"
            said.append(f"The switch of {one.service} {why} and has been undone.")
        if any(one.service == SSHD and one.service not in kept for one in due):
            said.append(reload_sshd(self._root))
        _require_done(held)
        return {name: one for name, one in records.items() if one not in due}, said

    def _end(self, records: Records, ending: Sequence[Record], *, is_forced: bool) -> list[str]:
        """Bring services back, the journal first and last."""
        if not ending:
            return []
        marked = {
            one.service: one._replace(stage=Stage.TURNING_OFF)
            for one in ending
            if one.stage is Stage.ON
        }
        if marked:
            for one in marked.values():
                self._require_restorable(one)
            self._journal.write({**records, **marked})
        said = [
            sentence
            for one in reversed(ending)
            for sentence in restore(self._root, one, is_forced=is_forced)
        ]
        gone = {one.service for one in ending}
        self._journal.write({name: one for name, one in records.items() if name not in gone})
        return said

    def _end_able(
        self, records: Records, ending: Sequence[Record], *, is_forced: bool
    ) -> tuple[list[str], RefusedError | None]:
        """Bring those back whose files can be changed; return why others could not be.

        One file that is immutable must not keep people locked out of every other service.
        """
        able, held = [], None
        for one in ending:
            try:
                self._require_restorable(one)
            except RefusedError as refusal:
                held = refusal
            else:
                able.append(one)
        return self._end(records, able, is_forced=is_forced), held

    def _require_restorable(self, record: Record) -> None:
        """Refuse before the journal says that something is under way which cannot be done."""
        for file in record.files:
            path = self._root / file.path
            if read_placed(path).data != file.before.data:
                require_changeable(path)

    def _require_as_planned(self, plan: Plan, records: Records) -> None:
        require_changeable(self._journal.path)
        for change in plan.changes:
            if change.service in records:
                raise RefusedError(f"{change.service} is switched on already")
            for file in change.files:
                path = self._root / file.path
                if read_placed(path).data != file.before.data:
                    raise RefusedError(
                        f"{path} was changed while this was planned; nothing was done",
                        hint="Run the command again.",
                    )
                require_changeable(path)

    def _carry_out(self, plan: Plan) -> None:
        for change in plan.changes:
            for file in change.files:
                place(self._root / file.path, file.before._replace(data=file.after))
            if change.service == SSHD and plan.first is not None:
                require_effect(self._root, None, plan.first)

    def _take_back(self, records: Records, new: Iterable[Record]) -> None:
        for one in new:
            restore(self._root, one)
        self._journal.write(records)


def _require_done(held: RefusedError | None) -> None:
    """Raise what kept a file from being changed, after everything else was done."""
    if held is not None:
        text = str(held).removesuffix("; nothing was changed")
        raise RefusedError(f"{text}; everything else was undone", hint=held.hint) from held
