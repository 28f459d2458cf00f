"""The table of series in docs/formats.md: each row is a test, and each test is a row."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ostinato.errors import DataError, RequestError, SourceError
from ostinato.forecasting.dataset import SeriesDataset
from ostinato.forecasting.histories import Input, prepare_input
from ostinato.forecasting.sources import raw
from tests.series import COLUMNS, counts, fetched, prepared, table

ROOT = Path(__file__).parent.parent
CASES: dict[str, Callable[[Path], None]] = {}
ROWS = table()
TEXT = ROWS.to_csv(index=False)
VALUES = ROWS["value"].astype(float).to_numpy()
DATES = pd.to_datetime(ROWS["day"])
Case = Callable[[Path], None]


def row(name: str) -> Callable[[Case], Case]:
    """Make a function the test of a row of the table."""

    def add(case: Case) -> Case:
        CASES[name] = case
        return case

    return add


@pytest.fixture(autouse=True)
def copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy local files without a client for downloads, which takes longer than the reading."""

    def copy(files: Mapping[Path, str], *_: Any, **__: Any) -> None:
        for path, source in files.items():
            shutil.copyfile(source, path)

    monkeypatch.setattr(raw, "fetch_all", copy)


def same(data: SeriesDataset) -> None:
    """Check that all values were read."""
    np.testing.assert_array_equal(data.history(0, len(VALUES)), VALUES)
    assert data.observed.all()


def refused(folder: Path, rows: Any, message: str, columns: Any = None, **rules: Any) -> None:
    with pytest.raises((DataError, SourceError), match=message):
        prepared(folder, rows, columns, **rules)


def rejects(folder: Path) -> list[dict[str, Any]]:
    found = pd.read_csv(folder / "data" / "rejects.csv", keep_default_na=False)
    return [{str(k): v for k, v in each.items()} for each in found.to_dict("records")]


def with_cell(index: int, column: str, cell: str, rows: pd.DataFrame = ROWS) -> pd.DataFrame:
    changed = rows.copy()
    changed.loc[index, column] = cell
    return changed


def wide(folder: Path, text: str) -> SeriesDataset:
    (folder / "wide.csv").write_text(text)
    block = {"train": str(folder / "wide.csv"), "test": None, "frequency": "h", "timeout": 1.0,
             "retries": 1}  # fmt: skip
    return fetched(folder, "m4", block, calendar=[], gaps="forward")


# Files


@row("Cells between commas, semicolons, tabs or bars")
def _(folder: Path) -> None:
    for number, separator in enumerate(",;\t|"):
        text = ROWS.to_csv(index=False, sep=separator)
        same(prepared(folder / str(number), text))
    refused(folder / "3", text.replace("value", "values"), r"csv:1: no column 'value'; did you")


@row("A byte order mark; UTF-16 with its mark")
def _(folder: Path) -> None:
    same(prepared(folder, "\ufeff" + TEXT))
    (folder / "series.csv").write_text(TEXT, encoding="utf-16")
    path = folder / "other.csv"
    path.write_text(TEXT.replace("\n", "\r\n"), encoding="utf-16")
    same(fetched(folder, "csv", {**COLUMNS, "where": str(path)}))


@row("Another encoding")
def _(folder: Path) -> None:
    path = folder / "other.csv"
    path.write_bytes(TEXT.replace("rest", "Köln").encode("latin-1"))
    with pytest.raises(DataError, match=r"other\.csv:5: found the byte 0xf6; expected .* UTF-8"):
        fetched(folder, "csv", {**COLUMNS, "where": str(path)})


