"""The models that a server serves: where they come from, and how a new version replaces an old one.

A model is a registered model with an alias, or a result on disk. A new version is loaded and warmed
beside the old one, then takes its place; the old one is released after its last batch. A version
that fails to load leaves the old one in use.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from ostinato import params, store
from ostinato.errors import OstinatoError, ParamsError, RegistryError
from ostinato.serving import kinds
from ostinato.serving.fused import fused_lstm
from ostinato.serving.packaging import pack, serving_of
from ostinato.study import Study
from ostinato.task import Json, Manifest, Service
from ostinato.tracking import dvc_lock

DEFAULT_ALIAS = "champion"
RETRY_S = 60.0  # until a version that failed to load is tried again

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interface:
    """What requests to a model and its responses consist of.

    Args:
        Input: type of an input.
        Response: type of a response.
        options: of a request, with their defaults.
        example: an input as JSON; None: there is none that suits all data sets.
        about: the description.
    """

    Input: type[BaseModel]
    Response: type[BaseModel]
    options: Mapping[str, Json]
    example: Mapping[str, Json] | None
    about: str

    @classmethod
    def of(cls, domain: str) -> "Interface":
        """The interface of a domain's models."""
        module, serving = params.module(domain, "serving"), serving_of(domain)
        about = str(module.__doc__)
        return cls(module.Input, module.Response, serving.options, serving.example, about)


@dataclass(frozen=True)
class Loaded:
    """A version of a model that answers requests.

    Args:
        version: its number in the registry, or a digest of its files.
        service: the model.
        lineage: what is known of it, such as its run, and DVC's md5s of model and data.
        example: an input as JSON; None where there is none.
        reads: what its inputs consist of; see `ostinato.serving.kinds`.
    """

    version: str
    service: Service
    lineage: Mapping[str, str]
    example: Json | None = None
    reads: Mapping[str, Json] = field(default_factory=dict)


class Source(Protocol):
    """Where the versions of a model come from."""

    name: str
    """In URLs."""
    domain: str
    interface: Interface

    def current(self) -> str:
        """The version that should answer.

        Raises:
            OstinatoError: it is not known, for now.
        """

    def load(self, version: str) -> Loaded:
        """Load a version."""


class RegisteredSource:
    """The version of a registered model that has an alias.

    Args:
        name: of the registered model.
        alias: of the version.

    Raises:
        RegistryError: there is no such model or alias, or the registry does not answer.
    """

    def __init__(self, name: str, alias: str) -> None:
        from ostinato.tracking import registry

        self.registry, self.model, self.alias = registry, name, alias
        self.name = name if alias == DEFAULT_ALIAS else f"{name}@{alias}"
        with registry.connected() as client:
            found = client.search_registered_models()
            known = {model.name: model for model in found}
        if name not in known:
            raise RegistryError(f"no registered model {name!r}; {params.near(name, known)}")
        self.domain = known[name].tags["domain"]
        self.interface = Interface.of(self.domain)
        self.current()

    def current(self) -> str:
        """The number of the version that has the alias."""
        with self.registry.connected() as client:
            found = self.registry.aliases(client, self.model)
        if self.alias not in found:
            hint = params.near(self.alias, found) if found else "it has no alias"
            raise RegistryError(f"{self.model}: no version with alias {self.alias!r}; {hint}")
        return found[self.alias]

    def load(self, version: str) -> Loaded:
        """Download a version and load it with the code of this library."""
        with store.private_folder() as folder:
            with self.registry.connected() as client:
                found = client.get_model_version(self.model, version)
                files = self.registry.download(client, found, folder) / "artifacts"
            own = found.tags.get("serving") == self._code
            lineage = {
                **{
                    key: found.tags[key]
                    for key in ("run", "study", "trained", "model", "data")
                    if key in found.tags
                },
                "alias": self.alias,
                "code": "that of the server" if own else "older or newer than the server's",
            }
            return load_files(self.domain, version, files, lineage)

    @cached_property
    def _code(self) -> str:
        return self.registry.code_digest()


