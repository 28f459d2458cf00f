"""Reader of gettext catalogs, ``.po`` and ``.mo``."""

import codecs
import gettext
import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ostinato.errors import DataError, MalformedError
from ostinato.translation.formats import languages
from ostinato.translation.formats.opening import open_file, read_lines
from ostinato.translation.formats.raw import Pair, RawFile, RawManifest, Reject

CHARSET = re.compile(rb'Content-Type:[^\n]*(?:"\r?\n"[^\n]*)?charset=([\w.:-]+)', re.IGNORECASE)
MAX_BYTES = 100_000_000  # of a catalog, which is read as a whole
HEADER_BYTES = 65_536  # in which the charset is looked for
SEPARATORS = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")  # at which polib would split lines
PLURAL = re.compile(r"\bplural\s*=\s*([^;]+)")
MANY = 5  # a number for which all languages use a plural form, as the message id does


def read_catalogs(raw: Path, manifest: RawManifest) -> Iterator[Pair | Reject]:
    """The messages of catalogs; a catalog that cannot be read is one `Reject`.

    A message with plural forms gives two pairs: the singular with the form that ``Plural-Forms``
    gives for 1, and the plural with the form for 5. Obsolete messages are passed over.
    """
    swapped = languages.includes(manifest.original or "", manifest.languages[1])
    for file in manifest.files:
        try:
            pairs = list(_messages(raw / file.path, file, swapped))
        except (MalformedError, DataError) as error:
            yield Reject(file.path, None, str(error).removeprefix(f"{file.path}: "))
        else:
            yield from pairs


def _messages(path: Path, file: RawFile, swapped: bool) -> Iterator[Pair]:
    catalog = _parse(path, file.path)
    header = catalog.metadata.get("Plural-Forms", "")
    for entry in catalog:
        if entry.obsolete:
            continue
        messages = [(entry.msgid, entry.msgstr)]
        if forms := entry.msgstr_plural:
            one, many = plural_form(header, 1), plural_form(header, MANY)
            messages = [
                (entry.msgid, forms.get(one, "")),
                (entry.msgid_plural, forms.get(many, "")),
            ]
        for original, translation in messages:
            texts = (translation, original) if swapped else (original, translation)
            yield Pair(file.split, *texts, uncertain="fuzzy" in getattr(entry, "flags", ()))


def _parse(path: Path, name: str) -> Any:
    """A catalog, as polib reads it, in the charset of its header."""
    import polib

    if path.stat().st_size > MAX_BYTES:
        raise MalformedError(f"found more than {MAX_BYTES:,} bytes; expected a catalog")
    text = None
    if path.suffix.lower() != ".mo":
        with open_file(path, name) as stream:
            charset = _charset(stream.read(HEADER_BYTES))
        with open_file(path, name) as stream:
            lines = []
            for line in read_lines(stream, name, charset):
                if isinstance(line, Reject):
                    raise MalformedError(f"line {line.line}: {line.reason}")
                lines.append(SEPARATORS.sub(" ", line))
        text = "\n".join(lines) + "\n"
    try:
        if text is not None:
            return polib.pofile(text)
        with path.open("rb") as compiled:  # polib reads truncated files as empty translations
            gettext.GNUTranslations(compiled)
        return polib.mofile(str(path))
    except Exception as error:  # whatever the readers raise, such as struct.error
        raise MalformedError(f"not a gettext catalog: {type(error).__name__}: {error}") from None


def _charset(head: bytes) -> str:
    """The charset that a header names; UTF-8 without a header, and in templates."""
    header = b"msgid".join(head.split(b"msgid", 2)[:2])
    found = CHARSET.search(header)
    name = found[1].decode() if found else "CHARSET"
    if name == "CHARSET" or head.startswith(codecs.BOM_UTF8):
        return "utf-8"
    try:
        io.TextIOWrapper(io.BytesIO(), name)  # an error for a codec that is none of text
        return codecs.lookup(name).name
    except LookupError:
        raise MalformedError(f"found charset={name}; expected one that Python knows") from None


@cache
def plural_form(header: str, number: int) -> int:
    """The index of a number's plural form by the header ``Plural-Forms``; English without one.

    Raises:
        MalformedError: the header is malformed.
    """
    if not header or "EXPRESSION" in header:  # of a template
        return int(number != 1)
    try:
        expression = PLURAL.search(header)
        if not expression:
            raise ValueError("no plural=")
        return int(gettext.c2py(expression[1])(number))
    except (ValueError, ArithmeticError) as error:
        raise MalformedError(
            f"found Plural-Forms: {header}; expected nplurals=N; plural=EXPRESSION; ({error})"
        ) from None
