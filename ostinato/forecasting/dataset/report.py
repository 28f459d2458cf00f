"""What was found in raw files: counts by kind, and the list of rejects."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ostinato.errors import DataError
from ostinato.forecasting.formats.table import shorten

NAMED_ROWS = 3  # that an error lists


def describe(reject: Mapping[str, str | int]) -> str:
    """A reject as messages show it."""
    return "{file}:{row}: {column} {value!r}: {reason}".format(**reject)


@dataclass
class ReadReport:
    """Counts by kind, and rejected rows or cells, with the reason.

    Args:
        counts: by kind.
        rejects: each with file, row (the line at which it begins), column, value and reason.
        unreadable: the rows that count towards ``tolerated_rejects``.
    """

    counts: Counter[str] = field(default_factory=Counter)
    rejects: list[dict[str, str | int]] = field(default_factory=list)
    unreadable: set[tuple[str, int]] = field(default_factory=set)

    def reject(self, file: str, row: int, column: str, value: str, reason: str) -> None:
        """Add an unreadable row, or one of its cells."""
        self.unreadable.add((file, row))
        self._add(file, row, column, value, reason)

    def leave_out(self, file: str, row: int, series: str, reason: str) -> None:
        """Add a whole series that is readable but cannot be used, by its first row."""
        self.counts["series_left_out"] += 1
        self._add(file, row, "series", series, reason)

    def check(self, tolerated: float, hint: Callable[[], str] = str) -> None:
        """Raise an error where more than a share of the rows is unreadable.

        Args:
            tolerated: share of the rows.
            hint: gives what may be changed in params.yaml; called for the error only.
        """
        if len(self.unreadable) > tolerated * self.counts["rows"]:
            examples = map(describe, self.rejects[:NAMED_ROWS])
            raise DataError(
                f"{len(self.unreadable)} of {self.counts['rows']} rows cannot be used, more than "
                f"tolerated_rejects: {tolerated} allows{hint()}:\n  " + "\n  ".join(examples)
            )

    def _add(self, file: str, row: int, column: str, value: str, reason: str) -> None:
        self.rejects.append(
            {
                "file": file,
                "row": row,
                "column": column,
                "value": shorten(value),
                "reason": reason,
            }
        )
