"""Dirty rows are repaired by a rule or refused by number; windows never see their future."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostinato import errors, params
from ostinato.errors import DataError
from ostinato.forecasting import sources
from ostinato.forecasting.dataset import features
from ostinato.forecasting.dataset.windows import SPLITS, fit_scale
from ostinato.forecasting.formats.layout import CalendarFeatures, Scaling
from ostinato.task import Manifest, Profile
from tests.series import COLUMNS, counts, fetched, prepared, table

PUBLISHED = Path(__file__).parents[2] / "shared/data/series"


def test_clean_rows_are_not_changed(tmp_path: Path) -> None:
    rows = table()
    data = prepared(tmp_path, rows)
    np.testing.assert_array_equal(data.history(0, 120), rows["value"].astype(float))
    assert data.observed.all()
    assert {k: v for k, v in counts(tmp_path).items() if v} == {"rows": 120, "series": 1}


# Dirt


def test_errors_name_the_file_and_the_row(tmp_path: Path) -> None:
    rows = table()
    repeated = rows.copy()
    repeated.loc[50, "day"] = "2020-02-19"  # as the row before
    word = rows.copy()
    word.loc[30, "value"] = "abc"
    zoned = rows.assign(day=rows["day"] + "T00:00:00-06:00")
    no_date = rows.copy()
    no_date.loc[7, "day"] = "2020-02-31"
    for dirty, message in (
        (repeated, r"series\.csv:51: 2 rows of 'value' contradict each other.*rows 51, 52"),
        (rows.drop(index=40), r"series\.csv:41: 1 steps of 'value' are missing"),
        (word, r"series\.csv:32: value 'abc': not a number"),
        (no_date, r"series\.csv:9: date '2020-02-31': not a date"),
        (zoned, r"series\.csv:2: '2020-01-01T00:00:00-06:00' has a time zone; set .*timezone"),
        (rows.rename(columns={"value": "values"}), r"no column 'value'; did you mean 'values'"),
        (rows.assign(more=0).set_axis([*rows, "value"], axis=1), r"csv:1: 2 columns .* 'value'"),
        (rows.to_csv(index=False).replace("rest", "rest,1", 1), r"csv:5: row '2020-01-04.*5 cells"),
        (rows.to_csv(index=False).replace("\n", ",1\n").replace(",1", "", 1), r"csv:2: .*5 cells"),
    ):
        with pytest.raises(DataError, match=message):
            prepared(tmp_path, dirty)


def test_equal_rows_count_once_and_row_order_does_not_matter(tmp_path: Path) -> None:
    rows = table()
    clean = prepared(tmp_path / "clean", rows)
    shuffled = pd.concat([rows, rows[20:40]]).sample(frac=1, random_state=1)
    dirty = prepared(tmp_path / "dirty", shuffled)
    np.testing.assert_array_equal(dirty.target, clean.target)
    assert counts(tmp_path / "dirty")["duplicates"] == 20
    assert counts(tmp_path / "dirty")["unsorted"] > 0


@pytest.mark.parametrize(("rule", "value"), [("first", 99.0), ("last", 7.0)])
def test_contradicting_rows_are_resolved_by_the_rule(
    tmp_path: Path, rule: str, value: float
) -> None:
    rows = table()
    rows.loc[50, "value"] = "99"
    more = pd.concat([rows, rows.loc[[50]].assign(value="7")])
    data = prepared(tmp_path, more, duplicates=rule)
    assert data.target[50] == value
    assert counts(tmp_path)["conflicts"] == 1


@pytest.mark.parametrize(("rule", "lag"), [("forward", 1), ("seasonal", 7)])
def test_a_gap_is_filled_from_the_past_and_has_no_weight(
    tmp_path: Path, rule: str, lag: int
) -> None:
    rows = table()
    data = prepared(tmp_path, rows.drop(index=[110]), gaps=rule)
    assert data.target[110] == data.target[110 - lag]
    assert np.flatnonzero(~data.observed).tolist() == [110]
    assert counts(tmp_path)["filled"] == 1
    size = data.size("test")
    _, y, weight = data.examples("test", np.arange(size))
    assert (weight == 0).sum() == 3  # in each window that forecasts it
    assert y.shape == (size, 3, 1)
    with pytest.raises(DataError, match=r"series\.csv:110: 3 steps .* longest_gap is 2"):
        prepared(tmp_path, rows.drop(index=[109, 110, 111]), gaps=rule)


def test_unreadable_cells_within_the_tolerance_are_rejected_and_listed(tmp_path: Path) -> None:
    rows = table()
    rows.loc[30, "value"], rows.loc[31, "value"] = "abc", " 12.5 "
    data = prepared(tmp_path, rows, gaps="forward", tolerated_rejects=0.01)
    assert data.target[31] == 12.5
    rejects = pd.read_csv(tmp_path / "data" / "rejects.csv", keep_default_na=False)
    assert rejects.to_numpy().tolist() == [["series.csv", 32, "value", "abc", "not a number"]]


def test_times_with_an_offset_become_wall_times_of_the_zone(tmp_path: Path) -> None:
    rows = table()
    plain = prepared(tmp_path / "plain", rows)
    days = rows["day"].tolist()
    days[:66] = [f"{day}T06:00:00Z" for day in days[:66]]  # midnight in Chicago, in winter
    days[80:] = [f"{day}T00:00:00-05:00" for day in days[80:]]  # and in summer
    zoned = prepared(tmp_path / "zoned", rows.assign(day=days), timezone="America/Chicago")
    np.testing.assert_array_equal(zoned.target, plain.target)
    assert counts(tmp_path / "zoned")["zoned"] == 66 + 40


def test_dates_in_utc_are_read(tmp_path: Path) -> None:
    rows = table()
    plain = prepared(tmp_path / "plain", rows)
    for number, (end, date_format) in enumerate(
        [(" 00:00:00 UTC", None), ("T00:00:00+00", None), (" +0000", "%Y-%m-%d %z")]
    ):
        folder = tmp_path / str(number)
        columns = {"date_format": date_format}
        zoned = prepared(folder, rows.assign(day=rows["day"] + end), columns, timezone="UTC")
        np.testing.assert_array_equal(zoned.target, plain.target)
        assert counts(folder)["zoned"] == 120


def test_blank_lines_are_ignored_but_numbered(tmp_path: Path) -> None:
    text = table().to_csv(index=False)
    np.testing.assert_array_equal(
        prepared(tmp_path / "blank", text.replace("\n2020-02", "\n\n ,,,\n2020-02")).target,
        prepared(tmp_path / "plain", text).target,
    )
    broken = text.replace("\n2020-01-03", "\n\n\n2020-01-03").replace("2020-01-05", "never")
    with pytest.raises(DataError, match=r"series\.csv:8: date 'never'"):
        prepared(tmp_path, broken)


def test_until_includes_the_whole_day_or_month(tmp_path: Path) -> None:
    rows = table()
    rows["day"] = pd.date_range("2020-01-01", periods=120, freq="h").strftime("%Y-%m-%d %H:%M")
    split = {"validation": 12, "calibration": 8, "test": 4}
    for until, size in (("2020-01-03", 72), ("2020-01-03 11:00", 60), ("2020-01", 120)):
        data = prepared(tmp_path, rows, {"frequency": "h"}, until=until, **split)
        assert len(data.target) == size
        assert counts(tmp_path)["outside"] == 120 - size


def test_zeros_are_counted_and_can_be_missing_values(tmp_path: Path) -> None:
    rows = table()
    rows.loc[[20, 21], "value"] = "0"
    assert prepared(tmp_path, rows).target[20] == 0
    assert counts(tmp_path)["zeros"] == 2
    data = prepared(tmp_path, rows, zeros="missing", gaps="forward")
    assert data.target[20] == data.target[21] == data.target[19]


def test_a_time_off_the_grid_is_refused(tmp_path: Path) -> None:
    rows = table()
    rows.loc[60, "day"] = "2020-03-01T12:00:00"
    with pytest.raises(DataError, match=r"series\.csv:62: day '2020-03-01 12.*not on the grid"):
        prepared(tmp_path, rows)
    prepared(tmp_path, rows, gaps="forward", tolerated_rejects=0.01)
    listed = pd.read_csv(tmp_path / "data" / "rejects.csv")
    assert listed["row"].tolist() == [62]


def test_times_of_another_frequency_are_refused_with_a_guess(tmp_path: Path) -> None:
    rows = table()
    rows["day"] = pd.date_range("2020-01-01", periods=120, freq="W-WED").strftime("%Y-%m-%d")
    with pytest.raises(DataError, match=r"csv:2: day .* W-SUN, .* look like frequency: W-WED"):
        prepared(tmp_path, rows, {"frequency": "W-SUN"})


def test_a_holiday_is_a_gap_among_business_days(tmp_path: Path) -> None:
    rows = table()
    rows["day"] = pd.date_range("2020-01-01", periods=120, freq="B").strftime("%Y-%m-%d")
    data = prepared(tmp_path, rows.drop(index=[30, 50]), {"frequency": "B"}, gaps="forward")
    assert np.flatnonzero(~data.observed).tolist() == [30, 50]


@pytest.mark.parametrize("frequency", ["D", "h", "W-SUN", "MS", "ME", "B", "15min"])
def test_each_frequency_has_a_grid(tmp_path: Path, frequency: str) -> None:
    rows = table()
    at = pd.date_range("2019-12-01", periods=120, freq=frequency)
    rows["day"] = at.strftime("%Y-%m-%dT%H:%M:%S")
    data = prepared(tmp_path, rows, {"frequency": frequency})
    keys = data.windows("test", np.arange(2)).keys
    assert keys.tolist() == [f"value@{t.isoformat()}" for t in at[100:102]]


def test_a_file_a_date_and_a_target_are_enough_for_the_default_study(tmp_path: Path) -> None:
    """The csv block and the splits of params.yaml suit another daily series of enough days."""
    root = Path(__file__).parent.parent
    entry = params.load(root / "params.yaml")["data"]["weather"]
    rows = table(1000)[["day", "value"]]
    rows.to_csv(tmp_path / "mine.csv", index=False)
    changes = {"where": str(tmp_path / "mine.csv"), "date": "day", "target": "value"}
    data = fetched(tmp_path, "csv", {**entry["fetch"]["csv"], **changes}, **entry["prepare"])
    sizes = [data.size(split) for split in ("train", "validation", "test")]
    assert sizes == [1000 - 730 - 28 - 7 + 1, 365 - 7 + 1, 365 - 7 + 1]


def test_steps_before_the_end_count_in_each_series_and_any_frequency(tmp_path: Path) -> None:
    tables = [table(120, seed).assign(shop=f"s{seed}") for seed in range(2)]
    tables[1] = tables[1].iloc[10:100]
    data = prepared(tmp_path / "many", pd.concat(tables), {"series": "shop"})
    np.testing.assert_array_equal(data._bounds[:, 1:4] - data._bounds[:, 4:], [[-60, -40, -20]] * 2)
    rows = table()
    rows["day"] = pd.date_range("2020-01-01", periods=120, freq="15min").strftime("%Y-%m-%dT%H:%M")
    hours = prepared(tmp_path / "hours", rows, {"frequency": "15min"})
    assert hours._bounds.tolist() == [[0, 60, 80, 100, 120]]


def test_the_manifest_has_the_sizes_of_the_splits_and_typed_details(tmp_path: Path) -> None:
    data = prepared(tmp_path, table())
    manifest = Manifest.read(tmp_path / "data" / "manifest.json")
    assert manifest == data.manifest
    assert {split: manifest.size(split) for split in SPLITS} == {s: data.size(s) for s in SPLITS}
    assert data.details.first == "2020-01-01T00:00:00"
    assert data.details.last == "2020-04-29T00:00:00"
    assert data.details.to_json() == manifest.details
    for field in ("horizon", "codings", "rules"):
        broken = {key: value for key, value in manifest.details.items() if key != field}
        with pytest.raises(DataError, match=field):
            type(data.details).of(Manifest("csv", "windows", {}, details=broken))


# Windows


@settings(max_examples=25)
@given(
    st.sampled_from(SPLITS),
    st.integers(0, 10**6),
    st.sampled_from(["series", "all", "window"]),
    st.sampled_from(["standard", "min_max", "robust", "none"]),
    st.booleans(),
)
def test_a_window_cannot_see_its_future(
    split: str, number: int, per: str, scaling: str, log: bool
) -> None:
    """Change the target and the past covariates from the origin on; the inputs do not change."""
    with TemporaryDirectory() as folder:
        rows = table()
        rules: dict[str, Any] = {"per": per, "scaling": scaling, "log": log, "gaps": "forward"}
        data = prepared(Path(folder), rows.drop(index=[45, 111]), **rules)
        numbers = np.array([number % data.size(split)])
        origin = int(data.windows(split, numbers).history[0])
        x, y, _ = data.examples(split, numbers)
        other = rows.copy()
        other.loc[origin:, "value"] = (other.loc[origin:, "value"].astype(float) * 3).astype(str)
        other.loc[origin:, "other"] = "77"
        changed = prepared(Path(folder), other.drop(index=[45, 111]), **rules)
        inputs, target, _ = changed.examples(split, numbers)
        if split == "train":
            # The scale and the codings are fitted on all of the training part, so keep those.
            changed._centre, changed._spread = data._centre, data._spread
            changed._past = np.where(
                np.arange(len(data._past))[:, None] < origin, data._past, changed._past
            )
            inputs, target, _ = changed.examples(split, numbers)
        for name in x:
            np.testing.assert_array_equal(inputs[name], x[name], err_msg=name)
        assert (target != y).any()


def test_scales_and_codings_are_fitted_on_the_training_part_only(tmp_path: Path) -> None:
    rows, other = table(), table()
    other.loc[60:, ["value", "other"]] = "1000"
    other.loc[60:, "kind"] = "new"
    one, two = prepared(tmp_path / "one", rows), prepared(tmp_path / "two", other)
    assert (one.details.centre, one.details.spread) == (two.details.centre, two.details.spread)
    training = slice(0, 60)
    np.testing.assert_array_equal(one._past[training], two._past[training])
    assert not two._future[60:].any()
    assert counts(tmp_path / "two")["unknown_cells"] == 60


def test_splits_forecast_disjoint_steps(tmp_path: Path) -> None:
    data = prepared(tmp_path, table())
    forecast = {}
    for split in SPLITS:
        history = data.windows(split, np.arange(data.size(split))).history
        forecast[split] = {int(h) + step for h in history for step in range(data.horizon)}
    steps = [sorted(forecast[split]) for split in SPLITS]
    assert steps == [
        list(range(7, 60)), list(range(60, 80)), list(range(80, 100)), list(range(100, 120))
    ]  # fmt: skip


def test_calibration_null_is_the_validation_split(tmp_path: Path) -> None:
    data = prepared(tmp_path, table(), calibration=None)
    every = np.arange(data.size("validation"))
    one, two = data.windows("validation", every), data.windows("calibration", every)
    np.testing.assert_array_equal(one.keys, two.keys)
    assert len(every) == 60 - 20 - 3 + 1


def test_a_split_begins_at_a_date_or_a_number_of_steps_before_the_end(tmp_path: Path) -> None:
    dates: dict[str, Any] = {
        "validation": "2020-03-01",
        "calibration": "2020-03-21",
        "test": "2020-04-10",
    }
    one, two = prepared(tmp_path / "one", table(), **dates), prepared(tmp_path / "two", table())
    np.testing.assert_array_equal(one._bounds, two._bounds)


def test_unscaled_inverts_scaling(tmp_path: Path) -> None:
    for per in ("series", "window"):
        data = prepared(tmp_path, table(), per=per, log=True, scaling="robust")
        every = np.arange(data.size("test"))
        _, y, _ = data.examples("test", every)
        windows = data.windows("test", every)
        np.testing.assert_allclose(data.unscaled(y[..., 0], windows), windows.truth, rtol=1e-6)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_a_constant_has_a_positive_spread(values: list[float]) -> None:
    kinds: tuple[Scaling, ...] = ("standard", "min_max", "robust", "none")
    for kind in kinds:
        centre, spread = fit_scale(np.array([values]), kind)
        assert (spread > 0).all()
        assert np.isfinite((np.array([values]) - centre) / spread).all()


def test_an_epoch_has_each_window_once_in_its_own_order(tmp_path: Path) -> None:
    data = prepared(tmp_path, table(), gaps="forward")

    def first_targets(seed: int | None, epoch: int) -> Any:
        batches = data.batches("train", batch_size=8, seed=seed, epoch=epoch)
        return np.concatenate([y.numpy()[:, 0, 0] for _, y, _ in batches])

    stored, one = first_targets(None, 0), first_targets(1, 1)
    assert sorted(stored) == sorted(one)
    assert (first_targets(1, 1) == one).all()
    assert (first_targets(1, 2) != one).any()
    assert (stored != one).any()


def test_many_series_form_one_data_set_with_static_features(tmp_path: Path) -> None:
    tables = [table(120, seed).assign(shop=f"s{seed}", town=f"t{seed % 2}") for seed in range(3)]
    tables[2] = tables[2].iloc[5:115]  # begins later and ends earlier
    rows = pd.concat(tables).sample(frac=1, random_state=2)
    data = prepared(tmp_path, rows, {"series": "shop", "static_covariates": ["town"]})
    assert sorted(data.names) == ["s0", "s1", "s2"]
    assert data.size("test") == 3 * (20 - 3 + 1)
    x, _, _ = data.examples("test", np.arange(data.size("test")))
    assert x["static"].shape == (54, 2)
    late = data.names.index("s2")
    first = data.windows("train", np.arange(data.size("train")))
    assert f"s2@{pd.Timestamp('2020-01-06') + pd.Timedelta(days=7):%Y-%m-%dT%H:%M:%S}" in first.keys
    np.testing.assert_array_equal(data.history(late, 110), tables[2]["value"].astype(float))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"town": "t9"}, r"csv:361: static 'town' of 's2' is 't9', but 't0' in an earlier row"),
        ({"shop": ""}, r"csv:361: shop '': no name of a series"),
    ],
)
def test_errors_of_one_of_many_series_name_its_row(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    many = [table(120, seed).assign(shop=f"s{seed}", town=f"t{seed % 2}") for seed in range(3)]
    rows = pd.concat(many, ignore_index=True)
    rows.loc[rows.index[-1], list(change)] = list(change.values())
    columns = {"series": "shop", "static_covariates": ["town"]}
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, rows, columns)
    if "town" not in change:
        data = prepared(tmp_path, rows, columns, tolerated_rejects=0.01)
        assert data.names == ["s0", "s1", "s2"]
        assert counts(tmp_path)["series"] == 3
        assert pd.read_csv(tmp_path / "data" / "rejects.csv")["row"].tolist() == [361]


@pytest.mark.parametrize(("value", "reason"), [("", "has no value"), ("7", "has no training step")])
def test_a_series_that_cannot_be_used_is_left_out_and_told(
    tmp_path: Path, value: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    many = [table(120, seed).assign(shop=f"s{seed}") for seed in range(3)]
    many.append(table(20).assign(shop="new", value=value))
    with caplog.at_level("INFO"):
        data = prepared(tmp_path, pd.concat(many), {"series": "shop"})
    assert data.names == ["s0", "s1", "s2"]
    assert counts(tmp_path)["series_left_out"] == 1
    (reject,) = pd.read_csv(tmp_path / "data" / "rejects.csv").to_dict("records")
    assert (reject["row"], reject["column"], reject["value"]) == (362, "series", "new")
    assert reason in reject["reason"]
    assert "1 whole series" in caplog.text


def test_columns_can_have_any_name(tmp_path: Path) -> None:
    names = {"other": "series", "kind": "step"}
    data = prepared(
        tmp_path / "odd",
        table().rename(columns=names),
        {"past_covariates": ["series"], "future_covariates": ["step"]},
    )
    plain = prepared(tmp_path / "plain", table())
    np.testing.assert_array_equal(data._past, plain._past)
    np.testing.assert_array_equal(data._future, plain._future)


def test_each_day_has_one_type_and_holidays_count_as_sundays() -> None:
    times = pd.date_range("2020-01-01", "2020-12-31")
    wanted = CalendarFeatures(["day_type", "holiday"], "US", None)
    names, columns = features.calendar(times, wanted)
    day = dict(zip(names, columns.T, strict=True))
    kinds = day["working day"], day["saturday"], day["sunday or holiday"]
    assert (sum(kinds) == 1).all()
    assert (kinds[2] == ((times.day_of_week == 6) | (day["holiday"] == 1))).all()
    assert [kind[times == "2020-07-04"].item() for kind in kinds] == [0, 0, 1]  # a Saturday
    assert kinds[1].sum() > 45


def test_the_profile_is_a_small_sorted_sample_of_the_training_part(tmp_path: Path) -> None:
    prepared(tmp_path, table())
    profile = Profile.read(tmp_path / "data" / "profile.json")
    assert profile.examples == sum(profile.counts["day"].values()) == 60
    assert set(profile.numbers) == {"value", "change", "length"}
    for sample in profile.numbers.values():
        assert sample == sorted(sample)
        assert len(sample) <= 1000


def test_prepare_is_deterministic(tmp_path: Path) -> None:
    names = ("series.npz", "manifest.json", "profile.json", "rejects.csv")
    prepared(tmp_path, table())
    first = [(tmp_path / "data" / name).read_bytes() for name in names]
    prepared(tmp_path, table())
    assert [(tmp_path / "data" / name).read_bytes() for name in names] == first


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"window": 200}, "no window of 200"),
        ({"test": 2}, "no window of .* fits into test; the longest series has 120 steps"),
        ({"validation": 10}, "must begin in this order"),
        ({"test": "never"}, "'never' is not a date"),
        ({"country": "XX"}, "`holidays` has no country 'XX'"),
        (
            {"timezone": "America/Chicgo"},
            "unknown 'America/Chicgo'; did you mean 'America/Chicago'",
        ),
        ({"since": "yesterday"}, "since: 'yesterday' is not a date"),
        ({"since": "2030"}, "no row lies between since 2030 and until None"),
    ],
)
def test_invalid_rules_are_refused(tmp_path: Path, rules: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, table(), **rules)


def test_a_logarithm_needs_values_above_minus_one(tmp_path: Path) -> None:
    rows = table()
    rows.loc[5, "value"] = "-3"
    with pytest.raises(DataError, match=r"log: .* the least is -3"):
        prepared(tmp_path, rows, log=True)


# Sources


def test_the_embedded_series_has_the_values_of_noaa(tmp_path: Path) -> None:
    split: dict[str, Any] = {"validation": 730, "calibration": None, "test": 365}
    data = fetched(tmp_path, "seattle", {}, **split)
    assert data.windows("test", np.array([0])).keys == ["temp_max@2015-01-01T00:00:00"]
    assert len(data.target) == 1461
    assert data.history(0, 3).tolist() == [12.8, 10.6, 11.7]


def test_wide_files_continue_each_other_and_text_is_refused(tmp_path: Path) -> None:
    train = tmp_path / "Hourly-train.csv"
    test = tmp_path / "Hourly-test.csv"
    values = [" ".join(map(str, range(n, n + 100))) for n in (1, 500)]
    lines = [f'"H{i}",{",".join(v.split())}' for i, v in enumerate(values)]
    train.write_text('"V1","V2"\n' + "\n".join([lines[0] + ",NA,,", lines[1]]) + "\n")
    test.write_text("V1,V2\nH1,9,9,9\nH0,8,8,8\n")
    block = {"train": str(train), "test": str(test), "frequency": "h", "timeout": 1.0, "retries": 1}
    rules: dict[str, Any] = {"calendar": [], "validation": 13, "calibration": 8, "test": 3}

    def prepare() -> Any:
        return fetched(tmp_path, "m4", block, **rules)

    data = prepare()
    truth = data.windows("test", np.arange(2)).truth
    assert truth.tolist() == [[8, 8, 8], [9, 9, 9]]
    assert data.history(1, 100).tolist() == [float(n) for n in range(500, 600)]
    train.write_text(train.read_text().replace(",510,", ",abc,"))
    with pytest.raises(DataError, match=r"Hourly-train\.csv:3: 12 'abc': not a number"):
        prepare()


def test_a_column_cannot_have_two_roles(tmp_path: Path) -> None:
    block = {**COLUMNS, "where": "nowhere.csv", "past_covariates": ["value"]}
    with pytest.raises(errors.SourceError, match="two roles: value"):
        params.bind(sources.csv, block)(tmp_path, tmp_path, 1)


@pytest.mark.parametrize("frequency", ["M", "weekly", "-1D", "100ms", ""])
def test_unknown_frequencies_are_refused(tmp_path: Path, frequency: str) -> None:
    block = {**COLUMNS, "where": "nowhere.csv", "frequency": frequency}
    with pytest.raises(errors.SourceError, match=f"pandas does not know '{frequency}'"):
        params.bind(sources.csv, block)(tmp_path, tmp_path, 1)


def test_a_tfds_data_set_gives_the_rows_of_a_csv_file(tmp_path: Path) -> None:
    import tensorflow_datasets

    kinds = tensorflow_datasets.features
    features = {"place": kinds.Text(), "day": kinds.Text(), "value": np.float64, "cases": np.int64}
    days = pd.date_range("2020-01-01", periods=120).strftime("%Y-%m-%d")
    rows = [
        {"place": place, "day": day, "value": number / 4, "cases": number}
        for place in ("FR", "DE", "IT")
        for number, day in enumerate(days)
    ]
    rows[3]["value"] = np.nan
    tensorflow_datasets.dataset_builders.store_as_tfds_dataset(
        name="little",
        version="1.0.0",
        features=kinds.FeaturesDict(
            {**features, "picture": kinds.Tensor(shape=(2,), dtype=np.int64)}
        ),
        split_datasets={
            "train": ((i, {**r, "picture": np.zeros(2, np.int64)}) for i, r in enumerate(rows))
        },
        data_dir=tmp_path,
    )
    block = {
        **{key: COLUMNS[key] for key in ("date", "date_format", "static_covariates", "frequency")},
        **{"dataset": "little", "data_dir": str(tmp_path), "split": "train"},
        **{
            "series": "place",
            "only": ["IT", "FR"],
            "target": "value",
            "past_covariates": ["cases"],
        },
        "future_covariates": [],
    }

    def fetch(**change: Any) -> Any:
        return fetched(tmp_path, "tfds", {**block, **change}, gaps="forward")

    data = fetch()
    assert sorted(data.names) == ["FR", "IT"]
    whole, gap = (data.history(data.names.index(name), 120) for name in ("IT", "FR"))
    np.testing.assert_array_equal(whole, np.arange(120) / 4)
    assert np.flatnonzero(gap != whole).tolist() == [3]
    assert (~data.observed).sum() == 1
    for change, message in (
        ({"only": ["FR", "UK"]}, "only: little has no place UK"),
        ({"target": "values"}, "has no feature 'values'; did you mean 'value'"),
        ({"past_covariates": ["picture"]}, r"'picture' has shape \(2,\)"),
        ({"split": "trains"}, "no split 'trains'; did you mean 'train'"),
        ({"dataset": "no_such_thing"}, "no_such_thing"),
        ({"series": None}, "only: set series"),
    ):
        with pytest.raises(errors.SourceError, match=message):
            fetch(**change)


def test_a_tfds_data_set_that_needs_beam_is_built_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow_datasets

    def without_beam(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'apache_beam'", name="apache_beam")

    monkeypatch.setattr(
        tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", without_beam
    )
    names = ("date", "series", "target", "past_covariates", "static_covariates")
    features = ("date", "location_key", "new_confirmed", ["new_deceased"], ["population"])
    block = {
        **dict(zip(names, features, strict=True)),
        **{"dataset": "covid19", "data_dir": str(tmp_path), "split": "train", "only": None},
        **{"date_format": None, "future_covariates": [], "frequency": "D"},
    }
    with pytest.raises(errors.SourceError, match=r"apache_beam.*environment of its own.*data_dir"):
        fetched(tmp_path, "tfds", block)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the published file")
def test_two_months_published_twice_are_read_once(tmp_path: Path) -> None:
    block = {"where": str(PUBLISHED / "cta_ridership_daily.csv"), "target": "rail_boardings",
             "timeout": 1.0, "retries": 1}  # fmt: skip
    fetched(tmp_path, "cta", block)
    found = counts(tmp_path)
    assert found["duplicates"] > 50
    assert found["filled"] == 0
    days = pd.date_range("2001-01-01", "2019-05-31")
    assert found["rows"] - found["duplicates"] == len(days)


def test_an_empty_training_split_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="longest series has 50 steps, and validation begins at 60"):
        prepared(tmp_path, table(50))