class ResultSource:
    """A result on disk, with the data set that it was trained on; it stays the same version.

    Args:
        folder: ``results/RUN`` or ``ensembles/NAME`` of a study.

    Raises:
        ParamsError: it is no folder of a study's results.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.study = Study.load(folder.parent.parent / "params.yaml")
        if self.study.result_folder(self.name) != folder:
            raise ParamsError(
                f"{folder}: expected {self.study.result_folder(self.name)}, the results of "
                f"{self.name} in {self.study.path}"
            )
        self.domain = str(self.study.result(self.name)["domain"])
        self.interface = Interface.of(self.domain)
        with store.private_folder() as trial:  # a missing file is an error at the start
            pack(self.study, self.name, None, trial)

    def current(self) -> str:
        """The digest of the model's files when the server started."""
        return self._digest

    def load(self, version: str) -> Loaded:
        """Load the files as they are now."""
        with store.private_folder() as files:
            pack(self.study, self.name, self._example, files)
            lineage = {"run": self.name, "study": self.study.path.as_posix(), **self._md5s}
            return load_files(self.domain, version, files, lineage)

    @cached_property
    def _digest(self) -> str:
        return store.digest(self.study.result_folder(self.name) / "model")[:12]

    @property
    def _md5s(self) -> dict[str, str]:
        """DVC's md5 of the model and of the prepared data, as far as dvc.lock has them."""
        model = (self.study.result_folder(self.name) / "model").as_posix()
        data = self.study.data_folder(self.study.result(self.name)["data"]).as_posix()
        for stage in dvc_lock.read(self.study).values():
            if model in stage.outs:
                found = {"model": stage.outs[model], "data": stage.deps.get(data)}
                return {name: md5 for name, md5 in found.items() if md5}
        return {}

    @property
    def _example(self) -> Json | None:
        """An input with which the model is warmed up: the domain's, or one of the test split."""
        if self.interface.example is not None:
            return dict(self.interface.example)
        data = self.study.result(self.name)["data"]
        with suppress(OSError, OstinatoError):  # without the raw data there is no example
            keys = store.read_arrays(self.study.result_folder(self.name) / "predictions.npz")
            to_requests = params.module(self.domain, "serving").to_requests
            raw, prepared = self.study.raw_folder(data), self.study.data_folder(data)
            found = to_requests(raw, prepared, keys["keys"][:16].tolist())
            return next(iter(found.values()), None)
        return None


def source(text: str) -> Source:
    """The source that a command names: ``NAME``, ``NAME@ALIAS`` or a folder of results.

    Raises:
        OstinatoError: there is no such model.
    """
    folder = Path(text)
    if folder.parent.name in ("results", "ensembles"):
        return ResultSource(folder)
    if "/" in text:
        raise ParamsError(
            f"serve: found the path {text!r}; expected the folder of a result, such as "
            "results/RUN, or a registered model as NAME@ALIAS"
        )
    name, _, alias = text.partition("@")
    return RegisteredSource(name, alias or DEFAULT_ALIAS)