@row("An Excel workbook, a compressed file, an HTML page")
def _(folder: Path) -> None:
    path = folder / "other.csv"
    for begin, found in (
        (b"PK\x03\x04", "an Excel workbook or a ZIP archive; save the table as CSV"),
        (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
        (b"\x1f\x8b\x08\x00", "compressed by gzip; unpack it"),
        (b"<!DOCTYPE html>", "an HTML page, perhaps of a login"),
    ):
        path.write_bytes(begin + b"\x00" * 99)
        with pytest.raises(DataError, match=rf"other\.csv: found {found}"):
            fetched(folder, "csv", {**COLUMNS, "where": str(path)})


@row("Lines above the names of the columns")
def _(folder: Path) -> None:
    for lines, number in (("# a comment\n", 2), ("Station 7\nExported today\n\n", 4), ("\n", 2)):
        refused(folder, lines + TEXT, rf"series\.csv:{number}: the names of the columns stand in")


@row("No names of columns")
def _(folder: Path) -> None:
    refused(folder, TEXT.partition("\n")[2], r"series\.csv:1: no column 'day'; there is")


@row("Blank rows, rows of separators")
def _(folder: Path) -> None:
    same(prepared(folder, TEXT.replace("\n2020-02", "\n\n,,,\n2020-02") + ",,,\n" * 30))


@row("A footer, a repeated header, another row without a date")
def _(folder: Path) -> None:
    text = TEXT + "Total,,,\n" + TEXT.partition("\n")[0] + "\n"
    same(prepared(folder, text, tolerated_rejects=0.02))
    assert [(each["row"], each["value"]) for each in rejects(folder)] == [
        (122, "Total"), (123, "day")
    ]  # fmt: skip
    refused(folder, text, r"csv:122: date 'Total': not a date", tolerated_rejects=0.01)


@row("A row with more cells than there are names")
def _(folder: Path) -> None:
    text = TEXT.replace("\n2020-02-02", "\n1,2,3,4,5\n2020-02-02")
    same(prepared(folder, text, tolerated_rejects=0.01))
    assert rejects(folder)[0]["reason"] == "5 cells, and the header has 4"
    refused(folder, text, r"series\.csv:34: row '1,2,3,4,5': 5 cells")


@row("A quote that does not close")
def _(folder: Path) -> None:
    refused(folder, TEXT.replace("\n2020-02-02", '\n"2020-02-02'), r"csv:34: .* does a quote")
    refused(folder, '"' + TEXT * 40, r"series\.csv:1: .* does a quote in this row not close")


@row("A path that begins with ~")
def _(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        (folder / "mine.csv").write_text(TEXT)
        same(fetched(folder, "csv", {**COLUMNS, "where": "~/mine.csv"}))


# Numbers


@row("A decimal comma, by `decimal`")
def _(folder: Path) -> None:
    rows = ROWS.apply(lambda column: column.str.replace(".", ","))
    same(prepared(folder, rows.to_csv(index=False, sep=";"), {"decimal": ","}))
    same(prepared(folder, rows.to_csv(index=False), {"decimal": ","}))  # quoted
    refused(folder, rows, r"120 of 120 .*; set the source's decimal: ',', if these are numbers")


@row("Separators of thousands, by `thousands`")
def _(folder: Path) -> None:
    numbers = (VALUES * 1e6).round(2)
    for mark, decimal in ((",", "."), (".", ","), (" ", "."), ("'", "."), ("\u202f", ",")):
        cells = [
            f"{n:,.2f}".replace(",", "_").replace(".", decimal).replace("_", mark) for n in numbers
        ]
        setting: dict[str, Any] = {
            "thousands": " " if mark == "\u202f" else mark,
            "decimal": decimal,
        }
        setting["past_covariates"] = []
        data = prepared(folder, ROWS.assign(value=cells), setting)
        np.testing.assert_array_equal(data.target, numbers)
    whole = ROWS.assign(value=[f"{n:,.0f}" for n in VALUES * 100])
    refused(folder, whole, r"set the source's decimal: '.' and thousands: ',', or decimal: ','")
    with pytest.raises(SourceError, match="decimal and thousands are both ','"):
        prepared(folder, ROWS, {"decimal": ",", "thousands": ","})


@row("Groups that are not of three digits")
def _(folder: Path) -> None:
    columns = {"thousands": ","}
    refused(folder, with_cell(9, "value", "1,23,456"), r"csv:11: value '1,23,456'", columns)


@row("NA, n/a, NaN, null, None, -, ?, . and the like in a numeric column")
def _(folder: Path) -> None:
    words = ["NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "None", "-", "--", "?", "."]
    rows = with_cell(5, "value", "")
    for number, word in enumerate(words):
        rows = with_cell(
            7 + 3 * number, "other", word, with_cell(8 + 3 * number, "value", word, rows)
        )
    data = prepared(folder, rows, gaps="forward")
    assert np.flatnonzero(~data.observed).tolist() == [5, *range(8, 8 + 3 * len(words), 3)]
    assert data.details.codings["past"][0].categories is None
    assert counts(folder)["missing_values"] == len(words)
    assert not rejects(folder)


@row("A code for a missing value, by `missing`")
def _(folder: Path) -> None:
    for code, cell in ((-999, "-999.0"), ("-999", "-999"), ("off", "off")):
        rows = with_cell(40, "other", cell, with_cell(70, "value", cell))
        data = prepared(folder, rows, {"missing": [code]}, gaps="forward")
        assert np.flatnonzero(~data.observed).tolist() == [70]


@row("A far-off value that occurs three times or more")
def _(folder: Path) -> None:
    rows = ROWS.copy()
    rows.loc[[20, 40, 60], "value"] = "-999"
    warned(folder, rows, r"-999 occurs 3 times, .* name it in the source's missing: \[-999\]")


@row("Another word in place of a number")
def _(folder: Path) -> None:
    rows = with_cell(30, "value", "abc")
    prepared(folder, rows, gaps="forward", tolerated_rejects=0.01)
    assert rejects(folder)[0]["value"] == "abc"
    refused(folder, rows, r"series\.csv:32: value 'abc': not a number")
    refused(folder, with_cell(31, "value", "abc", rows), r"set the source's missing: \['abc'\]")


@row("inf, 1e400, 1_000, 0x10")
def _(folder: Path) -> None:
    cells, rows = ["inf", "-Infinity", "1e400", "1_000", "0x10", "١٢"], ROWS
    for number, cell in enumerate(cells):
        rows = with_cell(30 + 3 * number, "value", cell, rows)
    prepared(folder, rows, gaps="forward", tolerated_rejects=0.1)
    assert [each["value"] for each in rejects(folder)] == cells
    refused(folder, rows, "csv:32: value 'inf': not a number")


# Dates


@row("Dates of another format than ISO 8601, by `date_format`")
def _(folder: Path) -> None:
    for date_format in ("%m/%d/%Y", "%d.%m.%y", "%d-%b-%Y"):
        rows = ROWS.assign(day=DATES.dt.strftime(date_format))
        same(prepared(folder, rows, {"date_format": date_format}))
    rows = ROWS.assign(day=DATES.dt.strftime("%d/%m/%Y"))
    refused(folder, rows, r"csv:2: date '01/01/2020': .*; set date_format: '%d/%m/%Y'\n")
    first = ROWS.assign(day=pd.date_range("2010", periods=120, freq="MS").strftime("%d/%m/%Y"))
    refused(folder, first, r"set date_format: '%d/%m/%Y' or '%m/%d/%Y'\n")


@row("Seconds, milliseconds ... since 1970 by `date_format: epoch`, Excel's days by `excel`")
def _(folder: Path) -> None:
    seconds = (DATES - pd.Timestamp(0)).dt.total_seconds().astype(int)
    for zeros, name in enumerate(("epoch", "epoch_ms", "epoch_us", "epoch_ns")):
        rows = ROWS.assign(day=[f"{second}{'000' * zeros}" for second in seconds])
        same(prepared(folder, rows, {"date_format": name}))
        if zeros < 2:
            refused(folder, rows, rf"set date_format: {name}, if these are")
    in_zone = prepared(
        folder,
        ROWS.assign(day=[str(int(second) + 6 * 3600) for second in seconds]),
        {"date_format": "epoch"},
        timezone="America/Costa_Rica",
    )
    assert in_zone.details.first == "2020-01-01T00:00:00"
    days = ROWS.assign(day=[str(int(second) // 86_400 + 25_569) for second in seconds])
    same(prepared(folder, days, {"date_format": "excel"}))
    refused(folder, days, "set date_format: excel")
    refused(folder, days, "seconds since 1970 are date_format: epoch", {"date_format": "%s"})


HOURS: dict[str, Any] = {"frequency": "h"}
OF_HOURS = pd.Series(pd.date_range("2020-01-01 01:00", periods=120, freq="h"))


@row("24:00")
def _(folder: Path) -> None:
    plain = OF_HOURS.dt.strftime("%Y-%m-%d %H:%M")
    before = (OF_HOURS - pd.Timedelta(minutes=1)).dt.strftime("%Y-%m-%d")
    for end in (" 24:00", "T24:00:00"):
        days = plain.mask(OF_HOURS.dt.hour == 0, before + end)
        same(prepared(folder, ROWS.assign(day=days), HOURS))
    columns = {**HOURS, "date": ["day", "hour"], "date_format": "%d/%m/%Y %H"}
    hour = OF_HOURS.dt.hour.mask(OF_HOURS.dt.hour == 0, 24)
    slashed = pd.to_datetime(before).dt.strftime("%d/%m/%Y")
    same(prepared(folder, ROWS.assign(day=slashed, hour=hour), columns))
    odd = ROWS.assign(day=plain.mask(plain.index == 3, "2020-01-01 24:24"))
    refused(folder, odd, "24:24", HOURS)


@row("Date and time in several columns, by a list as `date`")
def _(folder: Path) -> None:
    rows = ROWS.assign(day=OF_HOURS.dt.strftime("%d/%m/%Y"), Time=OF_HOURS.dt.strftime("%H:%M:%S"))
    columns = {**HOURS, "date_format": "%d/%m/%Y"}
    refused(folder, rows, r"set the source's date: \[day, Time\] .* '%d/%m/%Y %H:%M:%S'", columns)
    same(prepared(folder, rows, {**columns, "date": ["day", "Time"],
                                 "date_format": "%d/%m/%Y %H:%M:%S"}))  # fmt: skip
    parts = ROWS.drop(columns="day")
    for part in ("year", "month", "day", "hour"):
        parts[part] = getattr(OF_HOURS.dt, part)
    columns = {**HOURS, "date": "year", "date_format": "%Y"}
    refused(folder, parts, r"date: \[year, month, day, hour\] .* '%Y %m %d %H'", columns)
    refused(folder, parts, "hour", columns, duplicates="refuse")
    same(prepared(folder, parts, {**HOURS, "date": ["year", "month", "day", "hour"],
                                  "date_format": "%Y %m %d %H"}))  # fmt: skip


@row("Times with Z or an offset, by `timezone`")
def _(folder: Path) -> None:
    for end in ("T05:00:00Z", "T06:00:00+01:00", "T01-04", " 05:00 UTC", "T05:00:00.000Z"):
        rows = ROWS.assign(day=ROWS["day"] + end)
        data = prepared(folder, rows, timezone="Etc/GMT+5")
        same(data)
        assert data.details.first == "2020-01-01T00:00:00"
    refused(folder, rows, r"csv:2: .* has a time zone; set prepare's timezone")
    named = ROWS.assign(day=ROWS["day"] + " CET")
    refused(folder, named, "names of time zones are not read", {"date_format": "%Y-%m-%d %Z"})
    same(prepared(folder, named, {"date_format": "%Y-%m-%d CET"}))


@row("Times within their periods, by `stamps: period`")
def _(folder: Path) -> None:
    months = pd.date_range("2000-01-01", periods=120, freq="MS")
    for frequency, times in (
        ("MS", months + pd.Timedelta(days=14)),
        ("ME", months + pd.Timedelta(days=14)),
        ("W", pd.date_range("2015-01-05", periods=120, freq="W-MON")),
        ("h", OF_HOURS + pd.to_timedelta(np.arange(120) % 5, unit="s")),
    ):
        rows = ROWS.assign(day=pd.Series(times).dt.strftime("%Y-%m-%dT%H:%M:%S"))
        same(prepared(folder, rows, {"frequency": frequency, "stamps": "period"}))
        refused(folder, rows, r"set stamps: period if|look like frequency: W-MON",
                {"frequency": frequency})  # fmt: skip


@row("Times of another frequency")
def _(folder: Path) -> None:
    for asked, given in (("W", "W-MON"), ("MS", "ME"), ("ME", "BME"), ("D", "12h")):
        days = pd.date_range("2000-01-01", periods=120, freq=given).strftime("%Y-%m-%dT%H:%M")
        rows = ROWS.assign(day=days)
        refused(folder, rows, rf"not on the grid .* like frequency: {given}",
                {"frequency": asked})  # fmt: skip
    refused(folder, ROWS, "does not know 'M' any more; set ME", {"frequency": "M"})


@row("A mistyped year")
def _(folder: Path) -> None:
    for index, year, frequency in ((100, "2202", "D"), (60, "1202", "D"), (100, "9020", "s")):
        typed = year + ROWS["day"][index][4:]
        rows = with_cell(index, "day", typed)
        refused(folder, rows, rf"series\.csv:{index + 2}: found the time {typed}",
                {"frequency": frequency}, gaps="forward")  # fmt: skip


@row("Dates of params.yaml that two countries read differently")
def _(folder: Path) -> None:
    for key in ("since", "until", "validation", "calibration", "test"):
        rules: dict[str, Any] = {key: "03/04/2020"}
        refused(folder, ROWS, f"prepare: {key}: '03/04/2020' is not a date such as", **rules)


# Rows


@row("A row twice, rows out of order")
def _(folder: Path) -> None:
    same(prepared(folder, pd.concat([ROWS, ROWS[20:40]]).sample(frac=1, random_state=1)))
    assert counts(folder)["duplicates"] == 20


@row("Rows that contradict each other")
def _(folder: Path) -> None:
    rows = pd.concat([ROWS, with_cell(50, "value", "99").loc[[50]]])
    refused(folder, rows, r"csv:52: 2 rows of 'value' contradict .*leaves out 1 of 121 rows")
    assert prepared(folder, rows, duplicates="last").target[50] == 99
    shops = pd.concat([table(120, seed).assign(shop=f"s{seed}") for seed in range(2)])
    refused(folder, shops, "if the column 'shop' names the series, set the source's series: shop")


@row("Missing steps, missing values")
def _(folder: Path) -> None:
    data = prepared(folder, with_cell(70, "value", "", ROWS.drop(index=50)), gaps="forward")
    assert np.flatnonzero(~data.observed).tolist() == [50, 70]
    np.testing.assert_array_equal(data.target[[50, 70]], VALUES[[49, 69]])
    refused(folder, ROWS.drop(index=50), r"csv:51: 1 steps of 'value' are missing .* row 52")
    refused(folder, ROWS.drop(index=[50, 51, 52]), "longest_gap is 2", gaps="forward")


@row("Names of series such as 007, 7, NA, a@b")
def _(folder: Path) -> None:
    names = ["007", "7", "NA", "a@b"]
    rows = pd.concat([table(120, n).assign(shop=name) for n, name in enumerate(names)])
    data = prepared(folder, rows, {"series": "shop"})
    assert data.names == names
    assert "a@b@2020-04-10T00:00:00" in data.windows("test", np.arange(data.size("test"))).keys


@row("A series without a value, or without a training step")
def _(folder: Path) -> None:
    rows = [ROWS.assign(shop="long"), table(30).assign(shop="short")]
    rows.append(table(30).assign(shop="empty", value="NA"))
    text = warned(folder, pd.concat(rows), "2 whole series", {"series": "shop"})
    assert "rejects.csv" in text
    assert [each["value"] for each in rejects(folder)] == ["empty", "short"]
    refused(folder, table(30), "longest series has 30 steps, and validation begins at 60")


# Covariates


def coding(folder: Path, cells: Any, **columns: Any) -> Any:
    return prepared(folder, ROWS.assign(other=cells), columns).details.codings["past"][0]


@row("A covariate whose training cells are all numbers")
def _(folder: Path) -> None:
    assert coding(folder, [str(n % 9) for n in range(120)]).categories is None
    later = ["1.5"] * 119 + ["warm"]
    refused(folder, ROWS.assign(other=later), r"series\.csv:121: other 'warm': not a number")
    data = prepared(folder, ROWS.assign(other=later), tolerated_rejects=0.01)
    assert data.details.codings["past"][0].categories is None


@row("A covariate of words, or of codes such as 0, a, b")
def _(folder: Path) -> None:
    codes = np.resize(["0", "0", "0", "0", "a", "0", "b"], 120)
    assert coding(folder, codes).categories == ["0", "a", "b"]
    assert coding(folder, np.resize(["1", "1", "A"], 120)).categories == ["1", "A"]
    assert coding(folder, np.resize(["None", "x"], 120)).categories == ["None", "x"]
    late = codes.copy()
    late[100:] = "new"
    coding(folder, late)
    assert counts(folder)["unknown_cells"] == 20


@row("A covariate of numbers in another notation")
def _(folder: Path) -> None:
    for cells, setting in (
        ([f"{n},5" for n in range(120)], "decimal: ','"),
        ([f"{n % 2},5" for n in range(120)], "decimal: ','"),
        ([f"1,{n:03}.25" for n in range(120)], "decimal: '.' and thousands: ','"),
    ):
        message = rf"csv:2: column 'other': found .*; set the source's {setting}"
        refused(folder, ROWS.assign(other=cells), message)


@row("A covariate with too many different cells")
def _(folder: Path) -> None:
    notes = [f"note {n}" for n in range(120)]
    message = r"csv:2: column 'other': found 'note 0'.* 60 different"
    refused(folder, ROWS.assign(other=notes), message)
    mixed = [str(n) for n in range(120)]
    mixed[30] = "abc"
    refused(folder, ROWS.assign(other=mixed), r"csv:32: column 'other': found 'abc'.* at most 20")
    many = table(600)
    cells = [f"note {n % 101}" for n in range(600)]
    refused(folder, many.assign(other=cells), "101 different cells .* at most 100 categories")


# Wide files


@row("A wide file between semicolons, with NA inside")
def _(folder: Path) -> None:
    lines = [f"H{n};" + ";".join(str(n + step) for step in range(120)) for n in range(2)]
    data = wide(folder, "V1;V2\n" + lines[0].replace(";50;", ";NA;") + ";NA;\n" + lines[1] + "\n")
    assert data.history(0, 120)[48:52].tolist() == [48, 49, 49, 51]
    with pytest.raises(DataError, match=r"wide\.csv:3: 5 'abc': not a number"):
        wide(folder, "V1;V2\n" + lines[0] + "\n" + lines[1].replace(";4;", ";abc;", 1) + "\n")


@row("A row for each time in a file that should be wide")
def _(folder: Path) -> None:
    for text in (TEXT, ROWS.assign(day=DATES.dt.strftime("%d/%m/%Y")).to_csv(index=False)):
        with pytest.raises(DataError, match=r"wide\.csv: found dates .*; expected .* source: csv"):
            wide(folder, text)


# Before training


def warned(folder: Path, rows: Any, message: str, columns: Any = None, **rules: Any) -> str:
    import logging

    class Lines(logging.Handler):
        text = ""

        def emit(self, record: logging.LogRecord) -> None:
            self.text += record.getMessage() + "\n"

    lines, logger = Lines(), logging.getLogger("ostinato.forecasting")
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        prepared(folder, rows, columns, **rules)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
    assert re.search(message, lines.text), lines.text
    return lines.text


@row("A constant, all-zero or perfectly seasonal series")
def _(folder: Path) -> None:
    for value in ("5", "0", np.resize(["1", "2", "3", "4", "5", "6", "7"], 120)):
        text = warned(folder, ROWS.assign(value=value), "MASE and OWA will not be defined")
        assert ("quantile loss" in text) == (value == "0" if isinstance(value, str) else False)
    ends = ROWS.assign(value=[*ROWS["value"][:100], *["0"] * 20])
    warned(folder, ends, "quantile loss will not be defined: all values of the test split are 0")


@row("A history or a window shorter than a season")
def _(folder: Path) -> None:
    text = warned(folder, ROWS, "window 7 is shorter than season 119", season=119)
    assert "1 of 1 series have a history shorter than a season of 119 steps" in text
    warned(folder, ROWS, "no series is longer than a season of 120 steps", season=120)


# Requests


def asked(
    folder: Path,
    rules: dict[str, Any] | None = None,
    raw: dict[str, Any] | None = None,
    **changes: Any,
) -> Any:
    """What a model reads of ten days and their covariates, with changes."""
    rows = ROWS.assign(open=np.where(DATES.dt.day_of_week < 5, "True", "False"))
    columns = {"future_covariates": ["open"], **(raw or {})}
    if not (folder / "data").exists():
        asked.data = prepared(folder, rows, columns, **(rules or {}))  # type: ignore[attr-defined]
    request: dict[str, Any] = {
        "dates": ROWS["day"][100:110].tolist(),
        "values": VALUES[100:110].tolist(),
        "past_covariates": {"other": ROWS["other"][100:110].astype(float).tolist()},
        "future_covariates": {"open": rows["open"][100:113].tolist()},
    }
    details = asked.data.details  # type: ignore[attr-defined]
    return prepare_input("input 0", Input.model_validate({**request, **changes}), details)


def equal(one: Any, other: Any) -> None:
    assert one.inputs.keys() == other.inputs.keys()
    for name, values in one.inputs.items():
        np.testing.assert_array_equal(values, other.inputs[name])
    assert (one.times == other.times).all()


@row("Request: dates with Z or one offset, to a model without a time zone")
def _(folder: Path) -> None:
    days, plain = ROWS["day"][100:110], asked(folder)
    for end in ("T00:00:00Z", "T00:00:00.000Z", "T00:00:00+02:00", "T00:00", " 00:00 UTC"):
        equal(asked(folder, dates=(days + end).tolist()), plain)
    mixed = [f"{day}T00:00:00+0{1 + (n > 4)}:00" for n, day in enumerate(days)]
    with pytest.raises(RequestError, match=r"dates: found the offsets \+01:00, \+02:00; "):
        asked(folder, dates=mixed)


@row("Request: dates with Z or offsets, to a model with a time zone")
def _(folder: Path) -> None:
    rules = {"timezone": "Europe/Berlin"}
    plain = asked(folder, rules, dates=[f"2020-03-{day}" for day in range(22, 32)])
    local = [f"2020-03-{day}T00:00:00+0{1 + (day > 29)}:00" for day in range(22, 32)]
    equal(asked(folder, rules, dates=local), plain)
    utc = [f"2020-03-{day - 1}T{23 - (day > 29)}:00:00Z" for day in range(22, 32)]
    equal(asked(folder, rules, dates=utc), plain)


@row("Request: times within their periods, to a model of `stamps: period`")
def _(folder: Path) -> None:
    days = ROWS["day"][100:110].tolist()
    noon = [f"{day}T12:00:00" for day in days]
    equal(asked(folder, raw={"stamps": "period"}, dates=noon), asked(folder, dates=days))


@row("Request: missing dates, null as a value")
def _(folder: Path) -> None:
    rules = {"gaps": "forward"}
    filled = asked(folder, rules, values=[*VALUES[100:104], VALUES[103], *VALUES[105:110]],
                   past_covariates={"other": [1.0] * 10})  # fmt: skip
    days, values = ROWS["day"][100:110].tolist(), VALUES[100:110].tolist()
    null = [*values[:4], None, *values[5:]]
    equal(asked(folder, values=null, past_covariates={"other": [1.0] * 10}), filled)
    future = ["False", "True"]
    short = asked(folder, dates=days[:4] + days[5:], values=values[:4] + values[5:],
                  past_covariates={"other": [1.0] * 9},
                  future_covariates={"open": (future * 6)[:12]})  # fmt: skip
    np.testing.assert_array_equal(short.inputs["past"][..., :2], filled.inputs["past"][..., :2])
    with pytest.raises(RequestError, match=r"value 3, .*3 steps are missing, .*longest_gap is 2"):
        asked(folder, values=[*values[:3], None, None, None, *values[6:]])
    with pytest.raises(RequestError, match=r"date 3: 2020-04-16, where equal steps .* 2020-04-13"):
        asked(folder, dates=[*days[:3], *[f"2020-04-{day}" for day in range(16, 23)]])
    with pytest.raises(RequestError, match=r"value 9, .* a history ends with a measured"):
        asked(folder, values=[*values[:9], None])


@row("Request: a value that means a missing one in the training data")
def _(folder: Path) -> None:
    rules = {"gaps": "forward", "zeros": "missing"}
    null = asked(folder, rules, values=[*VALUES[100:104], None, *VALUES[105:110]])
    equal(asked(folder, values=[*VALUES[100:104], 0.0, *VALUES[105:110]]), null)
    with pytest.raises(RequestError, match=r"value 9, of .*, is 0, which means a missing value"):
        asked(folder, values=[*VALUES[100:109], 0.0])


@row('Request: true, "true", 1, 1.0 or "1" for the category True')
def _(folder: Path) -> None:
    plain = asked(folder)
    flags = [day.day_of_week < 5 for day in DATES[100:113]]
    for kind in (bool, lambda flag: str(flag).lower(), int, float, lambda flag: str(int(flag))):
        found = asked(folder, future_covariates={"open": [kind(bool(flag)) for flag in flags]})
        equal(found, plain)
        assert not found.warnings


@row("Request: a category that the model does not know")
def _(folder: Path) -> None:
    found = asked(folder, future_covariates={"open": ["?"] * 2 + ["True"] * 11})
    assert found.warnings == [
        "future_covariates: 'open': the model knows no category '?' (value 0; 2 such values in "
        "all); there is False, True"
    ]


@row("Request: a word, null or an infinite number in a numeric covariate")
def _(folder: Path) -> None:
    numbers = ROWS["other"][100:110].astype(float).tolist()
    before = asked(folder, past_covariates={"other": [*numbers[:5], numbers[4], *numbers[6:]]})
    for missing in (None, "", "NA"):
        cells = [*numbers[:5], missing, *numbers[6:]]
        equal(asked(folder, past_covariates={"other": cells}), before)
    for cell in ("warm", float("inf"), "1e400"):
        with pytest.raises(RequestError, match=r"'other': value 5: found '.*'; expected a number"):
            asked(folder, past_covariates={"other": [*numbers[:5], cell, *numbers[6:]]})


@row("Request: 1e40, infinite values, more than 100,000 dates")
def _(folder: Path) -> None:
    for changes, message in (
        ({"values": [1e40] * 10}, r"values: found 1e\+40; expected the magnitude"),
        ({"values": [float("inf")] * 10}, "value 0, .* is not a number; write null"),
        ({"past_covariates": {"other": [1e300] * 10}}, "'other': expected numbers of the mag"),
        ({"dates": ["2020"] * 100_001, "values": [1.0] * 100_001}, "100,001 dates are too many"),
    ):
        with pytest.raises(RequestError, match=message):
            asked(folder, **changes)


@row("Request: an unknown key, covariate or series")
def _(folder: Path) -> None:
    with pytest.raises(ValueError, match="frequncy"):
        asked(folder, frequncy="D")
    for kind in ("past", "future", "static"):
        with pytest.raises(RequestError, match=f"{kind}_covariates: unknown 'town'"):
            asked(folder, **{f"{kind}_covariates": {"town": ["x"] if kind != "static" else "x"}})
    with pytest.raises(RequestError, match="unknown series 'values'; did you mean 'value'"):
        asked(folder, series="values")


@pytest.mark.parametrize("name", list(CASES))
def test_each_row_of_the_table_holds(name: str, tmp_path: Path) -> None:
    CASES[name](tmp_path)


def test_the_table_has_the_rows_that_are_tested() -> None:
    text = (ROOT / "docs" / "formats.md").read_text()
    section = text.partition("\n## Series\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", section, re.MULTILINE)
    assert [name.replace("\\|", "|") for name in rows if name != "Input"] == list(CASES)
