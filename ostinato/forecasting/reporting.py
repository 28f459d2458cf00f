"""What report.md shows of forecasts."""

from ostinato.forecasting.metrics import INTERVAL_METRICS, METRICS
from ostinato.task import Reporting

LEGEND = """\
MAE: mean absolute error over all origins and steps of the test split, in the units of the data;
brackets hold its 95% confidence interval, from a bootstrap over blocks of two horizons, as
overlapping forecasts are correlated (with few origins, over series). MASE: MAE over the seasonal
naive error before the origin. OWA: mean of MASE and sMAPE, each relative to M4's Naive2. Quantile
loss: weighted, over all quantiles. Coverage: share of the truth inside the calibrated interval;
width: its mean width. Training: wall time of all epochs. Inference: milliseconds for a forecast of
the whole horizon, one by one / in batches, on this machine.
"""

REPORT = Reporting(
    metrics=(*METRICS.values(), *INTERVAL_METRICS),
    examples="forecasts",
    baselines=("seasonal_naive", "linear"),
    networks="network",
    figures={
        "learning_curves": "Learning curves",
        "forecasts": "Forecasts with their intervals, and the truth",
        "horizon": "Error by step of the horizon",
        "coverage": "Nominal and observed coverage of the intervals",
        "residuals": "Residuals",
    },
    legend=LEGEND,
)