def sources(texts: Sequence[str]) -> list[Source]:
    """The sources that a command names.

    Raises:
        OstinatoError: there is no such model, or two have one name.
    """
    found = [source(text) for text in texts]
    names = [each.name for each in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ParamsError(f"serve: several models are called {', '.join(sorted(twice))}")
    return found


def load_files(domain: str, version: str, files: Path, lineage: Mapping[str, str]) -> Loaded:
    """Load a packaged model as a version."""
    service = load_service(domain, files)
    reads = kinds.reads(Manifest.read(files / "manifest.json"), service)
    return Loaded(version, service, lineage, example_in(files), reads)


def load_service(domain: str, files: Path) -> Service:
    """Load a packaged model, whose files `pack` has written."""
    from ostinato.training.imports import import_keras_quietly

    import_keras_quietly()
    module = params.module(domain, "serving")
    with fused_lstm():
        service: Service = module.load(files)
        if hasattr(module, "optimise"):
            module.optimise(service)
        if (example := example_in(files)) is not None:  # the first prediction traces the graphs
            service.predict([Interface.of(domain).Input.model_validate(example)], {})
    return service


def example_in(files: Path) -> Json | None:
    """The input with which a packaged model is warmed up; None where it has none."""
    file = files / "request.json"
    return store.read_json(file)["inputs"][0] if file.exists() else None


def warm(loaded: Loaded, interface: Interface, batch_size: int) -> None:
    """Predict the example, alone and in a batch, so that all graphs are compiled."""
    if loaded.example is None:
        return
    example = interface.Input.model_validate(loaded.example)
    for count in (1, batch_size, 1):
        loaded.service.predict([example] * count, interface.options)


@dataclass(frozen=True)
class Failure:
    """A version that could not be loaded, or a registry that did not answer.

    Args:
        version: empty where it is not known.
        message: in one line.
        time: of `time.monotonic`.
    """

    version: str
    message: str
    time: float


class ServedModel:
    """A model in use: its version may be replaced while it answers.

    Args:
        source: of its versions.
        batch_size: with which a version is warmed up.
        changed: called after a version was replaced or failed.
    """

    def __init__(
        self, source: Source, batch_size: int, changed: Callable[[], None] = lambda: None
    ) -> None:
        self.source, self.batch_size, self.changed = source, batch_size, changed
        self.loaded: Loaded | None = None
        self.failure: Failure | None = None

    def in_use(self) -> Loaded:
        """The version that answers; there is one as soon as the server is ready."""
        assert self.loaded is not None
        return self.loaded

    def refresh(self) -> None:
        """Load the version that should answer, if it is another one. One thread calls this."""
        version = ""
        try:
            version = self.source.current()
            if self.loaded and self.loaded.version == version:
                self.failure = None
                return
            failed = self.failure
            if failed and failed.version == version and time.monotonic() < failed.time + RETRY_S:
                return
            loaded = self.source.load(version)
            warm(loaded, self.source.interface, self.batch_size)
        except Exception as error:  # whatever a version's files and a registry do
            self._failed(version, error)
            return
        log.info("%s: version %s is in use", self.source.name, version)
        replaced, self.loaded, self.failure = self.loaded is not None, loaded, None
        self.changed()
        if replaced:
            gc.collect()  # the old version's graphs are cycles

    def _failed(self, version: str, error: Exception) -> None:
        message = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        if self.failure is None or self.failure.message != message:
            kept = (
                f"version {self.loaded.version} stays in use" if self.loaded else "none is in use"
            )
            log.error("%s: version %s: %s; %s", self.source.name, version or "?", message, kept)
        self.failure = Failure(version, message, time.monotonic())
        self.changed()

    def describe(self) -> dict[str, Any]:
        """The state, for `GET /v1/models`."""
        loaded, failure = self.loaded, self.failure
        return {
            "name": self.source.name,
            "domain": self.source.domain,
            "ready": loaded is not None,
            "version": loaded and loaded.version,
            "lineage": dict(loaded.lineage) if loaded else {},
            "failure": failure and {"version": failure.version, "message": failure.message},
        }


class Watcher:
    """A thread that loads all models, then follows their aliases.

    Args:
        models: all that are served.
        poll_s: interval between two looks.
    """

    def __init__(self, models: Sequence[ServedModel], poll_s: float) -> None:
        self.models, self.poll_s = models, poll_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def stop(self) -> None:
        """End after the model that is being loaded, or after five seconds."""
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        # Imports and the like are never garbage: a collection need not look at them again.
        gc.collect()
        gc.freeze()
        while True:
            for model in self.models:
                if self._stop.is_set():
                    return
                model.refresh()
            if self._stop.wait(self.poll_s):
                return
