"""Placeholders and markup: each is a token, and has to be the same on both sides of a pair."""

import re

PLACEHOLDER = re.compile(
    r"%\(\w+\)[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]|%(?:\d+\$)?\d*(?:\.\d+)?[sdifgrc](?![a-zA-Z])"
    r"|\{\{[^{}]*\}\}|\{[\w.!:,%]*\}|\$\{?\w+\}?|</?[a-zA-Z][^<>]*>|&#?\w+;"
)
