"""Reader of translation memories: TMX 1.4, with any namespace, in any encoding of XML."""

import codecs
import html.entities
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from ostinato.errors import DataError
from ostinato.translation.formats import languages
from ostinato.translation.formats.opening import UTF16, open_file
from ostinato.translation.formats.placeholders import PLACEHOLDER
from ostinato.translation.formats.raw import Pair, RawManifest, Reject

CHUNK = 65_536  # bytes
MAX_CHARACTERS = 1_000_000  # of a unit
CODES = ("bpt", "ept", "it", "ph", "ut")  # elements that hold native codes
SEPARATING = ("ph", "ut")  # codes that stand for something, and separate words
PLACEHOLDERS = re.compile(f"(?:{PLACEHOLDER.pattern})+")
MARK = "\ufdd0"  # a noncharacter around what XML forbids
ENCODING = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([\w.:-]+)""")
XML_ENTITIES = ("amp", "lt", "gt", "quot", "apos")
FORBIDDEN = "[^\t\n\r\x20-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]"
TOKENS = re.compile(rf"<!\[CDATA\[|\]\]>|&(?:#?\w{{1,32}};)?|{FORBIDDEN}")
HOLD = 40  # characters, more than a token has
BEGINNING = re.compile(r"(?:&#?\w{0,32}|<|<!|<!\[|<!\[C|<!\[CD|<!\[CDA|<!\[CDAT|<!\[CDATA|\]\]?)\Z")


class Code(NamedTuple):
    """A native code in a segment, such as the markup of a word processor."""

    element: str
    text: str


Segment = list[str | Code]


@dataclass
class Unit:
    """A translation unit: the language and the segment of each variant.

    Attributes:
        line: where it begins.
        variants: in the order of the file.
        characters: of all segments; text beyond the limit is not kept.
    """

    line: int
    variants: list[tuple[str, Segment]] = field(default_factory=list)
    characters: int = 0


def read_tmx(raw: Path, manifest: RawManifest) -> Iterator[Pair | Reject]:
    """The pairs of a translation memory; a unit with characters that XML forbids is a `Reject`.

    Of native codes (``bpt``, ``ept``, ``it``, ``ph``, ``ut``) those are kept that are placeholders
    or markup and are the same on both sides; text in ``sub`` is left out. Where a unit has several
    variants of a language, that with the requested code counts, else the first.

    Raises:
        DataError: not well-formed, no TMX, entities are declared, or no unit has both languages.
    """
    (file,) = manifest.files
    units = complete = 0
    found: Counter[str] = Counter()
    with open_file(raw / file.path, file.path) as stream:
        for unit in read_units(stream, file.path):
            units += 1
            codes = [language for language, _ in unit.variants]
            found.update(dict.fromkeys(codes, 1))
            indices = [languages.best_match(wanted, codes) for wanted in manifest.languages]
            complete += None not in indices
            source, target = ([] if i is None else unit.variants[i][1] for i in indices)
            texts = segment_texts(source, target)
            if unit.characters > MAX_CHARACTERS:
                reason = f"found more than {MAX_CHARACTERS:,} characters; expected a text"
                yield Reject(file.path, unit.line, reason)
            elif forbidden := re.search(f"{MARK}(.*?){MARK}", "".join(texts), re.DOTALL):
                reason = f"found {forbidden[1]}, which XML forbids; remove it"
                yield Reject(file.path, unit.line, reason)
            else:
                yield Pair(file.split, *texts)
    if not units:
        raise DataError(f"{file.path}: holds no translation unit; expected <tu> elements")
    if not complete:
        held = ", ".join(f"{code or 'none'} ({count:,})" for code, count in found.most_common(10))
        raise DataError(
            f"{file.path}: none of {units:,} units has both {' and '.join(manifest.languages)}; "
            f"found {held or 'no variant'}; set `languages` to two of these"
        )


def segment_texts(source: Segment, target: Segment) -> tuple[str, str]:
    """The texts of two segments, with the codes that are placeholders and the same in both."""
    kept: list[Counter[str]] = [
        Counter(
            part.text.strip()
            for part in segment
            if isinstance(part, Code) and PLACEHOLDERS.fullmatch(part.text.strip())
        )
        for segment in (source, target)
    ]
    same = kept[0] if kept[0] == kept[1] else Counter[str]()

    def text(part: str | Code) -> str:
        if isinstance(part, str):
            return part
        if part.text.strip() in same:
            return part.text
        return " " if part.element in SEPARATING else ""

    return "".join(map(text, source)), "".join(map(text, target))


def read_units(stream: io.BufferedReader, name: str) -> Iterator[Unit]:
    """The translation units of a file, in memory one chunk at a time.

    Raises:
        DataError: not well-formed, no TMX, or entities are declared.
    """
    handler = _Handler(name)
    decode = _decoder(stream, name)
    sanitizer = Sanitizer()
    end = False
    while not end:
        data = stream.read(CHUNK)
        end = not data
        try:
            handler.parser.Parse(sanitizer.feed(decode.decode(data, final=end), final=end), end)
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise DataError(f"{name}, line {error.lineno}: not XML: {reason}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: not {error.encoding}: {error.reason}") from None
        yield from handler.units
        handler.units.clear()


class Sanitizer:
    """Replaces what XML forbids by `MARK`, so that one character does not end the parsing.

    Forbidden are control characters, also as references, bare ampersands, and entities that
    neither XML nor HTML defines; entities of HTML become their characters.
    """

    def __init__(self) -> None:
        self._rest, self._cdata = "", False

    def feed(self, text: str, *, final: bool) -> str:
        """The next part of the text; a possible beginning of a reference waits for its end."""
        text = self._rest + text
        begin = None if final else BEGINNING.search(text, max(len(text) - HOLD, 0))
        cut = begin.start() if begin else len(text)
        self._rest = text[cut:]
        return TOKENS.sub(self._replace, text[:cut])

    def _replace(self, match: re.Match[str]) -> str:
        token = match[0]
        if token in ("<![CDATA[", "]]>"):
            self._cdata = token == "<![CDATA["
            return token
        if not token.startswith("&"):
            escaped = 0xDC80 <= ord(token) <= 0xDCFF  # a byte that the decoder could not decode
            return (
                f"{MARK}byte {ord(token) - 0xDC00:#04x}{MARK}"
                if escaped
                else f"{MARK}U+{ord(token):04X}{MARK}"
            )
        return token if self._cdata else _reference(token)


def _reference(token: str) -> str:
    """A reference that XML allows, the characters of an entity of HTML, or the marked reference."""
    name = token[1:-1]
    number = re.fullmatch(r"#(?:([0-9]+)|x([0-9a-fA-F]+))", name)
    if number:
        code = int(number[1]) if number[1] else int(number[2], 16)
        if code < 0x110000 and not re.fullmatch(FORBIDDEN, chr(code)):
            return token
    elif name in XML_ENTITIES:
        return token
    elif f"{name};" in html.entities.html5:
        return "".join(f"&#{ord(c)};" for c in html.entities.html5[f"{name};"])
    return f"{MARK}&amp;{token[1:]}{MARK}"


def _decoder(stream: io.BufferedReader, name: str) -> codecs.IncrementalDecoder:
    """The decoder for a file: by its byte order mark, or its XML declaration, or UTF-8."""
    head = stream.peek(1024)[:1024]
    declared = ENCODING.search(head)
    encoding = declared[1].decode() if declared else "utf-8"
    if encoding.lower().startswith("utf-16"):  # or the declaration would not be found
        encoding = "utf-8"
    if head.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    elif head.startswith(UTF16):
        encoding = "utf-16"
    elif head.startswith((b"<\0", b"\0<")):
        encoding = "utf-16-le" if head[0] else "utf-16-be"
    try:
        io.TextIOWrapper(io.BytesIO(), encoding)  # an error for a codec that is none of text
        decoder = codecs.getincrementaldecoder(encoding)
    except LookupError:
        raise DataError(
            f"{name}: found encoding={encoding!r}; expected an encoding that Python knows; "
            "convert the file to UTF-8"
        ) from None
    return decoder("strict" if encoding.startswith("utf-16") else "surrogateescape")


class _Handler:
    """Collects units from the events of a parser.

    Attributes:
        parser: to be fed.
        units: that ended since the list was last cleared.
    """

    def __init__(self, name: str) -> None:
        self.units: list[Unit] = []
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._entity
        self._name, self._root = name, True
        self._unit: Unit | None = None
        self._language = ""
        self._segment: Segment | None = None
        self._code: Code | None = None
        self._sub = 0  # depth in a sub element, whose text is none of the segment

    def _entity(self, entity: str, *_: object) -> None:
        raise DataError(f"{self._name}: refused: it declares entities: {entity}")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        local = tag.rpartition(":")[2]
        line = self.parser.CurrentLineNumber
        if self._root and local != "tmx":
            raise DataError(
                f"{self._name}, line {line}: found <{tag}>; expected <tmx>, a translation memory"
            )
        self._root = False
        if self._sub or (local == "sub" and self._segment is not None):
            self._sub += 1
        elif self._segment is not None:
            if local in CODES and not self._code:
                self._code = Code(local, "")
        elif local == "tu":
            self._unit = Unit(line)
        elif local == "tuv":
            self._language = attributes.get("xml:lang") or attributes.get("lang") or ""
        elif local == "seg" and self._unit:
            self._segment = []

    def _text(self, text: str) -> None:
        if self._sub or self._segment is None or not self._unit:
            return
        self._unit.characters += len(text)
        if self._unit.characters > MAX_CHARACTERS:
            return
        if self._code:
            self._code = self._code._replace(text=self._code.text + text)
        else:
            self._segment.append(text)

    def _end(self, tag: str) -> None:
        local = tag.rpartition(":")[2]
        if self._sub:
            self._sub -= 1
        elif self._segment is not None:
            if self._code and local == self._code.element:
                self._segment.append(self._code)
                self._code = None
            elif local == "seg" and self._unit:
                self._unit.variants.append((self._language, self._segment))
                self._segment = None
        elif local == "tu" and self._unit:
            self.units.append(self._unit)
            self._unit = None
