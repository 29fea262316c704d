"""Faults of images with boxes or masks, gathered over a whole source, one finding a kind."""

from __future__ import annotations

from collections.abc import Iterator

from keras_transfer.data.findings import Finding, Severity, find

_SKIP = "--data.bad_files skip goes on without these images"

KINDS = {
    "missing_file": (
        "images that the annotations name do not exist",
        f"Restore the images, or correct their names; {_SKIP}",
    ),
    "image_size_mismatch": (
        "images have another size than their annotation says, so that its boxes or masks do not fit",
        f"Annotate the image as it is shown upright (Exif orientation), or correct the size; {_SKIP}",
    ),
    "malformed_xml": ("files cannot be read as Pascal VOC XML", f"Correct or restore the files; {_SKIP}"),
    "malformed_json": ("entries have not the structure of COCO", f"Correct the entries; {_SKIP}"),
    "malformed_row": (
        "rows are not `class centre_x centre_y width height` with numbers from 0 to 1",
        f"Correct the rows: a class index, then shares of the image's width and height; {_SKIP}",
    ),
    "unlabelled": ("boxes have no class", f"Name the class of each box; {_SKIP}"),
    "unknown_class": (
        "boxes are of a class that the data does not list",
        f"Correct the class of the box, or add it to the list of classes; {_SKIP}",
    ),
    "box_not_numeric": ("boxes are not four finite numbers", f"Write four numbers; {_SKIP}"),
    "box_swapped": (
        "boxes begin behind their end (x or y swapped, or a negative size)",
        f"Write the lesser number first: x_min < x_max, y_min < y_max; {_SKIP}",
    ),
    "box_without_area": ("boxes have no area", f"Draw them again or remove them; {_SKIP}"),
    "box_outside_image": (
        "boxes reach outside their image",
        f"Correct the boxes; look whether the image was resized or turned after they were drawn; {_SKIP}",
    ),
    "duplicate_id": ("ids are used twice, so that it is open what belongs together", f"Number them anew; {_SKIP}"),
    "unknown_image": (
        "annotations are of an image that the file does not list",
        "Correct image_id, or list the image; --data.bad_files skip goes on without these annotations",
    ),
    "missing_mask": ("images have no mask", f"Add a mask of the same name, or remove the images; {_SKIP}"),
    "unreadable_mask": ("masks cannot be read", f"Write each as a PNG of class indices; {_SKIP}"),
    "mask_size": (
        "masks have another size than their image",
        f"Write each mask at the size of its image as it is shown upright (Exif orientation); {_SKIP}",
    ),
    "unknown_mask_value": (
        "masks hold values of no class",
        "List the classes in classes.txt, one name a line (or in class_dict.csv: name,r,g,b; the name `ignore` leaves "
        f"pixels out), or say with --data.ignore_index which value does not count; {_SKIP}",
    ),
    "malformed_segmentation": (
        "annotations have no polygons or run lengths that can be read",
        f"Write polygons as [[x, y, x, y, x, y, …], …] or {{\"size\": [h, w], \"counts\": …}}; {_SKIP}",
    ),
}  # fmt: skip
"""What is wrong, after a number, and the mend; by kind."""


class PictureFaults:
    """Takes what is wrong; the images at fault are left out."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}

    def add(self, kind: str, place: str, why: str = "") -> None:
        """Notes one fault.

        Args:
            kind: a key of `KINDS`.
            place: file, or file:line.
            why: what was received.
        """
        self._places.setdefault(kind, []).append(f"{place}: {why}" if why else place)

    def findings(self, severity: Severity) -> Iterator[Finding]:
        """One finding a kind."""
        for kind in KINDS:
            if places := self._places.get(kind):
                message, mend = KINDS[kind]
                left_out = "; they are left out" if severity == "warn" else ""
                yield find(kind, severity, f"{len(places)} {message}{left_out}", places, mend)
