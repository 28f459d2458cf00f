"""The library's code in a logged model: one archive, as files are uploaded one by one.

The archive is unpacked where the model is loaded, into a temporary folder of that process: the
model's own folder need not be writable.
"""

import zipfile
from pathlib import Path

import ostinato
from ostinato import store

ARCHIVE = "ostinato.zip"
UNPACK = "ostinato_code"  # the module that unpacks the archive when it is imported
UNPACK_CODE = '''\
"""Unpack the library's code into a temporary folder of this process, and import it from there."""

import atexit
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

folder = tempfile.mkdtemp(prefix="ostinato-code-")
atexit.register(shutil.rmtree, folder, ignore_errors=True)
with zipfile.ZipFile(Path(__file__).with_name("ostinato.zip")) as archive:
    archive.extractall(folder)
sys.path.insert(0, folder)
'''


def write(folder: Path) -> None:
    """Write the archive, whose bytes depend on the code alone, and the module that unpacks it."""
    library = Path(str(ostinato.__file__)).parent
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(library.rglob("*")):
            if file.is_file() and file.suffix != ".pyc":
                name = file.relative_to(library.parent).as_posix()
                info = zipfile.ZipInfo(name, store.EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, file.read_bytes())
    (folder / f"{UNPACK}.py").write_text(UNPACK_CODE, encoding="utf-8")
