"""Play movement live: python live.py  (the same as eqdiff-live)"""

import sys

from eqdiff_jax.cli.live import main

if __name__ == "__main__":
    sys.exit(main())
