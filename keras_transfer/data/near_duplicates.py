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
from scipy import sparse
from scipy.sparse import csgraph

ROWS, COLUMNS = 8, 9
"""Grey cells of a thumbnail; one column more than bits."""
BITS = 4
MEAN_LEVELS, MOST_LEVELS = 1.5, 8
"""Largest mean and single difference of the cells, in grey levels. Measured on 150 aerial crops: JPEG at quality 30
stays below 0.7 and 5, half or three times the size below 0.3 and 2. Other handwritten digits of the same class, which
look much alike at this size, begin at 1.5 and 9."""
_CROWD = 512
"""Images in one band above which each is compared with its nearest in order only: a band so full holds images that
are alike in little else than that they are nearly plain."""
_NEIGHBOURS = 8


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
    pairs = [np.zeros((0, 2), np.int64)]
    for shift, width in _bands():
        band = (found >> np.uint64(shift)) & np.uint64((1 << width) - 1)
        order = np.lexsort((order_within, found, band))
        starts = np.flatnonzero(np.r_[True, band[order][1:] != band[order][:-1], True])
        for start, stop in zip(starts[:-1], starts[1:], strict=True):
            if stop - start > 1:
                pairs.append(_alike(order[start:stop], found, cells))
    return _chains(len(thumbnails), np.concatenate(pairs))


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


def _chains(count: int, pairs: np.ndarray) -> list[list[int]]:
    """What is alike, directly or through others, in one group each."""
    ones = np.ones(len(pairs), np.int8)
    graph = sparse.coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, component = csgraph.connected_components(graph, directed=False)
    found: dict[int, list[int]] = defaultdict(list)
    for index in np.unique(pairs).tolist():
        found[int(component[index])].append(index)
    return list(found.values())


def group_texts(texts: Sequence[str]) -> list[list[int]]:
    """Groups of texts that are equal but for case, accents' encoding, punctuation and white space."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        key = " ".join(re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).split())
        if key:
            found[key].append(index)
    return [group for group in found.values() if len(group) > 1]
