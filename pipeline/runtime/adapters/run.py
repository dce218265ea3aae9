"""An import from beginning to end: survey, parts, dictionary, manifest, configuration.

Tables go to ``import/<version>`` below the root, where the version tells the source's files and the
parameters. ``import.json`` is written there last, then the configuration that names them: a killed
import leaves the earlier one in place, and an unchanged source is not read again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.config.imports import ImportParams
from pipeline.config.load import load_config
from pipeline.files.storage import Storage, open_storage
from pipeline.kernels.import_reasons import ImportReason
from pipeline.kernels.row_checks import rejected_rows, shorten
from pipeline.runtime.adapters import folders
from pipeline.runtime.adapters.configure import preset_for, write_configuration
from pipeline.runtime.adapters.pool import run_tasks
from pipeline.runtime.adapters.survey import Survey, survey
from pipeline.runtime.adapters.task import REJECTED, TABLES, Outcome, Task
from pipeline.runtime.adapters.units import Unit, files_with, walk
from pipeline.runtime.logs import event
from pipeline.runtime.writer import write_part
from schemas.imports import REJECTED_IMPORTS
from schemas.inputs import SOURCE_TERMS

logger = logging.getLogger(__name__)

HOME, MANIFEST = "import", "import.json"


@dataclass(frozen=True)
class Imported:
    """What an import left.

    Attributes:
        config_path: configuration of the chain, the user's own from now on.
        folder: of the tables, below the root.
        manifest: content of ``import.json``: kind, counts, reasons.
    """

    config_path: str
    folder: str
    manifest: dict[str, Any]


def import_source(
    source_uri: str,
    root_uri: str,
    params: ImportParams,
    preset: str | None = None,
    force: bool = False,
) -> Imported:
    """Write the input tables of a source, and a configuration that names them.

    Args:
        source_uri: folder or URI with the files.
        root_uri: folder or URI of the run.
        params: parameters of the import.
        preset: what the configuration extends; None chooses by the number of images.
        force: read the source although it is as it was.

    Raises:
        ValueError: the source is of no known form, no sample of it is sound, or no term is on
            enough images.
        OSError: the source cannot be read or the root not be written.
    """
    source, root = open_storage(source_uri), open_storage(root_uri)
    leave_out = root.root if root.is_local else ""
    found = survey(source, params, leave_out, preset or "")
    folder = f"{HOME}/{found.version}"
    if force or not root.exists(f"{folder}/{MANIFEST}"):
        root.remove(f"{folder}/{MANIFEST}")
        outcome, num_units = _import_parts(source, root, found, params, folder, leave_out)
        if not outcome.num_images:
            raise ValueError(
                f"{source.uri}: none of {outcome.num_samples} samples ({found.kind}) is sound: "
                f"{_told(outcome.reasons)}. See {root.uri}/{folder}/{REJECTED}."
            )
        manifest = _finish(root, folder, outcome, num_units, found, params, preset)
        root.write_json_atomic(f"{folder}/{MANIFEST}", manifest)
    manifest = root.read_json(f"{folder}/{MANIFEST}")
    event(logger, "imported", folder=folder, **manifest["counts"])
    chosen = preset or preset_for(manifest["counts"]["images"])
    config_path = write_configuration(root, source, folder, manifest, chosen)
    return Imported(config_path, folder, manifest)


def _import_parts(
    source: Storage,
    root: Storage,
    found: Survey,
    params: ImportParams,
    folder: str,
    leave_out: str,
) -> tuple[Outcome, int]:
    """All parts of the source; their outcomes together, and the number of units."""
    root.remove(folder)  # parts of a killed import that had more units
    tasks = (
        Task(found.kind, source.uri, unit, root.uri, folder, index, params)
        for index, unit in enumerate(_units(source, found, params, leave_out))
    )
    total, num_units = Outcome(), 0
    for outcome in run_tasks(tasks, params.processes):
        total.add(outcome)
        num_units += 1
        event(logger, "part", index=num_units - 1, images=outcome.num_images)
    return total, num_units


def _units(source: Storage, found: Survey, params: ImportParams, leave_out: str) -> Iterator[Unit]:
    entries = walk(source, leave_out)
    if found.kind == "webdataset":
        return files_with("tar", entries)
    if found.kind == "parquet":
        return files_with("parquet", entries)
    return folders.list_units(source, entries, found.tables, params)


def _finish(
    root: Storage,
    folder: str,
    outcome: Outcome,
    num_units: int,
    found: Survey,
    params: ImportParams,
    preset: str | None,
) -> dict[str, Any]:
    """Write the dictionary and the rare keywords; the manifest.

    Where at least half of the images have keywords these are the annotations; else annotations are
    predicted from all texts, with a dictionary of keywords and of words in captions.
    """
    config = load_config(preset or preset_for(outcome.num_images))
    floor = params.min_term_images or config.score_concreteness.min_positives
    has_keywords = 2 * outcome.num_with_keywords >= outcome.num_images
    terms = {term for term, count in outcome.keywords.items() if count >= floor}
    if not has_keywords:
        most = params.max_caption_share * outcome.num_images
        terms |= {t for t, count in outcome.captions.items() if floor <= count <= max(most, floor)}
    if not terms:
        raise ValueError(
            f"no keyword or word of a caption is on {floor} of {outcome.num_images} images: there "
            "is nothing to label with. Lower the floor with --min-term-images."
        )
    write_part(
        root, f"{folder}/terms", SOURCE_TERMS, 0, 1, _term_rows(terms, config.ingest.language)
    )
    rare = {term: n for term, n in outcome.keywords.items() if n < floor}
    _write_rare(root, folder, num_units, rare, floor)
    outcome.reasons[ImportReason.RARE_TERM] += len(rare)
    return {
        "kind": found.kind,
        "annotations": "keywords" if has_keywords else "predicted",
        "min_term_images": floor,
        "counts": {
            "samples": outcome.num_samples,
            "images": outcome.num_images,
            "rejected": outcome.num_samples - outcome.num_images,
            "terms": len(terms),
        },
        "reasons": {k: n for k, n in sorted(outcome.reasons.items()) if n},
        "tables": [*TABLES, "terms", REJECTED],
    }


def _term_rows(terms: Iterable[str], language: str) -> pa.Table:
    """The dictionary, identifiers in the order of the texts."""
    texts = sorted(terms)
    ids = range(len(texts))
    columns = [ids, texts, [language] * len(texts), ids, [False] * len(texts)]
    return pa.table(
        [pa.array(c, t) for c, t in zip(columns, SOURCE_TERMS.arrow_schema.types, strict=True)],
        schema=SOURCE_TERMS.arrow_schema,
    )


def _write_rare(root: Storage, folder: str, index: int, rare: dict[str, int], floor: int) -> None:
    """Keywords below the floor, as one part more of the rejected."""
    names = sorted(rare, key=lambda term: term.encode())
    details: list[str | None] = [f"{rare[n]} images, at least {floor} needed" for n in names]
    rows = rejected_rows(
        [shorten(n) for n in names], [str(ImportReason.RARE_TERM)] * len(names), details
    )
    rows = rows.sort_by([(key, "ascending") for key in REJECTED_IMPORTS.key])
    write_part(root, f"{folder}/{REJECTED}", REJECTED_IMPORTS, index, 1, rows)


def _told(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "no files"
