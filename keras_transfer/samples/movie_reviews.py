"""The `movie_reviews` sample: sentences of movie reviews that people rated, as two tables with text and label.

The sentences and their mean ratings (-4 to 4, by twenty people) come from C. Hutto and E. Gilbert, VADER, ICWSM 2014.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
TABLE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"

# Nearer to zero, the twenty people did not agree on which it is.
LEAST_RATING = 0.5
TRAIN_ROWS, TEST_ROWS = 3000, 1000
SEED = 0


def write(files: Path, folder: Path) -> None:
    """Writes `train.csv` and `test.csv` with the columns text and label.

    Args:
        files: the unpacked package.
        folder: an existing empty folder.
    """
    with tarfile.open(files / ARCHIVE, "r:gz") as archive:
        table = archive.extractfile(TABLE)
        if table is None:
            raise ValueError(f"{files / ARCHIVE}: expected {TABLE} inside. Received: no such file. Fetch it again.")
        rows = choose_rows(read_ratings(table.read()))
    _write_table(folder / "train.csv", rows[:TRAIN_ROWS])
    _write_table(folder / "test.csv", rows[TRAIN_ROWS : TRAIN_ROWS + TEST_ROWS])


def read_ratings(raw: bytes) -> list[tuple[float, str]]:
    """Mean rating (-4 to 4) and text of each line `id, rating, text`, tab separated.

    A line is UTF-8, or Latin-1 where it cannot be (the package does not say; read as Latin-1, its accents break).

    Args:
        raw: the file.
    """
    ratings = []
    for line in raw.splitlines():
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = line.decode("latin-1")
        fields = text.split("\t")
        if len(fields) == 3:
            ratings.append((float(fields[1]), " ".join(fields[2].split())))
    return ratings


def choose_rows(ratings: Iterable[tuple[float, str]]) -> list[tuple[str, str]]:
    """Text and label of every clearly rated text, once each, in an order that depends on nothing but texts and seed.

    Args:
        ratings: mean rating (-4 to 4) and text.

    Returns:
        Text and `positive` or `negative`.
    """
    rows: dict[bytes, tuple[str, str]] = {}
    for rating, text in ratings:
        if abs(rating) >= LEAST_RATING and text:
            # The hash of the text without case: a copy would otherwise fall into training and test.
            key = hashlib.blake2b(f"{SEED}\0{text.casefold()}".encode(), digest_size=16).digest()
            rows.setdefault(key, (text, "positive" if rating > 0 else "negative"))
    return [rows[key] for key in sorted(rows)]


def _write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    """One CSV file, UTF-8."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("text", "label"))
    writer.writerows(rows)
    path.write_text(table.getvalue(), encoding="utf-8", newline="")
