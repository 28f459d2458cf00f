"""Batch prediction: answer the inputs of files by a model, as ``python -m ostinato predict`` does.

The flow runs that command, so a run that is started again with the same parameters continues where
a killed one has ended. A flow run fails where nothing could be answered.

By hand: ``python -m flows.predict MODEL INPUT OUTPUT``, or the command itself.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.engine import commands
from flows.engine.errors import fails_with_message
from ostinato import store
from ostinato.errors import FlowError
from ostinato.serving.settings import add_predict_arguments, read_options


@flow(name="predict", validate_parameters=True)
@fails_with_message
def predict(
    model: str,
    input: str,
    output: str,
    options: dict[str, Any] = {},  # noqa: B006 - Prefect's form shows it; nothing changes it
    overwrite: bool = True,
) -> Any:
    """Answer the inputs of a file or a folder by a model, and write the answers as a table.

    Args:
        model: A registered model as NAME@ALIAS (NAME is NAME@champion), or a folder of results
            such as results/RUN.
        input: Path of a file, or of a folder with files, on the worker.
        output: Path of the table, which ends with .parquet, .csv or .ndjson.
        options: Of requests to the model, such as top_k, and of the reader of the files.
        overwrite: Replace an output that exists, and what another, unfinished run has left.

    Returns:
        The content of OUTPUT.json: model, version, lineage, input and counts.
    """
    logger = get_run_logger()
    argv = arguments_of(model, input, output, options, overwrite)
    with commands.supervised():
        done = commands.run(sys.executable, "-m", "ostinato", *argv, on_line=logger.info)
    if done.code:
        last = next((line for line in reversed(done.lines) if line.strip()), "no output")
        raise FlowError(f"predict: exit code {done.code}: {last}")
    lineage = store.read_json(Path(f"{output}.json"))
    summary = describe(output, lineage)
    create_markdown_artifact(summary, key="predict", description=f"Answers of {model}")
    return Completed(message=summary.splitlines()[0], data=lineage)


def arguments_of(
    model: str, input: str, output: str, options: Mapping[str, Any], overwrite: bool
) -> list[str]:
    """The arguments of the command; no value of a parameter is taken for an option."""
    settings = [f"--set={name}={json.dumps(value)}" for name, value in options.items()]
    return ["predict", *settings, *["--overwrite"] * overwrite, "--", model, input, output]


def describe(output: str, lineage: Mapping[str, Any]) -> str:
    """What was answered, as Markdown; its first line says it in short."""
    counts = lineage["counts"]
    shown = ", ".join(f"{counts[name]:,} {name}" for name in ("answered", "rejected", "rows"))
    lines = [
        shown,
        "",
        f"- model: {lineage['name']}, version {lineage['version']}",
        f"- input: {lineage['input']['path']}, {len(lineage['input']['files']):,} files",
        f"- output: {output}",
        f"- time: {lineage['seconds']:,.1f} s",
    ]
    if counts["rejected"]:
        lines.append(f"- rejects: {output}.rejects.ndjson")
    return "\n".join(lines)


def main() -> None:
    """Run the flow from a shell."""
    parser = argparse.ArgumentParser(prog="python -m flows.predict")
    add_predict_arguments(parser)
    parsed = parser.parse_args()
    state: Any = predict(
        parsed.model,
        str(parsed.input),
        str(parsed.output),
        read_options(parsed.set),
        parsed.overwrite,
        return_state=True,
    )
    sys.exit(0 if state.is_completed() else f"{state.name}: {state.message}")


if __name__ == "__main__":
    main()
