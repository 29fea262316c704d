"""Pascal VOC: an XML file an image, beside it or in the layout of the VOC development kit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_transfer.data import boxes, files, image_files
from keras_transfer.data.boxes import Box, BoxedImage
from keras_transfer.data.findings import Finding, Raw, Severity, find
from keras_transfer.data.picture_faults import PictureFaults
from keras_transfer.vision import formats, voc_xml


def load(root: Path, sections: Mapping[str, Path], severity: Severity) -> Raw:
    """The records of VOC annotations.

    An object that is marked `difficult` is kept as `crowd`: VOC's own scores count it neither as missed nor as wrongly
    found, which is what COCO's metrics do with a crowd; dropped, a detector that finds it would be scored down.

    Args:
        root: ids are relative to it.
        sections: by split name, an XML file, a folder, or a list of stems (`ImageSets/Main/train.txt`).
        severity: of an image that is left out.
    """
    raw, faults = Raw(), PictureFaults()
    for name, place in sections.items():
        annotations, folders = _annotations(place, faults)
        finder = image_files.Finder(folders)
        images = [image for path in annotations if (image := _read(path, root, finder, faults)) is not None]
        raw[name] = boxes.records(images, None, faults)
        raw.findings += _unannotated(place, folders, annotations, images)
    raw.findings += faults.findings(severity)
    return raw


def _annotations(place: Path, faults: PictureFaults) -> tuple[list[Path], list[Path]]:
    """The XML files of a split, and the folders in which its images may be."""
    if place.suffix.lower() == ".txt":
        kit = place.parent.parent.parent
        inside = image_files.folder_named(kit, "annotations") or kit
        stems = [line.split()[0] for line in files.read_text(place).splitlines() if line.strip()]
        listed = [(number, inside / f"{stem}.xml") for number, stem in enumerate(stems, 1)]
        for number, path in listed:
            if not path.is_file():
                faults.add("missing_file", f"{place}:{number}", f"no annotation {path}")
        return [path for _, path in listed if path.is_file()], _folders(inside)
    if place.is_file():
        return [place], _folders(place.parent)
    inside = image_files.folder_named(place, "annotations") or place
    found = [path for path in files.walk(inside) if path.suffix.lower() == ".xml"]
    return found, [*dict.fromkeys(folder for path in found for folder in _folders(path.parent))] or _folders(inside)


def _folders(annotations: Path) -> list[Path]:
    """Where the images of some annotations are usually kept."""
    above = annotations.parent
    beside = [image_files.folder_named(parent, "jpegimages", "images") for parent in (above, annotations)]
    return [annotations, *(folder for folder in beside if folder is not None), above]


def _read(path: Path, root: Path, finder: image_files.Finder, faults: PictureFaults) -> BoxedImage | None:
    """One annotation; None where it cannot be used."""
    try:
        annotation = voc_xml.read(path)
    except voc_xml.VocError as error:
        faults.add("malformed_xml", f"{path}:{error.place}", str(error))
        return None
    except OSError as error:
        faults.add("malformed_xml", str(path), error.strerror or str(error))
        return None
    image = finder.find(annotation.filename, Path(annotation.filename).stem, path.stem)
    if image is None:
        faults.add("missing_file", str(path), f"no image {annotation.filename or path.stem!r}")
        return None
    found = [_box(path, one, faults) for one in annotation.objects]
    kept = [box for box in found if box is not None]
    if len(kept) < len(found):
        return None
    size = boxes.numbers(annotation.size)
    said = (round(size[0]), round(size[1])) if size is not None and min(size) > 0 else None
    return BoxedImage(boxes.id_of(image, root), image, kept, str(path), said)


def _box(path: Path, one: voc_xml.VocObject, faults: PictureFaults) -> Box | None:
    where = f"{path}:{one.line}"
    written = ", ".join(f"{side} {text or '(missing)'}" for side, text in zip(voc_xml.SIDES, one.corners, strict=True))
    corners = boxes.numbers(one.corners)
    if not one.name:
        faults.add("unlabelled", where, written)
        return None
    if corners is None:
        faults.add("box_not_numeric", where, written)
        return None
    x_min, y_min, x_max, y_max = corners
    if x_max < x_min or y_max < y_min:
        faults.add("box_swapped", where, written)  # told before the first edges are moved by one
        return None
    # VOC counts pixels from 1 and includes the last: the first edges are one less than written.
    return Box((x_min - 1, y_min - 1, x_max, y_max), one.name, where, written, one.difficult)


def _unannotated(
    place: Path, folders: Sequence[Path], annotations: Sequence[Path], images: Sequence[BoxedImage]
) -> list[Finding]:
    """Images of a folder that no XML file is for; a list of stems names what it wants."""
    if not place.is_dir():
        return []
    stems = {path.stem for path in annotations} | {image.image.stem for image in images}
    looked = [folder for folder in folders if folder == place or place in folder.parents]
    alone = [
        str(path)
        for folder in looked
        for path in (files.entries(folder)[1] if folder.is_dir() else [])
        if path.suffix.lower() in formats.EXTENSIONS and path.stem not in stems
    ]
    if not alone:
        return []
    message = f"{len(alone)} images have no XML file and are left out"
    mend = "Annotate them; an image without objects has an <annotation> without <object>"
    return [find("unannotated", "warn", message, alone, mend)]
