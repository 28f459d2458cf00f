"""Draw docs/terminal.svg: the screen of a terminal in which real commands ran.

    python docs/terminal.py

Each command runs in a pseudo-terminal of 108 columns, so programs show what they show a person:
colours, tables, progress bars. The picture loads no font and no script.
"""

import io
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
COLUMNS = 108
COMMANDS = (
    "python -m ostinato list --study params.yaml",
    "python -m ostinato describe doodles",
)


def record(command: str) -> str:
    """Run a command in a pseudo-terminal; return what it wrote."""
    master, terminal = pty.openpty()
    environment = {
        **os.environ,
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm-256color",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    words = shlex.split(command)
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    output = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # Linux reports the end of a terminal as an error
            break
        if not chunk:
            break
        output += chunk
    os.close(master)
    if process.wait():
        sys.exit(f"{command}: exit code {process.returncode}\n{output.decode()}")
    return output.decode()


def screen(output: str) -> list[str]:
    """The lines of the screen after an output, with its returns, moves and deletions of lines."""
    lines, row = [""], 0
    for part in re.split(
        r"(\r\n|\n|\r|\x1b\[\d*[A-Za-ln-z]|\x1b\[\?\d+[hl]|\x1b\][^\x07]*\x07)", output
    ):
        if part in ("\n", "\r\n"):
            row += 1
            if row == len(lines):
                lines.append("")
        elif part == "\r":
            lines[row] = "\r" + lines[row].lstrip("\r")
        elif move := re.fullmatch(r"\x1b\[(\d*)([AK])", part):
            if move[2] == "A":
                row = max(0, row - int(move[1] or 1))
            else:
                lines[row] = ""
        elif not part.startswith("\x1b[") or part.endswith("m"):
            lines[row] = part if lines[row].startswith("\r") else lines[row] + part
    return [line.strip("\r") for line in lines]


def draw() -> str:
    """The picture of all commands as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for command in COMMANDS:
        console.print(Text(f"$ {command}", style="bold green"))
        for line in screen(record(command)):
            console.print(Text.from_ansi(line), soft_wrap=True)
    picture = console.export_svg(title="ostinato", unique_id="terminal")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.S)


if __name__ == "__main__":
    (ROOT / "docs" / "terminal.svg").write_text(draw(), encoding="utf-8")
