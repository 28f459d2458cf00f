"""Move versions that were registered under the name of a domain to the name of their data set.

``python -m ostinato.tracking.upgrade [STUDY ...] [--dry-run]``

Before, a registered model was named by its domain (``forecasting``), and its versions had no tag
``study``. Each such version goes to the first of the studies (by default the default study, then
the recipes) that has its data set. Its files stay where they are; the new version has its tags,
description and run, and takes its aliases where the new name does not have them yet. A run of the
command that was killed is continued by the next one.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ostinato import params
from ostinato.errors import OstinatoError
from ostinato.study import Study, studies
from ostinato.tracking import registry
from ostinato.tracking.client import pages

MOVED = "moved from"  # tag of a version: its former name and number


def upgrade(found: Sequence[Study], dry_run: bool) -> Iterator[str]:
    """Move old versions; yields a line for each.

    Args:
        found: studies, in the order in which a data set is looked for.
        dry_run: only report.

    Raises:
        RegistryError: MLflow does not answer.
    """
    with registry.connected() as client:
        for model in list(pages(client.search_registered_models)):
            versions = registry.versions(client, model.name)
            old = [v for v in reversed(versions) if is_old(v)]
            for version in old:
                yield _move(client, model, version, found, dry_run)
            former = old or model.tags.get("domain") == model.name
            if former and not dry_run and not registry.versions(client, model.name):
                client.delete_registered_model(model.name)
                yield f"{model.name}: deleted, as it has no version left"


def is_old(version: Any) -> bool:
    """Whether a version was registered by Ostinato before models were named by data sets."""
    tags = version.tags
    return "study" not in tags and {"run", "trained", "model", "params"} <= tags.keys()


def _move(client: Any, model: Any, version: Any, found: Sequence[Study], dry_run: bool) -> str:
    """Move a version, or tag it where its name stays; returns what was done, as a line."""
    domain = model.tags.get("domain", model.name)
    data = json.loads(version.tags["params"]).get("data")
    before = f"{model.name} {version.version}"
    study = next((s for s in found if _domain(s, data) == domain), None)
    if study is None:
        hint = params.near(str(data), {name for s in found for name in s.params["data"]})
        return f"{before}: stays: no study has a data set {data!r} of {domain}; {hint}"
    target, path = registry.model_name(study.name, data), study.path.as_posix()
    if target == model.name:
        if not dry_run:
            client.set_model_version_tag(model.name, version.version, "study", path)
        return f"{before}: its name stays; it is of {path}"
    aliases = sorted(a for a, n in model.aliases.items() if str(n) == str(version.version))
    if dry_run:
        return f"{before}: to {target} ({path}){_listed(aliases)}"
    moved = registry.versions(client, target, {MOVED: before})
    if not moved:
        registry.describe(client, target, domain)
        tags = {**version.tags, "study": path, MOVED: before}
        moved = [
            client.create_model_version(
                target,
                version.source,
                version.run_id,
                tags,
                description=version.description,
                model_id=version.model_id,
            )
        ]
    present = registry.aliases(client, target)
    for alias in aliases:
        if alias not in present:
            client.set_registered_model_alias(target, alias, moved[0].version)
    client.delete_model_version(model.name, version.version)
    number = str(moved[0].version)
    kept = [alias for alias in aliases if present.get(alias, number) == number]
    return f"{before}: moved to {target} {number} ({path}){_listed(kept)}"


def _domain(study: Study, data: Any) -> Any:
    return study.params["data"].get(data, {}).get("domain")


def _listed(aliases: Sequence[str]) -> str:
    return f", {', '.join(aliases)}" if aliases else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m ostinato.tracking.upgrade", description=__doc__
    )
    parser.add_argument("study", nargs="*", help="params file; none: all of the checkout")
    parser.add_argument("--dry-run", action="store_true", help="only report")
    parsed = parser.parse_args(arguments)
    try:
        found = [Study.load(path) for path in parsed.study or studies()]
        lines = 0
        for line in upgrade(found, parsed.dry_run):
            print(line, flush=True)
            lines += 1
    except OstinatoError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if not lines:
        print("No version is registered under the name of a domain.")


if __name__ == "__main__":
    main()
