"""Croissant metadata of a release.

Shards are one FileSet and not a FileObject each, which at 133,000 shards would be 40 MB of
JSON-LD; the standard wants a hash of a FileObject alone, and SHA256SUMS, a FileObject with a hash,
has one of each shard.

Source: Croissant format specification 1.1, sections on resources and record sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.stages.release_about import (
    SUMS,
    ReleaseContents,
    counts_sentence,
    licences_of,
)
from schemas.contract import Column
from schemas.dataset import LABEL_MAP, SHARD_INDEX
from schemas.sample import JSON_SUFFIX, SAMPLE_FIELDS, SUFFIXES

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
_CR_TERMS = (
    "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field",
    "fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset",
    "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated",
    "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _CR_TERMS},
}
_FORMATS = {"json": "application/json", "md": "text/markdown"}
_IMAGES = {suffix: f"image/{name}" for name, suffix in SUFFIXES.items()}
_TYPES = {"int": "sc:Integer", "bigint": "sc:Integer", "float": "sc:Float", "string": "sc:Text"}
_SHARDS, _INDEXES, _MEMBERS, _PICTURES = "shards", "shard-indexes", "sample-json", "sample-images"
_KEY = "^([^.]+)"
_LABELS_SHOWN = ("label_id", "cluster_id", "name", "l1_interest")


def croissant(release: ReleaseContents) -> dict[str, Any]:
    """The metadata as JSON-LD; fields that nobody set are left out.

    Args:
        release: with the hashes of all files but this one and the manifest.
    """
    about = release.about
    told: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": about["title"],
        "description": f"{about['description']} {counts_sentence(release)}".strip(),
        "license": licences_of(release),
        "url": about["url"],
        "version": about["release_version"],
        "datePublished": about["date_published"],
        "citeAs": about["citation"],
        "creator": about["creator"] and {"@type": "sc:Organization", "name": about["creator"]},
        "isBasedOn": release.parent
        and {"@type": "sc:CreativeWork", "identifier": f"sha256:{release.parent}"},
        "size": [
            {"@type": "sc:QuantitativeValue", "value": value, "unitText": unit}
            for unit, value in _sizes(release).items()
        ],
        "distribution": list(_distribution(release)),
        "recordSet": _record_sets(),
    }
    return {name: value for name, value in told.items() if value}


def _sizes(release: ReleaseContents) -> dict[str, int]:
    statistics = release.statistics
    return {
        "samples": statistics["num_samples"],
        "images": statistics["num_images"],
        "labels": release.num_labels,
        "shards": statistics["num_shards"],
    }


def _distribution(release: ReleaseContents) -> Iterable[dict[str, Any]]:
    for name, digest in sorted(release.sha256.items()):
        yield {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "encodingFormat": _FORMATS.get(name.rpartition(".")[2], "text/plain"),
            "sha256": digest,
        }
    held = {"containedIn": {"@id": _SHARDS}}
    suffixes = release.suffixes or sorted(_IMAGES)
    yield _files(
        _SHARDS, "application/x-tar", ["shards/*.tar"],
        f"webdataset shards; the SHA-256 of each stands in {SUMS} and in manifest.json.",
    )  # fmt: skip
    yield _files(
        _INDEXES, "application/x-parquet", ["shards/*.index.parquet"],
        "One beside each shard: where its images are, with labels and weights.",
    )  # fmt: skip
    yield _files(
        _PICTURES, [_IMAGES[suffix] for suffix in suffixes], [f"*.{suffix}" for suffix in suffixes],
        "Images in the shards, their original bytes.",
    ) | held  # fmt: skip
    yield _files(
        _MEMBERS, "application/json", [f"*.{JSON_SUFFIX}"],
        "A JSON member in the shards beside each image.",
    ) | held  # fmt: skip


def _files(name: str, kind: str | list[str], includes: list[str], doc: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": doc,
        "encodingFormat": kind,
        "includes": includes,
    }


def _record_sets() -> list[dict[str, Any]]:
    label_map = {"fileObject": {"@id": "label_map.json"}}
    members, pictures = {"fileSet": {"@id": _MEMBERS}}, {"fileSet": {"@id": _PICTURES}}
    by_name = {"extract": {"fileProperty": "filename"}, "transform": {"regex": _KEY}}
    key = Column(name="key", type="string", doc="key of the sample: what its members' names share")
    in_json = {c.name: members | _json_path(f"$.{c.name}") for c in SAMPLE_FIELDS}
    image = {
        "dataType": "sc:ImageObject",
        "description": "the image, as it was found",
        "source": pictures | {"extract": {"fileProperty": "content"}},
    }
    labels = [LABEL_MAP[name] for name in _LABELS_SHOWN]
    return [
        _record_set(
            "labels", "The frozen labels.", "label_id",
            [_field("labels", c, label_map | _json_path(f"$.labels[*].{c.name}")) for c in labels],
        ),
        _record_set(
            "samples", "What the JSON member of each sample says.", "key",
            [_field("samples", key, members | by_name)]
            + [_field("samples", c, in_json[c.name], _refers(c)) for c in SAMPLE_FIELDS],
        ),
        _record_set(
            "images", "The image of each sample.", "key",
            [
                _field("images", key, pictures | by_name, "samples/key"),
                {"@type": "cr:Field", "@id": "images/image", "name": "image"} | image,
            ],
        ),
        _record_set(
            "shard_index", "Where each image stands in its shard, with labels and weight.", "key",
            [
                _field(
                    "shard_index", c, {"fileSet": {"@id": _INDEXES}, "extract": {"column": c.name}}
                )
                for c in SHARD_INDEX.columns
            ],
        ),
    ]  # fmt: skip


def _refers(column: Column) -> str:
    return "labels/label_id" if column.name == "label_ids" else ""


def _json_path(path: str) -> dict[str, Any]:
    return {"extract": {"jsonPath": path}}


def _record_set(name: str, doc: str, key: str, fields: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": doc,
        "key": {"@id": f"{name}/{key}"},
        "field": list(fields),
    }


def _field(
    record_set: str, column: Column, source: Mapping[str, Any], refers: str = ""
) -> dict[str, Any]:
    item = column.type.removeprefix("array<").removesuffix(">")
    found: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{record_set}/{column.name}",
        "name": column.name,
        "description": column.doc,
        "dataType": _TYPES[item],
        "source": dict(source),
    }
    if item != column.type:
        found |= {"isArray": True, "arrayShape": "-1"}
    if refers:
        found["references"] = {"field": {"@id": refers}}
    return found
