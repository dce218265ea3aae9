"""The standing sentences of a data card."""

from __future__ import annotations

from collections.abc import Sequence

POLICIES = {
    "inverse_sqrt": "an image weighs the square root of t over the frequency of its rarest label.",
    "repeat_factor": "an image weighs the square root of t over the frequency of its rarest label, "
    "and 1 at least.",
    "natural": "every image alike.",
    "uniform": "an image weighs the inverse of the frequency of its rarest label.",
    "cap": "each label draws at most `cap` of its images.",
}
TIERS = {
    "exact": "equal bytes",
    "perceptual": "perceptual hashes of 64 bits that differ in at most {max_hamming}",
    "semantic": "embeddings of cosine {min_cosine} or more",
}
FILES = (
    "| file | what |",
    "| --- | --- |",
    "| `shards/*.tar` | samples: `<key>.<image suffix>`, `<key>.txt` (label names, one a line), "
    "`<key>.json` |",
    "| `shards/*.index.parquet` | of each shard: key, suffix, offset and size of the image, label "
    "ids, weight |",
    "| `manifest.json` | every other file with its SHA-256, every shard with its counts |",
    "| `label_map.json` | label id, name, cluster and interest of each label |",
    "| `statistics.json` | counts by label, licence, source, suffix |",
    "| `funnel.json` | what each stage took, passed on and dropped, by reason |",
    "| `config.json` | parameters and code version of every stage that led here |",
    "| `lineage.json` | versions of the tables that led here; no part of the manifest |",
    "| `certificate.json` | comparison with validation sets, where there were some |",
    "| `LICENCES.md` | licences and sources |",
    "| `croissant.json` | Croissant metadata |",
    "| `SHA256SUMS` | for `sha256sum --check` |",
)
LIMITS = (
    "- Labels are weak: they come from keywords, given or predicted, that nobody judged image by",
    "  image. That an image lacks a label says little.",
    "- Labels are names of clusters of keywords, which can hold neighbours that are no synonyms.",
    "- Near-duplicates and overlaps are removed as far as hash and embedding see them: crops,",
    "  turns and overlays can stay.",
    "- Frequencies follow the sources and the resampling, not the world.",
    "- Licences and sources are as stated by whoever gave the images.",
)
_OPEN = """```python
import glob
import datasets, mlcroissant, webdataset

shards = sorted(glob.glob("shards/*.tar"))
samples = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
samples = samples.to_tuple("{suffixes}", "txt", "json")    # image, label names, all fields

table = datasets.load_dataset(".", split="train")    # columns {columns}
table = datasets.load_dataset(".", split="train", streaming=True)

labels = mlcroissant.Dataset("croissant.json").records("labels")
places = mlcroissant.Dataset("croissant.json").records("shard_index")
```

open_clip: `--train-data "shards/shard-{{000000..NNNNNN}}.tar" --dataset-type webdataset`, with the
number of the last shard and `--train-num-samples`; captions are the label names, one a line. It
wants webdataset 0.2.86 or older."""


def opening(suffixes: Sequence[str]) -> list[str]:
    """How to read a release with images of these suffixes."""
    columns = ", ".join([*suffixes, "txt", "json"])
    lines = _OPEN.format(suffixes=";".join(suffixes) or "jpg", columns=columns).splitlines()
    if len(suffixes) > 1:
        lines += [
            "",
            f"Images have {len(suffixes)} suffixes: `datasets` shows a column of each, all but one "
            "of them empty.",
        ]
    return lines
