"""A disk of a few hundred kilobytes: the stage says that it is full, and completes with more room.

Needs the right to mount a tmpfs; `tests/files/test_failing_disk.py` plants the error at every
place without it.
"""

import subprocess

import pytest
from given import run_stage
from release_on_files import NUM_SHARDS, PER_SHARD, files_of, images, pictures
from upstream_given import upstream, with_places

from pipeline.config.dataset import WriteReleaseParams
from pipeline.runtime.explain import explain
from pipeline.stages.release_check import release_storage
from pipeline.stages.write_release import STAGE
from schemas.ingested import IMAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def disk(tmp_path):
    """Folder on a disk of its own, and a function that sets its size in kB."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(call, capture_output=True, check=False).returncode == 0

    if not mount("size=8m"):
        pytest.skip("no right to mount a tmpfs")
    try:
        yield folder, lambda size: mount(f"remount,size={size}k")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_full_disk_is_told_and_more_room_completes(spark, tmp_path, disk, share):
    folder, resize = disk
    section = WriteReleaseParams()
    # 300 kB a picture, so that a shard is flushed before it is whole.
    rows = [row | {"bytes": row["bytes"] + bytes(300_000)} for row in pictures()]
    (tmp_path / "images").mkdir()
    given = upstream(rows, NUM_SHARDS, PER_SHARD)
    given |= {IMAGES: images(rows, str(tmp_path / "images"))}
    roomy = tmp_path / "roomy"
    run_stage(spark, roomy, STAGE, with_places(roomy, given), write_release=section)
    whole = files_of(release_storage(str(tmp_path / "roomy")))
    size = sum(map(len, whole.values()))
    assert resize(int(size * share / 1000))
    there = with_places(folder / "root", given)
    with pytest.raises(Exception, match="No space left on device") as error:
        run_stage(spark, folder / "root", STAGE, there, write_release=section)
    assert "The disk is full (writing " in explain(error.value)
    release = folder / "root" / "release"
    assert not (release / "CURRENT.json").exists()
    names = {f"shards/{p.name}": p for p in release.rglob("shards/*")}
    assert {n: p.read_bytes() for n, p in names.items()} == {n: whole[n] for n in names}
    assert not any(p.name.startswith(".") for p in names.values())
    assert resize(3 * int(size / 1000))
    run_stage(spark, folder / "root", STAGE, there, write_release=section)
    assert files_of(release_storage(str(folder / "root"))) == whole
