"""Train a model on your own data from Python, and ask it. No study, DVC or server is needed.

The functions run the same steps as the stages: a source, ``prepare``, ``fit``, ``evaluate`` and the
domain's service. Parameters that are not arguments have the values of the default study. Progress
is logged by the logger "ostinato".
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostinato import models, params, store
from ostinato.errors import DataError
from ostinato.task import Service, TrainingContext
from ostinato.training.imports import import_keras_quietly

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Forecaster:
    """A trained forecaster of one series.

    Args:
        metrics: of the test split, by name: "mae", "mase", ...
        service: answers requests of ostinato.forecasting.serving.
        date: the column of the dates.
        target: the column of the values.
    """

    metrics: Mapping[str, float]
    service: Service
    date: str
    target: str

    def predict(self, history: "pd.DataFrame") -> "pd.DataFrame":
        """Forecast the horizon after the end of a history.

        Args:
            history: with the columns ``date`` and ``target``, at least as long as the window;
                missing dates and values are filled as in training.

        Returns:
            A row for each step: the date, ``forecast`` and the bounds of each interval, such as
            ``low_0.8`` and ``high_0.8``.

        Raises:
            RequestError: the history is too short, or has gaps that training would refuse.
        """
        import pandas as pd

        from ostinato.forecasting.serving import Input

        dates = pd.to_datetime(history[self.date]).map(lambda day: day.isoformat())
        numbers = history[self.target].astype(float)
        values = [None if pd.isna(number) else number for number in numbers]
        request = Input.model_validate({"dates": dates.tolist(), "values": values})
        response: Any = self.service.predict([request], {})[0]
        columns = {self.date: pd.to_datetime(response.dates), "forecast": response.forecast}
        for level, bounds in response.intervals.items():
            columns |= {f"low_{level}": bounds.low, f"high_{level}": bounds.high}
        return pd.DataFrame(columns)


@dataclass(frozen=True)
class DrawingClassifier:
    """A trained classifier of pen drawings.

    Args:
        metrics: of the test split, by name: "top1", "log_loss", ...
        service: answers requests of ostinato.sketches.serving.
    """

    metrics: Mapping[str, float]
    service: Service

    def predict(self, drawings: Iterable[Sequence[Any]]) -> list[dict[str, float]]:
        """The probability of each class for each drawing, the most probable first.

        Args:
            drawings: strokes in drawing order, each [xs, ys] or [xs, ys, times].

        Raises:
            RequestError: a drawing is malformed; names it by its number.
        """
        from ostinato.sketches.serving import Input

        requests = [Input.model_validate({"strokes": strokes}) for strokes in drawings]
        responses: Any = self.service.predict(requests, {"top_k": 0})
        return [dict(response.probabilities) for response in responses]


@dataclass(frozen=True)
class Translator:
    """A trained translator.

    Args:
        metrics: of the test split, by name: "bleu", "chrf", ...
        service: answers requests of ostinato.translation.serving.
    """

    metrics: Mapping[str, float]
    service: Service

    def predict(self, texts: Iterable[str]) -> list[str]:
        """Translate texts."""
        from ostinato.translation.serving import Input

        responses: Any = self.service.predict([Input(text=text) for text in texts], {"top_k": 1})
        return [response.translation for response in responses]


def train_forecaster(
    frame: "pd.DataFrame",
    *,
    date: str,
    target: str,
    horizon: int = 7,
    window: int = 28,
    season: int = 7,
    frequency: str = "D",
    run: str = "weather-seq2seq",
    seed: int = 0,
    prepare: Mapping[str, Any] | None = None,
    build: Mapping[str, Any] | None = None,
    fit: Mapping[str, Any] | None = None,
) -> Forecaster:
    """Train a forecaster on a table with a row for each date.

    Args:
        frame: with the columns ``date`` and ``target``.
        date: a column of dates.
        target: a column of numbers.
        horizon: number of steps to forecast.
        window: number of steps that the model reads.
        season: number of steps in a season.
        frequency: of the dates, as pandas names it.
        run: of the default study, whose model and parameters are used.
        seed: of all that is random.
        prepare: parameters of the data set that differ from the default study's.
        build: likewise of the model.
        fit: likewise of the training.

    Raises:
        OstinatoError: a column is missing, a value is no number, or the series is too short.
    """
    missing = [column for column in (date, target) if column not in frame.columns]
    if missing:
        raise DataError(f"no column {missing[0]!r}; {params.near(missing[0], frame.columns)}")
    length = len(frame)
    splits = {
        "horizon": horizon,
        "window": window,
        "season": season,
        "validation": max(2 * horizon, length // 5) + max(horizon, length // 5),
        "test": max(horizon, length // 5),
    }
    changes = {"prepare": {**splits, **(prepare or {})}, "build": build, "fit": fit}
    with store.private_folder() as folder:
        table = folder / "series.csv"
        frame[[date, target]].to_csv(table, index=False)
        source = {"where": str(table), "date": date, "target": target, "frequency": frequency}
        metrics, service = _train(folder, run, "csv", source, seed, changes)
    return Forecaster(metrics, service, date, target)


def train_drawing_classifier(
    path: Path | str,
    *,
    form: str = "raw",
    run: str = "sketches-conv-bilstm",
    seed: int = 0,
    prepare: Mapping[str, Any] | None = None,
    build: Mapping[str, Any] | None = None,
    fit: Mapping[str, Any] | None = None,
) -> DrawingClassifier:
    """Train a classifier on a folder of .ndjson files in QuickDraw's format, one for each class.

    Args:
        path: of the folder.
        form: raw or simplified.
        run: of the default study, whose model and parameters are used.
        seed: of all that is random.
        prepare: parameters of the data set that differ from the default study's.
        build: likewise of the model.
        fit: likewise of the training.

    Raises:
        OstinatoError: the folder has no drawings, or too many lines are malformed.
    """
    source = {"path": str(Path(path).resolve()), "form": form}
    changes = {"prepare": {"workers": 1, **(prepare or {})}, "build": build, "fit": fit}
    with store.private_folder() as folder:
        metrics, service = _train(folder, run, "folder", source, seed, changes)
    return DrawingClassifier(metrics, service)


def train_translator(
    pairs: Iterable[tuple[str, str]],
    *,
    languages: tuple[str, str],
    run: str = "translation-attention",
    seed: int = 0,
    prepare: Mapping[str, Any] | None = None,
    build: Mapping[str, Any] | None = None,
    fit: Mapping[str, Any] | None = None,
) -> Translator:
    """Train a translator on pairs of texts.

    Args:
        pairs: (source, target); line breaks count as spaces.
        languages: codes of the source and the target language, such as ("en", "fr").
        run: of the default study, whose model and parameters are used.
        seed: of all that is random.
        prepare: parameters of the data set that differ from the default study's.
        build: likewise of the model.
        fit: likewise of the training.

    Raises:
        OstinatoError: there are too few pairs.
    """
    with store.private_folder() as folder:
        columns: list[list[str]] = [[], []]
        for pair in pairs:
            for lines, text in zip(columns, pair, strict=True):
                lines.append(" ".join(text.split()))
        for language, lines in zip(languages, columns, strict=True):
            store.write_text(folder / f"all.{language}", "".join(f"{line}\n" for line in lines))
        source = {
            "languages": list(languages),
            "base_url": str(folder),
            "files": {"all": "all.{language}"},
        }
        changes = {"prepare": prepare, "build": build, "fit": fit}
        metrics, service = _train(folder, run, "moses", source, seed, changes)
    return Translator(metrics, service)


def _train(
    folder: Path,
    run: str,
    source: str,
    arguments: Mapping[str, Any],
    seed: int,
    changes: Mapping[str, Mapping[str, Any] | None],
) -> tuple[Mapping[str, float], Service]:
    """Fetch, prepare, train and evaluate in ``folder``; return the metrics and the service."""
    study = params.load(default_study())
    entry = params.entry(study, "runs", run)
    domain, data = entry["domain"], params.entry(study, "data", entry["data"])
    import_keras_quietly()
    from ostinato.training.machine import Machine
    from ostinato.training.runtime import runtime

    raw, prepared, package = (folder / name for name in ("raw", "prepared", "package"))
    for each in (raw, prepared, package, folder / "fetch"):
        each.mkdir()
    fetch = params.function(params.module(domain, "sources"), source)
    params.bind(fetch, {**data["fetch"][source], **arguments})(raw, folder / "fetch", seed)
    dataset = params.module(domain, "dataset")
    defaults = {"prepare": data["prepare"], "build": entry["build"], "fit": entry["fit"]}
    blocks = {part: {**block, **(changes[part] or {})} for part, block in defaults.items()}
    params.bind(dataset.prepare, blocks["prepare"])(raw, prepared)
    loaded, model = dataset.load(prepared), models.load(domain, entry["model"])
    evaluate = params.bind(
        params.module(domain, "evaluation").evaluate, study["evaluation"][domain]
    )
    # Threads cannot be set any more if the process has used TensorFlow before.
    with params.bind(runtime, study["runtime"])(seed, Machine()):
        trained = params.bind(model.build, blocks["build"])(loaded)
        context = TrainingContext(folder / "checkpoints", seed)
        params.bind(model.fit, blocks["fit"])(trained, loaded, context)
        model.save(trained, package / "model")
    evaluation = evaluate(model.restore(package / "model"), loaded, seed)
    serving = params.module(domain, "serving")
    store.write_arrays(package / "serving.npz", evaluation.serving)
    about = {"domain": domain, "run": run, "model": entry["model"], "prepare": blocks["prepare"]}
    store.write_json(package / "about.json", about)
    for file in ("data/manifest.json", *serving.SERVING.files):
        if file.startswith("data/"):
            shutil.copy(prepared / file.removeprefix("data/"), package)
    return evaluation.metrics, serving.load(package)


def default_study() -> Path:
    """The params file of the default study: in the installed package, or in the checkout."""
    library = Path(__file__).parent
    installed = library / "params.yaml"
    return installed if installed.exists() else library.parent / "params.yaml"
