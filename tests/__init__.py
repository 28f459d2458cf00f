"""Tests. Named shapes are checked by ``pytest --jaxtyping-packages=ostinato,tests.checked``."""

from tests.shapes import checked

__all__ = ["checked"]
