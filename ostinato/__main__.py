"""``python -m ostinato``: see `ostinato.cli`."""

import sys

from ostinato.cli import main

sys.exit(main())
