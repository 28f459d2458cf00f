"""Numbers as tables write them: decimal mark, thousands separator, words for a missing value.

The same functions read the cells of raw files and those of requests to a served model.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Literal

Decimal = Literal[".", ","]
Thousands = Literal[",", ".", " ", "'"]
Cell = bool | int | float | str | None
"""A cell of a table (text) or of a request (any value of JSON)."""

MISSING_WORDS = frozenset(
    ("", "-", "--", "?", ".", "#n/a", "#na", "n/a", "na", "nan", "none", "null", "nil", "missing")
)
"""Cells of a numeric column without a value, in lower case."""

SPACES = str.maketrans({"\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2212": "-", "\u2019": "'"})
"""Spaces, minus signs and apostrophes that programs write for the plain ones."""


@dataclass(frozen=True)
class Notation:
    """How the numbers of a table are written.

    Args:
        decimal: the decimal mark.
        thousands: between groups of three digits; None: digits are not grouped.
        missing: cells that mean a missing value, besides `MISSING_WORDS` in numeric columns.
            Numbers are compared by value.
    """

    decimal: Decimal = "."
    thousands: Thousands | None = None
    missing: list[str | float] = field(default_factory=list)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        point, digits = re.escape(self.decimal), r"\d+"
        if self.thousands is not None:
            digits = rf"(?:\d{{1,3}}(?:{re.escape(self.thousands)}\d{{3}})+|\d+)"
        number = rf"[+-]?(?:{digits}(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"
        return re.compile(number, re.ASCII)

    @cached_property
    def _missing_texts(self) -> frozenset[str]:
        return frozenset(code for code in self.missing if isinstance(code, str))

    @cached_property
    def _missing_numbers(self) -> frozenset[float]:
        return frozenset(value for code in self.missing if (value := self.read(code)) is not None)

    def is_missing(self, cell: Cell) -> bool:
        """Whether a cell is empty or one of ``missing``, in a column of any kind."""
        if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
            return True
        if not self.missing:
            return False
        return cell in self._missing_texts or self.read(cell) in self._missing_numbers

    def number(self, cell: Cell) -> float | None:
        """The number in a cell, NaN for a missing value; None where it is neither."""
        if self.is_missing(cell) or (isinstance(cell, str) and cell.lower() in MISSING_WORDS):
            return math.nan
        return self.read(cell)

    def read(self, cell: Cell) -> float | None:
        """The finite number in a cell, true being 1; None where there is none."""
        if isinstance(cell, str):
            text = cell.translate(SPACES)
            if not self._pattern.fullmatch(text):
                return None
            if self.thousands is not None:
                text = text.replace(self.thousands, "")
            cell = text.replace(self.decimal, ".")
        try:
            value = math.nan if cell is None else float(cell)
        except OverflowError:
            return None
        return value if math.isfinite(value) else None


def propose(cells: Sequence[str], notation: Notation) -> str:
    """The settings under which cells are numbers that are none by ``notation``; "" if none.

    Args:
        cells: texts, none of them missing.
        notation: by which they are no numbers.
    """
    found: list[tuple[Decimal, Thousands | None]] = []
    decimals: tuple[Decimal, ...] = (".", ",")
    separators: tuple[Thousands | None, ...] = (None, ",", ".", " ", "'")
    for decimal, thousands in product(decimals, separators):
        other = Notation(decimal, thousands)
        if decimal == thousands or not cells or any(other.read(cell) is None for cell in cells):
            continue
        if found and (decimal, None) in found:
            continue  # a thousands separator that no cell has
        found.append((decimal, thousands))
    if (notation.decimal, notation.thousands) in found or not found:
        return ""
    settings = [
        f"decimal: {decimal!r}" + ("" if thousands is None else f" and thousands: {thousands!r}")
        for decimal, thousands in found
    ]
    return f"set the source's {', or '.join(settings)}"
