"""Train, compare, explain, register and serve neural models of sequences, reproducibly.

A domain (`ostinato.sketches`, `forecasting`, `translation`, `video`) has sources of data, a
prepared data set, models and an evaluation; `ostinato.task` holds the types that they exchange.
``python -m ostinato describe`` lists them with their parameters.
"""
