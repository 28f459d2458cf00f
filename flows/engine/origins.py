"""Whether a data set's remote files have changed since they were fetched.

The stage `fetch` notes the state (ETag, length, date) of each file that it reads over the network.
A flow that asks for new data compares it with the servers' and fetches only what may be new.
"""

from pathlib import Path

from ostinato import download, store
from ostinato.study import Study
from ostinato.tracking import dvc_lock
from ostinato.tracking.registry import model_name

TIMEOUT_S = 10.0  # of a request
MAX_CONCURRENCY = 8


def remember(study: Study, data: str) -> None:
    """Note which remote files the raw data on disk, as dvc.lock has it, came from."""
    file = study.urls_file(data)
    urls = store.read_json(file) if file.exists() else {}
    store.write_json(_note(study, data), {"raw": _raw_md5(study, data), "urls": urls})


def may_be_new(study: Study, data: str) -> bool:
    """Whether a fetch could give other raw data than those of dvc.lock.

    True also where nothing is known: before the first fetch of a flow, for a source that reads no
    URL or is no plain download, and where a server tells no state.
    """
    note = _note(study, data)
    if not note.exists():
        return True
    known = store.read_json(note)
    if not known["urls"] or known["raw"] != _raw_md5(study, data):
        return True
    return not download.unchanged(known["urls"], timeout=TIMEOUT_S, max_concurrency=MAX_CONCURRENCY)


def _note(study: Study, data: str) -> Path:
    return Path(".dvc", "tmp", f"origin-{model_name(study.name, data)}.json")


def _raw_md5(study: Study, data: str) -> str | None:
    record = dvc_lock.read(study).get(f"fetch@{data}", dvc_lock.StageRecord())
    return record.outs.get(study.raw_folder(data).as_posix())
