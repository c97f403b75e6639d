"""The counts of a run, and the words for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fiftyone_genseg.messages import error_in_words
from fiftyone_genseg.statuses import FAILED, NO_TARGET, SEGMENTED, STATUSES, UNPARSABLE, in_words

_REASONS_TOLD = 3


@dataclass
class Summary:
    """Counts of a run, in expressions; `str` gives them as a sentence.

    Attributes:
        total: expressions that were asked for.
        skipped: expressions that had a result already.
        statuses: status of a response, one of `STATUSES` -> expressions that ended with it.
        reasons: error -> expressions that ended with it.
        others: skipped expressions whose result is of another checkpoint, or of other options.
        in_words: expressions whose no-target answer was read from words, a null or an empty box.
    """

    total: int = 0
    skipped: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    in_words: int = 0
    others: int = 0

    @property
    def done(self) -> int:
        """Return the number of expressions that need no more work."""
        return self.skipped + sum(self.statuses.values())

    def count(self, other: Summary) -> None:
        """Add the results that another summary counted."""
        self.statuses += other.statuses
        self.reasons += other.reasons
        self.in_words += other.in_words

    @property
    def all_failed(self) -> bool:
        """Return whether every asked expression failed, without an earlier result."""
        return 0 < self.total == self.statuses[FAILED]

    @property
    def share_done(self) -> float:
        """Return the share of the expressions that need no more work, in [0, 1]."""
        return self.done / self.total if self.total else 1.0

    @property
    def advice(self) -> str:
        """Return advice if results are mixed or mostly unreadable; "" otherwise.

        Mostly means more than half of the answers.
        """
        if self.others:
            return (
                f"{self.others} of the skipped results are of another checkpoint or other options. Overwrite them, or "
                "choose another output field"
            )
        answers = sum(self.statuses[status] for status in (SEGMENTED, NO_TARGET, UNPARSABLE))
        if 2 * self.statuses[UNPARSABLE] <= answers:
            return ""
        return (
            "More than half of the answers could not be read. Try another dialect, or a larger checkpoint "
            "(genseg doctor says what fits)"
        )

    def progress(self, seconds: float) -> str:
        """Return the run's progress, speed and remaining time after some seconds."""
        computed, text = self.done - self.skipped, f"{self.done} of {self.total} expressions"
        if not computed or not seconds:
            return text
        rate = computed / seconds
        left = (self.total - self.done) / rate
        return f"{text}, {rate:.1f} per second, {int(left // 60)}:{int(left % 60):02d} left"

    def __str__(self) -> str:
        counts = {in_words(status): self.statuses[status] for status in STATUSES}
        always = ("segmented", "no-target")
        counts["skipped"] = self.skipped
        notes = {"no-target": f" ({self.in_words} in words)"} if self.in_words else {}
        parts = [f"{count} {what}{notes.get(what, '')}" for what, count in counts.items() if count or what in always]
        worst = self.reasons.most_common(_REASONS_TOLD)
        why = f" ({'; '.join(f'{count} x {error_in_words(reason)}' for reason, count in worst)})" if worst else ""
        return ", ".join(parts) + why
