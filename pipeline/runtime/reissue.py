"""Command line of an opt-out: a list of images and a release in, another release out."""

from __future__ import annotations

import functools
import logging

from pipeline.files.fetch import is_local
from pipeline.files.storage import Storage, open_storage
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import event
from pipeline.runtime.progress import Progress
from pipeline.stages.reissue import reissue_release
from pipeline.stages.release_check import release_storage

logger = logging.getLogger(__name__)


def read_names(uri: str) -> list[str]:
    """Names of a text file, one a line; blank lines are left out.

    Raises:
        UserError: the file has none.
    """
    folder, _, name = (uri if "/" in uri or not is_local(uri) else f"./{uri}").rpartition("/")
    lines = open_storage(folder or "/").read_bytes(name).decode().splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"{uri}: no image_id or key in it, expected one a line.")
    return names


def run_reissue(root: str, out: str, names_uri: str, threads: int) -> Storage:
    """Re-issue the release below a root without the images that a file names, with progress."""
    names = read_names(names_uri)
    with Progress(["reissue_release"]) as progress:
        progress.start("reissue_release")
        tell = functools.partial(progress.update, "reissue_release")
        new = reissue_release(release_storage(root), open_storage(out), names, threads, tell)
        removed = new.read_json("manifest.json")["removed"]
        progress.finish("reissue_release", note=f"{removed['num_samples']:,} samples out")
    # Numbers only: who opted out is nobody's business.
    event(logger, "reissued", release=new.uri, names=len(set(names)), **removed)
    return new
