"""Fit the verifier of near-duplicates on photos: a folder or a table -> models, one a line.

python jobs/fit_pair_model.py --photos PLACE --out FILE [--num-photos N]. Use them with
--set inputs.pair_models.path=FILE.
"""

import argparse
import sys

from pipeline.config.ingest import EmbedImagesParams
from pipeline.demo.edit_pairs import NUM_PHOTOS, NUM_POOL
from pipeline.demo.fit_pairs import fit_models
from pipeline.files.storage import open_storage
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.logs import setup_logging


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", required=True, help="folder, Parquet table, or demo")
    parser.add_argument("--out", required=True, help="file that the models are written to")
    parser.add_argument("--num-photos", type=int, default=NUM_PHOTOS)
    parser.add_argument("--num-pool", type=int, default=NUM_POOL)
    parser.add_argument("--encoder", default=EmbedImagesParams().model, help="embed_images.model")
    parser.add_argument("--image-size", type=int, default=EmbedImagesParams().image_size)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    setup_logging()
    models = fit_models(
        given.photos,
        given.num_photos,
        given.num_pool,
        encoder=given.encoder,
        image_size=given.image_size,
        seed=given.seed,
    )
    folder, _, name = given.out.rpartition("/")
    lines = "".join(model.to_json() + "\n" for model in models)
    open_storage(folder or ".").write_bytes_atomic(name, lines.encode())


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
