"""`python -m keras_transfer COMMAND …` is the same as `keras-transfer COMMAND …`."""

import sys

from keras_transfer.cli import main

if __name__ == "__main__":
    sys.exit(main())
