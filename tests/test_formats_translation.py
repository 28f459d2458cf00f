"""Every row of the section "Parallel text" of docs/formats.md: what is read, repaired, refused."""

import bz2
import gzip
import io
import lzma
import random
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polib
import pytest

from ostinato.errors import OstinatoError
from ostinato.params import bind
from ostinato.translation import dataset, sources
from ostinato.translation.dataset import cleaning
from ostinato.translation.formats.opening import MAX_LINE_BYTES
from ostinato.translation.formats.parallel_text import read_pairs
from ostinato.translation.formats.raw import Pair, RawFile, RawManifest, Reject
from tests.texts import PREPARE

PAGE = Path(__file__).parents[1] / "docs" / "formats.md"
WEB: dict[str, Any] = {"timeout": 5.0, "retries": 1}
TMX, TSV, MOSES, GETTEXT = "tmx", "tsv", "moses", "gettext"


def read(folder: Path, source: str, files: dict[str, bytes], **block: Any) -> list[Pair | Reject]:
    """What a source and its reader make of files of the user."""
    own, raw = folder / "own", folder / "raw"
    for name, content in files.items():
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_bytes(content)
    raw.mkdir()
    first = str(own / next(iter(files)))
    given: dict[str, dict[str, Any]] = {
        TSV: {"file": first, "columns": [1, 2], **WEB},
        TMX: {"file": first, **WEB},
        MOSES: {
            "base_url": str(own),
            "files": {"all": next(iter(files)).replace("en", "{language}")},
            "max_concurrency": 1,
            **WEB,
        },
        GETTEXT: {"original": "en", "packages": [], "path": str(own)},
    }
    block = {"languages": ["en", "fr"], **given[source], **block}
    bind(getattr(sources, source), block)(raw, folder / "scratch", 0)
    return list(read_pairs(raw, RawManifest.read(raw)))


def memory(*units: str, head: str = "", root: str = '<tmx version="1.4">') -> str:
    return f"{head}{root}<header/>\n<body>\n" + "\n".join(units) + "</body></tmx>"


def unit(*variants: tuple[str, str]) -> str:
    return (
        "<tu>" + "".join(f'<tuv xml:lang="{a}"><seg>{b}</seg></tuv>' for a, b in variants) + "</tu>"
    )


def plain(one: str = "One", two: str = "Un") -> str:
    return unit(("en", one), ("fr", two))


def catalog(body: str, header: str = "charset=UTF-8", plural: str = "") -> bytes:
    lines = ['msgid ""', 'msgstr ""', f'"Content-Type: text/plain; {header}\\n"']
    lines += [f'"Plural-Forms: {plural}\\n"'] * bool(plural)
    return "\n".join([*lines, "", body, ""]).encode()


def message(one: str = "One", two: str = "Un") -> str:
    return f'msgid "{one}"\nmsgstr "{two}"\n'


def forms(*texts: str) -> str:
    given = "".join(f'msgstr[{index}] "{text}"\n' for index, text in enumerate(texts))
    return f'msgid "%d file"\nmsgid_plural "%d files"\n{given}'


