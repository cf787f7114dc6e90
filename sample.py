"""Make music from movement: python sample.py  (the same as eqdiff-sample)"""

import sys

from eqdiff_jax.cli.sample import main

if __name__ == "__main__":
    sys.exit(main())
