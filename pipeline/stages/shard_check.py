"""Reading one shard back and comparing it with its index, its line of the manifest and itself."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files.storage import Storage
from pipeline.kernels.resampling import total_weight
from pipeline.kernels.samples import Sample, sample_key, sample_members
from pipeline.kernels.tar_read import Member, TarReader
from pipeline.stages.findings import Findings
from pipeline.stages.shard_tally import Tally
from schemas.dataset import SHARD_INDEX
from schemas.sample import JSON_SUFFIX, SAMPLE_FIELDS, SUFFIXES, TEXT_SUFFIX

READ_BYTES = 8 << 20
"""Read ahead of a shard."""
_FORMATS = {suffix: name for name, suffix in SUFFIXES.items()}
_FIELDS = {column.name for column in SAMPLE_FIELDS}
_KINDS: dict[str, type | tuple[type, ...]] = {
    "image_id": str,
    "label_ids": list,
    "copy_index": int,
    "sha256": str,
    "source": (str, type(None)),
    "licence": (str, type(None)),
}
"""JSON types of what is computed with; the rest is compared as it stands."""


def key_of(member: str) -> str:
    """Key of the sample that a member belongs to."""
    return member.partition(".")[0]


def check_shard(
    storage: Storage, line: dict[str, Any], label_names: Sequence[str]
) -> dict[str, Any]:
    """Check every byte of a shard.

    Memory: one sample and the index.

    Args:
        storage: folder of the release.
        line: of the manifest.
        label_names: name of label id 0, 1, ...

    Returns:
        ``name``, ``num_samples`` found, ``counts`` (kind, number), ``told`` (see ``Findings``),
        ``statistics`` (rows of ``Tally``), ``labels`` (label id, samples).
    """
    check = _ShardCheck(storage, line, label_names)
    check.run()
    return {
        "name": line["name"],
        "num_samples": check.tally.num_samples,
        "counts": sorted(check.findings.counts.items()),
        "told": check.findings.rows(),
        "statistics": check.tally.rows(),
        "labels": sorted(check.labels.items()),
    }


class _ShardCheck:
    def __init__(self, storage: Storage, line: dict[str, Any], label_names: Sequence[str]) -> None:
        self.findings, self.tally = Findings(), Tally()
        self.labels: Counter[int] = Counter()
        self._storage, self._line, self._names = storage, line, label_names
        self._seen: set[str] = set()
        self._next = 0

    def run(self) -> None:
        self._index = self._read_index()
        self._rows = {row["key"]: i for i, row in enumerate(self._index)}
        name = self._line["name"]
        if not self._storage.exists(name):
            self.findings.add("missing_shard", name, "no such file", "a shard")
            return
        size = self._storage.num_bytes(name)
        self.findings.expect("shard_bytes", name, size, self._line["num_bytes"])
        with self._storage.open_read(name, READ_BYTES) as handle:
            reader = TarReader(handle.read, size)
            for key, members in itertools.groupby(reader.members(), lambda m: key_of(m.name)):
                self._sample(key, list(members))
        for fault in reader.faults:
            self.findings.add(fault.kind, name, fault.found, fault.expected)
        self.findings.expect("shard_sha256", name, reader.sha256, self._line["sha256"])
        for key in self._rows.keys() - self._seen:
            self.findings.add("missing_sample", f"{name} {key}", "none", "a sample, by the index")
        found = self.tally.num_samples
        self.findings.expect("num_samples", name, found, self._line["num_samples"])

    def _read_index(self) -> list[dict[str, Any]]:
        name = self._line["index"]
        if not self._storage.exists(name):
            self.findings.add("missing_index", name, "no such file", "an index")
            return []
        raw = self._storage.read_bytes(name)
        digest = hashlib.sha256(raw).hexdigest()
        self.findings.expect("index_sha256", name, digest, self._line["index_sha256"])
        try:
            table = pq.read_table(io.BytesIO(raw))
        except (pa.ArrowException, OSError) as error:
            self.findings.add("index_unreadable", name, str(error), "a Parquet file")
            return []
        schema = SHARD_INDEX.arrow_schema
        if not table.schema.equals(schema):
            self.findings.add("index_schema", name, str(table.schema), str(schema))
            return []
        self.findings.expect("index_rows", name, table.num_rows, self._line["num_samples"])
        weight = total_weight(table["weight"].to_numpy())
        # A release of before version 3 of `write_release` does not tell it.
        self.findings.expect("shard_weight", name, weight, self._line.get("weight", weight))
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def _sample(self, key: str, members: list[Member]) -> None:
        where = f"{self._line['name']} {key}"
        for member in members:
            for fault in member.faults:
                place = f"{self._line['name']} {member.name}"
                self.findings.add(fault.kind, place, fault.found, fault.expected)
        if key in self._seen:
            self.findings.add("repeated_key", where, "a second time", "once")
            return
        row = self._rows.get(key)
        if row is None and self._index:
            names = ", ".join(m.name for m in members)
            self.findings.add("extra_member", where, names, "only samples of the index")
            return
        self._seen.add(key)
        planned = None if row is None else self._index[row]
        if planned is not None:
            self.findings.expect("order", where, row, self._next)
            self._next = max(self._next, (row or 0) + 1)
        self._members(where, key, members, planned)

    def _members(
        self, where: str, key: str, members: list[Member], planned: dict[str, Any] | None
    ) -> None:
        by_suffix = {m.name.partition(".")[2]: m for m in reversed(members)}
        image = next((m for s, m in by_suffix.items() if s in _FORMATS), None)
        suffix = image.name.partition(".")[2] if image else "jpg, png or webp"
        expected = [f"{key}.{suffix}", f"{key}.{TEXT_SUFFIX}", f"{key}.{JSON_SUFFIX}"]
        found = [m.name for m in members]
        if found != expected:
            kind = "extra_member" if set(expected) < set(found) else "missing_member"
            kind = "order" if sorted(found) == sorted(expected) else kind
            self.findings.add(kind, where, ", ".join(found), ", ".join(expected))
        if planned is not None and image is not None:
            for name, value in (
                ("suffix", suffix), ("offset", image.offset), ("size", len(image.data))
            ):  # fmt: skip
                self.findings.expect(f"index_{name}", where, value, planned[name])
        if image is None or not {TEXT_SUFFIX, JSON_SUFFIX} <= by_suffix.keys():
            return
        record = self._record(where, by_suffix[JSON_SUFFIX].data)
        if record is not None:
            text = by_suffix[TEXT_SUFFIX].data
            self._content(where, key, image, text, by_suffix[JSON_SUFFIX].data, record, planned)

    def _record(self, where: str, data: bytes) -> dict[str, Any] | None:
        try:
            record = json.loads(data)
        except ValueError as error:
            self.findings.add("json_unreadable", where, str(error), "one JSON object")
            return None
        fields = sorted(record) if isinstance(record, dict) else type(record).__name__
        if not self.findings.expect("json_fields", where, fields, sorted(_FIELDS)):
            return None
        wrong = [n for n, kinds in _KINDS.items() if not isinstance(record[n], kinds)]
        if wrong:
            found = ", ".join(f"{n}: {type(record[n]).__name__}" for n in wrong)
            self.findings.add("json_fields", where, found, "values of the sample's types")
            return None
        ids, names = record["label_ids"], range(len(self._names))
        if not all(type(i) is int and i in names for i in ids):
            self.findings.add("label_ids", where, ids, f"ids of 0 to {len(self._names) - 1}")
            return None
        checked: dict[str, Any] = record
        return checked

    def _content(
        self,
        where: str,
        key: str,
        image: Member,
        text: bytes,
        raw: bytes,
        record: dict[str, Any],
        planned: dict[str, Any] | None,
    ) -> None:
        expect, ids = self.findings.expect, record["label_ids"]
        expect("key", where, key, sample_key(record["image_id"], record["copy_index"]))
        expect("image_sha256", where, hashlib.sha256(image.data).hexdigest(), record["sha256"])
        names = [self._names[i] for i in ids]
        is_right = expect("label_names", where, record["label_names"], names)
        if planned is not None:
            is_right &= expect("label_ids", where, ids, planned["label_ids"])
        suffix = image.name.partition(".")[2]
        sample = Sample(
            key, _FORMATS[suffix], record["image_id"], record["copy_index"], ids,
            record["sha256"], record["source"], record["licence"],
        )  # fmt: skip
        _, (_, wanted_text), (_, wanted_json) = sample_members(sample, b"", self._names)
        expect("text", where, text.decode(errors="replace"), bytes(wanted_text).decode())
        if is_right and raw != wanted_json:
            self.findings.add("json_bytes", where, raw.decode(errors="replace"), "canonical JSON")
        self.labels.update(ids)
        self.tally.add(
            is_first=record["copy_index"] == 0,
            num_bytes=len(image.data),
            licence=record["licence"] or "",
            num_labels=str(len(ids)),
            source=record["source"] or "",
            suffix=suffix,
        )
