"""Sources of pieces."""

from ostinato.music.sources.chorales import chorales
from ostinato.music.sources.jsb_csv import jsb_csv
from ostinato.music.sources.midi import midi
from ostinato.music.sources.piano_rolls import piano_rolls

__all__ = ["chorales", "jsb_csv", "midi", "piano_rolls"]
