"""Tables on the command line: by rich in a terminal, plain text in a pipe."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows under a header.

    Args:
        header: title of each column.
        rows: the cells, as many as titles.
        text: the lines that show the table in a pipe; empty for aligned columns.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: Sequence[str] = ()

    def lines(self) -> list[str]:
        """The table as plain text, the same for every width."""
        if self.text:
            return list(self.text)
        rows = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        aligned = (
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
            for row in rows
        )
        return [f"  {line}".rstrip() for line in aligned]


def show(parts: Iterable[str | Table]) -> None:
    """Print lines and tables; colours only in a terminal, and not with NO_COLOR.

    All parts are made first, so that an error of one prints none.
    """
    made = list(parts)
    if not (sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"):
        lines = [
            line for part in made for line in ([part] if isinstance(part, str) else part.lines())
        ]
        print("\n".join(lines), flush=True)
        return
    import rich.box
    import rich.table
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    for part in made:
        if isinstance(part, str):
            console.print(Text(part))
            continue
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
        for number, title in enumerate(part.header):
            table.add_column(title, overflow="fold", style="" if number else "bold")
        for row in part.rows:
            table.add_row(*map(Text, row))
        console.print(table)