def zipped(**files: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def binary_catalog() -> bytes:
    found = polib.POFile()
    found.metadata = {"Content-Type": "text/plain; charset=utf-8"}
    found.append(polib.POEntry(msgid="One", msgstr="Un"))
    content: bytes = found.to_binary()
    return content


NOISE = "".join(random.Random(0).choices("abcdefgh\t\n", k=20_000)).encode()
ARABIC = (
    "nplurals=6; plural=n==0 ? 0 : n==1 ? 1 : n==2 ? 2 : n%100>=3 && n%100<=10 ? 3 : "
    "n%100>=11 && n%100<=99 ? 4 : 5;"
)
SLOVENE = "nplurals=4; plural=(n%100==1 ? 1 : n%100==2 ? 2 : n%100==3 || n%100==4 ? 3 : 0);"
LATVIAN = "nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : n != 0 ? 1 : 2);"
ONE = [("One", "Un")]
FILES = [("%d file", "B"), ("%d files", "A")]


@dataclass
class Case:
    """Files, and what is read from them.

    Args:
        input: the row of the page.
        source: the function of `sources`.
        files: by name; the first is the one that is named to the source.
        pairs: that are read, normalised.
        reject: pattern of the reason why a part is rejected.
        error: pattern of the error.
        block: parameters of the source.
    """

    input: str
    source: str
    files: dict[str, bytes]
    pairs: list[tuple[str, str]] = field(default_factory=list)
    reject: str | None = None
    error: str | None = None
    block: dict[str, Any] = field(default_factory=dict)


CASES = [
    # lines
    Case(
        "Lines with CR LF, a byte order mark, no line feed at the end",
        MOSES,
        {"a.en": b"\xef\xbb\xbfOne\r\nTwo", "a.fr": b"Un\nDeux\r\n"},
        [("One", "Un"), ("Two", "Deux")],
    ),
    Case(
        "U+2028, U+0085, a form feed within a line",
        MOSES,
        {"a.en": "One\u2028two\nThree\x85four".encode(), "a.fr": b"Un deux\nTrois\x0cquatre\n"},
        [("One two", "Un deux"), ("Three four", "Trois quatre")],
    ),
    Case("UTF-16 with a byte order mark", TSV, {"a.txt": "One\tUn\r\n".encode("utf-16")}, ONE),
    Case(
        "A line that is not UTF-8",
        MOSES,
        {"a.en": b"One\nTwo\n", "a.fr": b"Un\nd\xe9j\xe0\n"},
        ONE,
        reject=r"a\.fr, line 2: found byte 0xe9 at column 2, which is not UTF-8; convert the file",
    ),
    Case(
        "A line of more than 1,000,000 bytes",
        TSV,
        {"a.tsv": b"x" * (MAX_LINE_BYTES + 1) + b"\ty\nOne\tUn\n"},
        ONE,
        reject=r"a\.tsv, line 1: found more than 1,000,000 bytes",
    ),
    Case(
        "Lines that end with carriage returns alone",
        MOSES,
        {"a.en": b"One\rTwo\r", "a.fr": b"Un\rDeux\r"},
        error=r"a\.(en|fr): found lines that end with carriage returns; expected line feeds",
    ),
    Case(
        "Line-aligned files of different lengths",
        MOSES,
        {"a.en": b"One\nTwo\n", "a.fr": b"Un\n"},
        error=r"a\.en, line 2: a\.fr has only 1 lines; fetch both files again, or cut them",
    ),
    Case("An empty file", MOSES, {"a.en": b"", "a.fr": b""}, error=r"a\.en, a\.fr: found no line"),
    Case("A blank line of a table", TSV, {"a.tsv": b"One\tUn\n\n"}, [*ONE, ("", "")]),
    Case(
        "A line of a table without the column",
        TSV,
        {"a.tsv": b"One\tUn\nTwo,Deux\n"},
        ONE,
        reject=r"a\.tsv, line 2: found 1 columns; expected at least 2, separated by tabs",
    ),
    # archives
    Case("Packed by gzip, bzip2 or xz", TSV, {"a.tsv.bz2": bz2.compress(b"One\tUn\n")}, ONE),
    Case(
        "An archive without its ending",
        TMX,
        {"a.tmx": gzip.compress(memory(plain()).encode())},
        ONE,
    ),
    Case("Text that is named `.gz`", TMX, {"a.tmx.gz": memory(plain()).encode()}, ONE),
    Case(
        "A zip file with one table", TSV, {"a.zip": zipped(**{"a.tsv": "One\tUn", "_i": ""})}, ONE
    ),
    Case(
        "A zip file with several tables",
        TSV,
        {"a.zip": zipped(**{"a.tsv": "One\tUn", "b.tsv": "Two\tDeux"})},
        error=r"a\.zip: found 2 files \['a\.tsv', 'b\.tsv'\]; expected one table",
    ),
    Case(
        "A truncated archive",
        TMX,
        {"a.tmx.gz": gzip.compress(memory(*[plain()] * 99).encode())[:-12]},
        error=r"a\.tmx\.gz: truncated or corrupt: .*; fetch it again",
    ),
    Case(
        "A damaged archive",
        TSV,
        {"a.gz": (packed := gzip.compress(NOISE))[:900] + b"\0\0\0\0" + packed[904:]},
        error=r"a\.gz: truncated or corrupt: .*; fetch it again",
    ),
    Case(
        "Bytes that are no archive, named `.gz` or `.zip`",
        TSV,
        {"a.zip": b"\x89PNG\r\n\x1a\n\0\0"},
        error=r"a\.zip: found neither a zip file nor text; fetch it again",
    ),
    # catalogs
    Case(
        "A catalog in the charset of its header",
        GETTEXT,
        {"ru.po": catalog(message("File", "Файл"), "charset=KOI8-R").decode().encode("koi8-r")},
        [("File", "Файл")],
        block={"languages": ["en", "ru"]},
    ),
    Case(
        "A catalog in another charset than its header says",
        GETTEXT,
        {"fr.po": catalog(message("Created", "Créé")).decode().encode("latin-1")},
        reject=r"path/fr\.po: line 6: found byte 0xe9 at column 11, which is not UTF-8",
    ),
    Case(
        "U+2028, U+0085, a form feed in a message or comment",
        GETTEXT,
        {"fr.po": catalog("# a page\x0cbreak\n" + message("One two", "Un\u2028deux"))},
        [("One two", "Un deux")],
    ),
    Case(
        "Plural forms",
        GETTEXT,
        {"sl.po": catalog(forms("A", "B", "C", "D"), plural=SLOVENE)},
        FILES,
        block={"languages": ["en", "sl"]},
    ),
    Case(
        "Plural forms without `Plural-Forms`, or with that of a template",
        GETTEXT,
        {"fr.po": catalog(forms("B", "A"), plural="nplurals=INTEGER; plural=EXPRESSION;")},
        FILES,
    ),
    Case(
        "Malformed `Plural-Forms` where a message has plural forms",
        GETTEXT,
        {
            "fr.po": catalog(forms("B", "A"), plural="nplurals=2; plural=(n > ;"),
            "fr_CA.po": catalog(message()),
        },
        ONE,
        reject=r"path/fr\.po: found Plural-Forms: nplurals=2; plural=\(n > ;",
    ),
    Case(
        "A catalog that gettext could not read",
        GETTEXT,
        {"fr.mo": binary_catalog()[:-9], "fr_CA.po": catalog(message())},
        ONE,
        reject=r"path/fr\.mo: not a gettext catalog: ",
    ),
    Case(
        "A regional catalog, where the language is requested",
        GETTEXT,
        {"FR_ca/LC_MESSAGES/app.PO": catalog(message()), "de.po": catalog(message("a", "b"))},
        ONE,
    ),
    Case(
        "Another region of the language, where a region is requested",
        GETTEXT,
        {"pt_PT.po": catalog(message("One", "Um")), "pt_BR.po": catalog(message("Two", "Dois"))},
        [("Two", "Dois")],
        block={"languages": ["en", "pt-BR"]},
    ),
    Case(
        "A folder without a catalog of the language",
        GETTEXT,
        {"fr.po": catalog(message())},
        error=r"path: .* has no catalog for 'de'; found fr$",
        block={"languages": ["en", "de"]},
    ),
    # translation memories
    Case(
        "Codes as `EN_us`, `eng`, `en-US`, where `en` or `EN` is requested",
        TMX,
        {"a.tmx": memory(plain(), unit(("EN_us", "Two"), ("fra", "Deux"))).encode()},
        [*ONE, ("Two", "Deux")],
        block={"languages": ["EN", "fr"]},
    ),
    Case(
        "Regional variants in one memory",
        TMX,
        {
            "a.tmx": memory(
                unit(("en", "Bus"), ("zh-CN", "公交车"), ("zh_Hant_TW", "公車")),
                unit(("en", "Train"), ("zh-CN", "火车")),
            ).encode()
        },
        [("Bus", "公車"), ("Train", "")],
        block={"languages": ["en", "zh-TW"]},
    ),
    Case(
        "No unit in both languages",
        TMX,
        {"a.tmx": memory(unit(("en-GB", "One"), ("de", "Eins"))).encode()},
        error=r"a\.tmx: none of 1 units has both en and fr; found en-GB \(1\), de \(1\); set",
    ),
    Case(
        "TMX in a namespace, in UTF-16 or another encoding",
        TMX,
        {
            "a.tmx": memory(
                plain("Created", "Créé"),
                head='<?xml version="1.0" encoding="utf-16"?>',
                root='<t:tmx xmlns:t="http://www.lisa.org/tmx14">',
            )
            .replace("</tmx>", "</t:tmx>")
            .encode("utf-16")
        },
        [("Created", "Créé")],
    ),
    Case(
        "TMX without a unit", TMX, {"a.tmx": memory().encode()}, error="holds no translation unit"
    ),
    Case(
        "XML that is no TMX",
        TMX,
        {"a.xlf": b"<xliff>\n<file/></xliff>"},
        error=r"a\.xlf, line 1: found <xliff>; expected <tmx>",
    ),
    Case(
        "XML that is not well-formed",
        TMX,
        {"a.tmx": memory(plain(), "<tu>").encode()},
        error=r"a\.tmx, line 4: not XML: mismatched tag",
    ),
    Case(
        "A character that XML forbids, or an undefined entity",
        TMX,
        {"a.tmx": memory(plain(), plain("Bad&#x1F;", "b"), plain("AT & T", "c")).encode()},
        ONE,
        reject=r"a\.tmx, line 4: found &#x1F;, which XML forbids; remove it",
    ),
    Case(
        "A unit of more than 1,000,000 characters",
        TMX,
        {"a.tmx": memory(plain("a" * 1_000_001), plain()).encode()},
        ONE,
        reject=r"a\.tmx, line 3: found more than 1,000,000 characters",
    ),
    Case(
        "An entity of HTML",
        TMX,
        {"a.tmx": memory(plain("a&nbsp;b &amp; &lt;i&gt;", "<![CDATA[a & &nbsp;]]>")).encode()},
        [("a b & <i>", "a & &nbsp;")],
    ),
    Case(
        "A DOCTYPE",
        TMX,
        {"a.tmx": memory(plain(), head='<!DOCTYPE tmx SYSTEM "tmx14.dtd">').encode()},
        ONE,
    ),
    Case(
        "A DOCTYPE that declares entities",
        TMX,
        {"a.tmx": memory(plain("&a;"), head='<!DOCTYPE tmx [<!ENTITY a "aa">]>').encode()},
        error=r"a\.tmx: refused: it declares entities",
    ),
    Case(
        "Native codes that are placeholders or markup, the same on both sides",
        TMX,
        {
            "a.tmx": memory(
                plain(
                    'See <bpt i="1">&lt;b&gt;</bpt>it<ept i="1">&lt;/b&gt;</ept>',
                    '<bpt i="1">&lt;b&gt;</bpt>Vois<ept i="1">&lt;/b&gt;</ept>',
                )
            ).encode()
        },
        [("See <b>it</b>", "<b>Vois</b>")],
    ),
    Case(
        "Other native codes, and text in `sub`",
        TMX,
        {
            "a.tmx": memory(
                plain(
                    'A <bpt i="1">{\\b </bpt>b<hi>i</hi>g<ept i="1">}</ept> dog<ph x="1"/>runs',
                    'Un gros <ph type="fnote">&lt;fn&gt;<sub>Un<ph/>e.</sub>&lt;/fn&gt;</ph>chien',
                )
            ).encode()
        },
        [("A big dog runs", "Un gros chien")],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.input)
def test_a_file_is_read_or_refused_as_the_page_says(case: Case, tmp_path: Path) -> None:
    if case.error:
        with pytest.raises(OstinatoError, match=case.error):
            read(tmp_path, case.source, case.files, **case.block)
        return
    found = read(tmp_path, case.source, case.files, **case.block)
    pairs = [pair for pair in found if isinstance(pair, Pair)]
    normalised = [(cleaning.normalise(p.source), cleaning.normalise(p.target)) for p in pairs]
    assert normalised == case.pairs
    rejects = [str(part) for part in found if isinstance(part, Reject)]
    assert bool(rejects) == bool(case.reject)
    if case.reject:
        assert re.match(case.reject, rejects[0]), rejects


def prepare(
    folder: Path, lines: str, languages: tuple[str, str] = ("en", "fr"), **changed: Any
) -> Any:
    """The prepared data set of a table of pairs."""
    columns = [1, 2]
    read(folder, TSV, {"a.tsv": lines.encode()}, languages=list(languages), columns=columns)
    (folder / "data").mkdir()
    bind(dataset.prepare, PREPARE | changed)(folder / "raw", folder / "data")
    return dataset.load(folder / "data")


def pairs_of_text(count: int = 150) -> list[tuple[str, str]]:
    """Distinct pairs of made-up words."""
    words = random.Random(1)
    return [
        (
            "The " + " ".join("".join(words.choices("abcdeimnorst", k=5)) for _ in range(4)),
            "Le " + " ".join("".join(words.choices("aéeilnopru", k=5)) for _ in range(4)),
        )
        for _ in range(count)
    ]


def table(pairs: list[tuple[str, str]]) -> str:
    return "".join(f"{source}\t{target}\n" for source, target in pairs)


def check_special_names(folder: Path) -> None:
    names = ("<s>", "</s>", "<pad>", "<unk>")
    lines = [
        (f"{names[i % 4]} {one}</s>", f"{two}</s> {names[i % 4]}")
        for i, (one, two) in enumerate(pairs_of_text())
    ]
    data = prepare(folder, table(lines), max_length=100)
    for side in ("source", "target"):
        texts = [*names, "a <s>b</s> <pad><unk>", "<unk", "unk>"]
        rows = data.encode(texts, side)
        assert data.decode(rows, side) == texts
        assert min(map(min, rows)) > 3
    assert max(map(len, data.encode([f"a{name}" for name in names]))) <= 3, "one token, as any tag"


def check_nothing_left(folder: Path) -> None:
    with pytest.raises(OstinatoError, match=r"of 10 pairs none is left: identical 7, empty 3"):
        prepare(folder, table([("Same", "Same")] * 7 + [("", "vide")] * 3))


def check_too_many_rejects(folder: Path) -> None:
    with pytest.raises(
        OstinatoError,
        match=r"2 of 152 pairs cannot be read, more than tolerated_rejects: 0.01 allows:\n  a.tsv, "
        r"line 151: found 1 columns",
    ):
        prepare(folder, table(pairs_of_text()) + "a\nb\n")


def check_tolerated_rejects(folder: Path) -> None:
    data = prepare(folder, table(pairs_of_text()) + "broken\n")
    assert data.manifest.details["left_out"]["malformed"] == 1
    assert data.manifest.details["read"] == 151
    reject = b'{"file":"a.tsv","line":151,"reason":"found 1 columns; expected at least 2, '
    assert (data.folder / "rejects.ndjson").read_bytes().startswith(reject)


def check_invisible(folder: Path) -> None:
    for text in ("\u200b", "\u00ad", "\u2060", "\u200e", "\u202a\u202c", "\ufeff", "\u3164 \ufe0f"):
        assert cleaning.normalise(text) == ""
    assert cleaning.normalise("a\u200db") == "a\u200db"
    assert cleaning.broken_rule(cleaning.normalise("\u200b"), "b", False, 2.5) == "empty"


def check_typical_ratio(folder: Path) -> None:
    words = random.Random(2)
    chinese = [
        (one * 2, "".join(words.choices("我想订一张今晚七点两个人的桌子去机场", k=len(one) // 3)))
        for one, _ in pairs_of_text()
    ]
    odd = [("Short", "一" * 60), ("A sentence of many words " * 4, "好")]
    data = prepare(folder, table(chinese + odd), ("en", "zh"), max_length_ratio=2.5, max_length=200)
    assert data.manifest.details["left_out"]["ratio"] == 2
    european = [("a" * 40, "b" * 50)] * 9
    assert cleaning.typical_ratio(european, 2.5) == 1, "texts of similar length count as they are"


def check_vocabulary(folder: Path) -> None:
    lines = table(pairs_of_text())
    with pytest.raises(OstinatoError, match=r"vocab_size: 9000 .* set vocab_size to at most \d+$"):
        prepare(folder / "large", lines, vocab_size=9000, tokenizer="bpe")
    with pytest.raises(OstinatoError, match=r"need \d+ tokens; set vocab_size to at least \d+, or"):
        prepare(folder / "small", lines, vocab_size=100)


def check_large_catalog(folder: Path) -> None:
    (folder / "raw").mkdir()
    with (folder / "raw" / "fr.po").open("wb") as file:
        file.truncate(100_000_001)  # sparse
    manifest = RawManifest("gettext", "gettext", ["en", "fr"], [RawFile("fr.po")], "en")
    (reject,) = read_pairs(folder / "raw", manifest)
    assert str(reject) == "fr.po: found more than 100,000,000 bytes; expected a catalog"


def check_share_of_zero(folder: Path) -> None:
    with pytest.raises(OstinatoError, match=r"test: Input should be greater than 0, found 0\.0"):
        prepare(folder, table(pairs_of_text(9)), test=0.0)


def check_limit_below_one(folder: Path) -> None:
    with pytest.raises(OstinatoError, match=r"max_length_ratio: found 0.5; expected 0 or at least"):
        prepare(folder, table(pairs_of_text(9)), max_length_ratio=0.5)


PREPARED: dict[str, Callable[[Path], None]] = {
    "`<s>`, `</s>`, `<pad>`, `<unk>` in a text": check_special_names,
    "A text in which nothing is visible": check_invisible,
    "Languages of which one is much shorter": check_typical_ratio,
    "Unreadable lines, units or catalogs within `tolerated_rejects`": check_tolerated_rejects,
    "More unreadable lines, units or catalogs": check_too_many_rejects,
    "No pair left": check_nothing_left,
    "A vocabulary that is too large or too small for the texts": check_vocabulary,
    "A catalog of more than 100,000,000 bytes": check_large_catalog,
    "A share of 0 without a file of the split": check_share_of_zero,
    "`max_length_ratio` between 0 and 1": check_limit_below_one,
}


@pytest.mark.parametrize("check", PREPARED.values(), ids=PREPARED)
def test_a_text_is_prepared_as_the_page_says(check: Callable[[Path], None], tmp_path: Path) -> None:
    check(tmp_path)


def test_each_row_of_the_page_is_a_test() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Parallel text\n")[2]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert rows[2:] == [*(case.input for case in CASES), *PREPARED]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_each_damaged_byte_of_an_archive_is_told_with_its_name(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """The damaged file is named, not the other one, and no traceback of a library is shown."""
    text = b"".join(b"A sentence of line %d\n" % (i * i) for i in range(900))
    packed = pack(text)
    for number, position in enumerate(range(12, len(packed), len(packed) // 12)):
        broken = bytearray(packed)
        broken[position] ^= 0xFF
        files = {"a.en.packed": bytes(broken), "a.fr.packed": text}
        try:
            found = read(tmp_path / str(number), MOSES, files)
        except OstinatoError as error:
            assert str(error).startswith("a.en.packed: truncated or corrupt")  # noqa: PT017
        else:  # a byte that no checksum covers
            assert len(found) == 900


@pytest.mark.parametrize(
    ("header", "one", "many"),
    [(ARABIC, 1, 3), (SLOVENE, 1, 0), (LATVIAN, 0, 1), ("nplurals=1; plural=0;", 0, 0), ("", 0, 1)],
)
def test_plural_forms_are_those_of_one_and_many(
    tmp_path: Path, header: str, one: int, many: int
) -> None:
    texts = [f"form {index}" for index in range(6)]
    files = {"xx.po": catalog(forms(*texts), plural=header)}
    found = read(tmp_path, GETTEXT, files, languages=["en", "xx"])
    assert [pair[1:3] for pair in found] == [("%d file", texts[one]), ("%d files", texts[many])]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40, 41])
def test_a_sanitised_text_does_not_depend_on_its_chunks(size: int) -> None:
    from ostinato.translation.formats.tmx import Sanitizer

    text = (
        "a&nbsp;b &#x1F; &#65; & <![CDATA[ &nbsp; & ]]> ]] > &undefined; \x07 &amp; &longname" * 2
    )
    whole = Sanitizer().feed(text, final=True)
    sanitizer = Sanitizer()
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    parts = [sanitizer.feed(chunk, final=False) for chunk in chunks]
    assert "".join(parts) + sanitizer.feed("", final=True) == whole


@pytest.mark.parametrize("name", ["hex", "rot13", "zlib", "nonsense"])
def test_an_encoding_that_is_none_of_text_is_named(name: str, tmp_path: Path) -> None:
    header = f'msgid ""\nmsgstr "Content-Type: text/plain; charset={name}\\n"\n'
    (reject,) = read(tmp_path / "po", GETTEXT, {"fr.po": header.encode()})
    assert f"found charset={name}; expected one that Python knows" in str(reject)
    memory = f'<?xml version="1.0" encoding="{name}"?><tmx/>'.encode()
    with pytest.raises(OstinatoError, match=f"found encoding='{name}'"):
        read(tmp_path / "tmx", TMX, {"m.tmx": memory})
