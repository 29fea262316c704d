"""Silence: TensorFlow's start-up lines are kept off standard error."""

from __future__ import annotations

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports TensorFlow without the lines that its libraries write while they load; all else is still said.

    No environment variable stops these lines: they are written before TensorFlow sets up its log (TensorFlow 2.21).
    What was written is shown where the import fails.
    """
    if "tensorflow" in sys.modules:
        return
    try:
        standard_error = os.dup(2)
    except OSError:  # standard error is closed
        import tensorflow  # noqa: F401

        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            held.seek(0)
            os.write(standard_error, held.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
