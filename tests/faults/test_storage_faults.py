"""Errors, resets, cut bodies and stalls of an object store: tried again or told, no wrong byte.

`make test-faults` takes more seeds.
"""

import os

import pytest
from given import run_stage
from object_store import BUCKET, object_store, seeded_faults
from release_on_files import NUM_SHARDS, PER_SHARD, files_of, images, pictures
from upstream_given import upstream, with_places

from pipeline.config.dataset import WriteReleaseParams
from pipeline.files.storage import StorageError, open_storage
from pipeline.kernels.samples import sample_key
from pipeline.runtime.explain import explain
from pipeline.stages.release_check import release_storage
from pipeline.stages.write_release import STAGE
from schemas.ingested import IMAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
NUM_SEEDS = int(os.environ.get("FAULT_STORES", "1"))
PARAMS = WriteReleaseParams(read_seconds=1.5, read_retries=3, read_threads=4)


@pytest.fixture(scope="module")
def store():
    with pytest.MonkeyPatch.context() as patch, object_store(patch) as running:
        yield running


@pytest.fixture(scope="module")
def write(spark, store, tmp_path_factory):
    """Writes the release into a root on S3; told the folder of the images."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setitem(spark.sparkContext.environment, name, value)
        rows = pictures()
        given = upstream(rows, NUM_SHARDS, PER_SHARD)

        def run(root, folder):
            known = images(rows, folder)
            placed = with_places(root, given | {IMAGES: known})
            return run_stage(spark, root, STAGE, placed, write_release=PARAMS)

        yield run


@pytest.fixture(scope="module")
def undisturbed(write, store, tmp_path_factory):
    store.calm()
    root = str(tmp_path_factory.mktemp("undisturbed"))
    write(root, None)
    return files_of(release_storage(root))


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_faults_that_pass_change_no_byte(write, store, undisturbed, seed):
    folder, root = f"s3://{BUCKET}/images-{seed}", f"s3://{BUCKET}/root-{seed}"
    images(pictures(), folder)
    store.calm()
    # Two thirds of the images and a tenth of all other requests fail at first.
    of_images, of_rest = seeded_faults(seed, 0.67, most=2), seeded_faults(seed, 0.1)

    def fault(method, path, number):
        is_image = method == "GET" and "/images-" in path
        return (of_images if is_image else of_rest)(method, path, number)

    store.fault = fault
    write(root, folder)
    assert min(store.met[kind] for kind in ("error", "reset", "cut", "stall")) > 0, store.met
    store.calm()
    assert files_of(release_storage(root)) == undisturbed


def test_images_that_stay_away_fail_the_stage_by_name_and_a_rerun_completes(
    write, store, undisturbed
):
    folder, root = f"s3://{BUCKET}/images-away", f"s3://{BUCKET}/root-away"
    images(pictures(), folder)
    store.calm()
    away = {5: "error", 6: "stall"}  # of shards 1 and 2

    def fault(method, path, number):
        return next((k for i, k in away.items() if f"/im.{i}%20" in path and method == "GET"), None)

    store.fault = fault
    with pytest.raises(ValueError, match="samples of 2 shards cannot be written") as error:
        write(root, folder)
    for i, why in ((5, ""), (6, "TimeoutError: s3://")):
        assert f"{sample_key(f'dir/im.{i}', 0)} (image 'dir/im.{i}'): {why}" in str(error.value)
    release = open_storage(f"{root}/release")
    version = release.list()
    assert len(version) == 1, "no pointer"
    shards = release.list(f"{version[0]}/shards")
    assert [n[:12] for n in shards if n.endswith(".tar")] == ["shard-000000", "shard-000003"]
    assert "manifest.json" not in release.list(version[0])
    before = {n: release.fs.info(release.path(f"{version[0]}/shards/{n}")) for n in shards}
    store.calm()
    write(root, folder)
    assert files_of(release_storage(root)) == undisturbed
    for name, info in before.items():
        assert release.fs.info(release.path(f"{version[0]}/shards/{name}")) == info


@pytest.mark.parametrize("refused", ["shard-000002.tar", "manifest.json", "CURRENT.json"])
def test_a_file_that_cannot_be_written_is_named_and_nothing_published(
    write, store, undisturbed, refused
):
    folder, root = f"s3://{BUCKET}/images-all", f"s3://{BUCKET}/root-{refused}"
    images(pictures(), folder)
    store.calm()
    store.fault = lambda method, path, _: (
        "error" if method == "PUT" and path.endswith(f"/{refused}") else None
    )
    with pytest.raises(Exception, match=refused) as error:
        write(root, folder)
    assert isinstance(error.value, StorageError) or "StorageError" in str(error.value)
    assert "The object store failed" in explain(error.value)
    assert refused in explain(error.value)
    release = open_storage(f"{root}/release")
    assert "CURRENT.json" not in release.list()
    assert refused not in [path.rsplit("/", 1)[-1] for path in release.fs.find(release.root)]
    store.calm()
    write(root, folder)
    assert files_of(release_storage(root)) == undisturbed
