"""What dvc.lock says of the stages: how the results on disk were made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ostinato import params
from ostinato.study import Study


@dataclass(frozen=True)
class StageRecord:
    """A stage in dvc.lock.

    Args:
        command: that made the outputs.
        params: values by dotted name.
        deps: DVC's md5 by path; of a folder it ends with ".dir".
        outs: likewise.
    """

    command: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    deps: Mapping[str, str] = field(default_factory=dict)
    outs: Mapping[str, str] = field(default_factory=dict)

    def values(self, name: str) -> dict[str, Any]:
        """The parameters, flat, without the prefix of their entry: build.units, data.prepare.test.

        Args:
            name: of the data set, run or ensemble.
        """
        return {
            key.removeprefix(f"runs.{name}.")
            .removeprefix(f"ensembles.{name}.")
            .replace(f"data.{name}.", "data.", 1): value
            for key, value in flat(self.params).items()
        }


def read(study: Study) -> dict[str, StageRecord]:
    """The stages of a study's dvc.lock by their name there: ``train@NAME``; empty without a file.

    Raises:
        ParamsError: the file is not valid YAML.
    """
    path = study.folder / "dvc.lock"
    if not path.exists():
        return {}
    return {
        name: StageRecord(
            command=stage["cmd"],
            params=stage.get("params", {}).get(study.path.as_posix(), {}),
            deps={dep["path"]: dep["md5"] for dep in stage.get("deps", [])},
            outs={out["path"]: out["md5"] for out in stage.get("outs", [])},
        )
        for name, stage in params.read_yaml(path).get("stages", {}).items()
    }


def flat(value: Any, prefix: str = "", max_keys: float = float("inf")) -> dict[str, Any]:
    """Nested mappings as one with dotted keys.

    Args:
        value: a mapping, or the value of one.
        prefix: of the keys.
        max_keys: a mapping with more keys stays whole.
    """
    if not isinstance(value, Mapping) or len(value) > max_keys:
        return {prefix: value}
    parts = [flat(inner, f"{prefix}.{key}".lstrip("."), max_keys) for key, inner in value.items()]
    return {key: inner for part in parts for key, inner in part.items()}
