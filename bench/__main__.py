"""List the benchmarks, or run one: ``python -m bench list``, ``python -m bench run NAME``.

A benchmark is a module of this folder with a declaration, the constant BENCHMARK. Libraries that it
compares with are installed into environments of their own, at exact versions, in the folder
OSTINATO_BENCH (default: ~/.cache/ostinato-bench): once, by uv where there is one, else by venv and
pip. Arguments after NAME are those of the benchmark; ``run NAME --help`` prints them.
"""

import argparse
import ast
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent
CACHE = "OSTINATO_BENCH"
ENVIRONMENTS = {  # packages of the peers, at exact versions
    "torch": ("torch==2.13.0", "numpy==2.4.6"),
    "forecasting": ("statsforecast==2.1.1", "neuralforecast==3.3.0", "holidays==0.109"),
    "reservoirpy": ("reservoirpy==0.4.2", "numpy==2.4.6"),
    "opencv": ("opencv-python-headless==5.0.0.93", "numpy==2.4.6"),
}


@dataclass(frozen=True)
class Benchmark:
    """The declaration of a benchmark: its constant BENCHMARK, a literal with these keys.

    Args:
        measures: what is measured, and against which other libraries.
        minutes: order of magnitude on two idle cores, with the default arguments.
        needs: arguments, files or programs without which it does not run; empty for none.
        peers: for each option that takes an interpreter the name of its environment.
    """

    measures: str
    minutes: int
    needs: str = ""
    peers: Mapping[str, str] = field(default_factory=dict)


def benchmarks() -> dict[str, Benchmark]:
    """The declarations by module name; no benchmark is imported."""
    found = {}
    for file in sorted(FOLDER.glob("[!_]*.py")):
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            if (
                isinstance(statement, ast.Assign)
                and ast.unparse(statement.targets[0]) == "BENCHMARK"
            ):
                found[file.stem] = Benchmark(**ast.literal_eval(statement.value))
    return found


def rows(declared: Mapping[str, Benchmark]) -> Iterator[str]:
    """The lines of ``list``."""
    for name, benchmark in declared.items():
        yield f"{name} (about {benchmark.minutes} min): {benchmark.measures}"
        if benchmark.needs:
            yield f"    needs {benchmark.needs}"
        for environment in sorted(set(benchmark.peers.values())):
            yield f"    installs {', '.join(ENVIRONMENTS[environment])}"
    yield "python -m bench run NAME runs one; python -m bench run NAME --help prints its arguments"


def cache() -> Path:
    """The folder of the peers' environments."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ostinato-bench"
    return Path(os.environ.get(CACHE, default))


def interpreter(name: str) -> Path:
    """The interpreter of an environment, which is installed if it is not there yet."""
    packages = ENVIRONMENTS[name]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256("\n".join((version, *packages)).encode()).hexdigest()[:12]
    folder = cache() / f"{name}-{digest}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if not complete.exists():
        print(f"installing {', '.join(packages)} into {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if uv := shutil.which("uv"):
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
            install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python]
        else:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *packages], check=True)
        complete.touch()
    return python


def command(name: str, benchmark: Benchmark, arguments: Sequence[str]) -> list[str]:
    """The command of a benchmark, with an interpreter for each peer that no argument names."""
    words = [sys.executable, "-m", f"bench.{name}", *arguments]
    if "--help" in arguments or "-h" in arguments:
        return words
    given = {argument.partition("=")[0] for argument in arguments}
    for option, environment in benchmark.peers.items():
        if option not in given:
            words += [option, str(interpreter(environment))]
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    declared = benchmarks()
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what each benchmark measures, needs and takes")
    run = commands.add_parser("run", help="run a benchmark", add_help=False)
    run.add_argument("name", choices=declared)
    parsed, rest = parser.parse_known_args(arguments)
    if parsed.command == "list":
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        print("\n".join(rows(declared)))
        return 0
    try:
        words = command(parsed.name, declared[parsed.name], rest)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"bench: the peers of {parsed.name} cannot be installed: {error}", file=sys.stderr)
        return 1
    return subprocess.run(words).returncode


if __name__ == "__main__":
    sys.exit(main())
