"""Count the examples that an import or an export leaves out, and go on."""

from __future__ import annotations

from collections import Counter

IMAGE, MASK, ROW = "unreadable image", "unusable mask", "malformed row"  # reasons
HIDDEN = "true masks hidden by the view"  # which is no fault of the source


class Unusable(Counter[str]):
    """Reason -> number of examples left out.

    Attributes:
        details: reason -> message about the first example left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.details: dict[str, str] = {}

    def note(self, why: str, first: str, count: int = 1) -> None:
        """Count examples left out.

        Args:
            why: one of the reasons above.
            first: the example and its fault; kept for the first example of each reason.
            count: number of examples.
        """
        self[why] += count
        self.details.setdefault(why, f"the first is {first}")

    def report(self, read: int) -> str:
        """Return a sentence for each reason; "" if nothing was left out.

        Args:
            read: number of examples, with those left out.
        """
        return " ".join(
            f"{number:,} of {read:,} examples left out, {why}: {self.details[why]}." for why, number in self.items()
        )

    def check(self, read: int) -> None:
        """Raise ValueError if more than half of the examples were left out.

        So many unusable examples mean that the source is at fault.
        """
        unusable, whole = self.total() - self[HIDDEN], read - self[HIDDEN]
        if 2 * unusable > whole:
            raise ValueError(
                f"{unusable:,} of {whole:,} examples cannot be used, which is more than half. {self.report(read)}"
            )
