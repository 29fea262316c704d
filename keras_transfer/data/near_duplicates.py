"""Near duplicates: images that look the same after recompression or resizing, and texts that differ in case or signs.

Images are compared by their difference hash (dHash, N. Krawetz, "Kind of Like That", 2013): whether each of 8 × 8
grey cells is brighter than its right neighbour. Candidates differ in few bits; cells within a few grey levels confirm.
Any two hashes that differ in at most `BITS` bits agree on one of `BITS` + 1 bands of bits, so that only images that
share a band are compared, not all with all.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

ROWS, COLUMNS = 8, 9
"""Grey cells of a thumbnail; one column more than bits."""
BITS = 4
MEAN_LEVELS, MOST_LEVELS = 4, 24
"""Largest mean and single difference of the cells, in grey levels. JPEG at quality 30 and halving the size stay below
2 and 8 on photos; other photos of one scene are above."""
_CROWD = 512
"""Images in one band above which each is compared with its nearest in order only: a band so full holds images that
are alike in little else than that they are nearly plain."""
_NEIGHBOURS = 32


def hashes(thumbnails: np.ndarray) -> np.ndarray:
    """uint64 [n] difference hashes of uint8 [n, 8, 9] grey thumbnails."""
    bits = thumbnails[:, :, 1:] > thumbnails[:, :, :-1]
    return np.packbits(bits.reshape(len(bits), 64), axis=1).view(">u8").astype(np.uint64).reshape(-1)


def group_images(thumbnails: np.ndarray) -> list[list[int]]:
    """Groups of images that look the same.

    Args:
        thumbnails: uint8 [n, 8, 9], grey.

    Returns:
        Lists of at least two indices, in order.
    """
    if len(thumbnails) < 2:
        return []
    found = hashes(thumbnails)
    cells = thumbnails.reshape(len(thumbnails), -1).astype(np.int16)
    order_within = cells.mean(1)
    chains = _Chains(len(thumbnails))
    for shift, width in _bands():
        band = (found >> np.uint64(shift)) & np.uint64((1 << width) - 1)
        order = np.lexsort((order_within, found, band))
        starts = np.flatnonzero(np.r_[True, band[order][1:] != band[order][:-1], True])
        for start, stop in zip(starts[:-1], starts[1:], strict=True):
            if stop - start > 1:
                chains.join_all(_alike(order[start:stop], found, cells))
    return chains.groups()


def _bands() -> Iterable[tuple[int, int]]:
    """(shift, width) of the bands that 64 bits are cut into."""
    edges = [round(64 * index / (BITS + 1)) for index in range(BITS + 2)]
    return [(low, high - low) for low, high in zip(edges[:-1], edges[1:], strict=True)]


def _alike(members: np.ndarray, found: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Pairs of some images that are near duplicates: int [m, 2]."""
    if len(members) <= _CROWD:
        first, second = np.triu_indices(len(members), 1)
    else:
        first = np.repeat(np.arange(len(members)), _NEIGHBOURS)
        second = first + np.tile(np.arange(1, _NEIGHBOURS + 1), len(members))
        first, second = first[second < len(members)], second[second < len(members)]
    one, other = members[first], members[second]
    close = np.bitwise_count(found[one] ^ found[other]) <= BITS
    one, other = one[close], other[close]
    difference = np.abs(cells[one] - cells[other])
    same = (difference.mean(1) <= MEAN_LEVELS) & (difference.max(1, initial=0) <= MOST_LEVELS)
    return np.stack([one[same], other[same]], axis=1)


class _Chains:
    """Disjoint sets: what is alike is in one chain."""

    def __init__(self, count: int):
        self._above = list(range(count))
        self._joined: set[int] = set()

    def join_all(self, pairs: np.ndarray) -> None:
        for one, other in pairs.tolist():
            first, second = sorted((self._top(one), self._top(other)))
            self._above[second] = first
            self._joined.update((one, other))

    def _top(self, index: int) -> int:
        while self._above[index] != index:
            self._above[index] = self._above[self._above[index]]
            index = self._above[index]
        return index

    def groups(self) -> list[list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for index in sorted(self._joined):
            found[self._top(index)].append(index)
        return list(found.values())


def group_texts(texts: Sequence[str]) -> list[list[int]]:
    """Groups of texts that are equal but for case, accents' encoding, punctuation and white space."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        key = " ".join(re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).split())
        if key:
            found[key].append(index)
    return [group for group in found.values() if len(group) > 1]
