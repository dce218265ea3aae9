"""A run whose root and images are on S3, by its jobs: the same bytes, and no secret anywhere."""

import hashlib
import os
import subprocess
import sys

import pytest
from given import run_stage
from object_store import BUCKET, KEY_ID, SECRET, object_store
from release_on_files import NUM_SHARDS, PER_SHARD, files_of, images, pictures, samples_of
from upstream_given import publish_upstream, upstream, with_places

from pipeline.files.fetch import FetchPolicy, fetch
from pipeline.files.storage import open_storage
from pipeline.kernels.samples import sample_key
from pipeline.runtime.relational import RelationalContext
from pipeline.runtime.verification import findings_lines, verify_release
from pipeline.stages.release_check import release_storage
from pipeline.stages.write_release import STAGE
from schemas.ingested import IMAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT, AGAIN = f"s3://{BUCKET}/root", f"s3://{BUCKET}/again"


@pytest.fixture(scope="module")
def store():
    with pytest.MonkeyPatch.context() as patch, object_store(patch) as running:
        yield running


def job(repository, name, *options):
    """Run a job as a user would; (exit status, all that it said)."""
    call = [sys.executable, f"jobs/{name}.py", *options]
    environment = os.environ | {"PYTHONPATH": str(repository), "PIPELINE_DEBUG": "1"}
    done = subprocess.run(
        call, cwd=repository, env=environment, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.e2e
def test_a_run_on_s3_by_its_jobs(spark, store, tmp_path, repository, monkeypatch):
    use_in_workers(spark, store, monkeypatch)
    rows = pictures()
    given = upstream(rows, NUM_SHARDS, PER_SHARD)
    # Half of the images are files, the others bytes in the table.
    known = images(rows[::2], f"s3://{BUCKET}/images") + images(rows[1::2])
    publish_upstream(ROOT, with_places(ROOT, given | {IMAGES: known}))
    options = ("--preset", "demo", "--root", ROOT)
    said = {"write_release": job(repository, "write_release", *options)}
    assert said["write_release"][0] == 0, said
    here = with_places(tmp_path, given | {IMAGES: images(rows)})
    local = run_stage(spark, tmp_path, STAGE, here)[0]
    written = release_storage(ROOT)
    expected = files_of(release_storage(local.root))
    assert samples_of(files_of(written)) == samples_of(expected)

    assert findings_lines(verify_release(spark, written)) == ["verified: no mismatch"]

    names = tmp_path / "names.txt"
    names.write_text(rows[0]["image_id"] + "\n")
    again = ("--root", ROOT, "--out", AGAIN, "--names", str(names))
    said["reissue_release"] = job(repository, "reissue_release", *again)
    assert said["reissue_release"][0] == 0, said
    reissued = release_storage(AGAIN)
    assert findings_lines(verify_release(spark, reissued)) == ["verified: no mismatch"]
    new = reissued.read_json("manifest.json")
    assert new["removed"] == {"num_images": 1, "num_samples": 1, "num_shards": 0}
    kept = [line["sha256"] for line in new["shards"]]
    old = written.read_json("manifest.json")
    assert [line["sha256"] in kept for line in old["shards"]] == [False, True, True, True]
    check_no_secret(store, said)


def use_in_workers(spark, store, patch):
    """The session is older than the store: its workers get the environment with their tasks."""
    for name, value in store.environment.items():
        patch.setitem(spark.sparkContext.environment, name, value)


def check_no_secret(store, said):
    """Neither in what the jobs said nor in any object; the store's requests had to carry it."""
    root = open_storage(f"s3://{BUCKET}")
    assert len(store.requests) > 100
    paths = root.fs.find(root.root)
    assert len(paths) > 50
    contents = {path: root.fs.cat_file(path) for path in paths}
    contents |= {name: text.encode() for name, (_, text) in said.items()}
    for name, content in contents.items():
        for secret in (SECRET, KEY_ID):
            assert secret.encode() not in content, name


def test_an_empty_object_is_read_as_such(store):
    """S3 answers 416 to a range of it; a part of a broken corpus must not look like an outage."""
    open_storage(f"s3://{BUCKET}/odd").write_bytes_atomic("empty.jpg", b"")
    policy = FetchPolicy(seconds=10, retries=0, threads=1)
    assert fetch(f"s3://{BUCKET}/odd/empty.jpg", 100, policy) == b""
    with pytest.raises(FileNotFoundError):
        fetch(f"s3://{BUCKET}/odd/none.jpg", 100, policy)


def test_what_another_process_wrote_is_seen(store):
    """A listing that is remembered would hide it."""
    mine = open_storage(f"s3://{BUCKET}/shared")
    assert mine.list("a") == []
    mine.write_bytes_atomic("a/1", b"1")
    mine.fs.find(mine.path("a"))
    other = type(mine.fs)(skip_instance_cache=True, use_listings_cache=False)
    other.pipe_file(mine.path("a/2"), b"2")
    assert mine.exists("a/2")
    assert mine.list("a") == ["1", "2"]
    other.rm_file(mine.path("a/1"))
    assert not mine.exists("a/1")


@pytest.mark.parametrize(
    "uri", ["s3://AKIAX:hush-hush@bucket/x", "s3a://a:hush-hush@b/x", "hdfs://u:hush-hush@n:80/x"]
)
def test_a_login_in_a_uri_is_refused_and_not_told(uri):
    for read in (open_storage, lambda u: fetch(u, 10, FetchPolicy(retries=0))):
        with pytest.raises(ValueError, match="expected credentials in the environment") as error:
            read(uri)
        assert "hush" not in str(error.value)


def test_frames_are_cut_without_hadoops_client(spark, store, monkeypatch):
    """Types that stages materialise, through the workers' own files and back."""
    use_in_workers(spark, store, monkeypatch)
    text = "a int, b array<struct<c: string, d: double>>, e binary, f array<float>, g map<int, int>"
    rows = [
        (i, [(f"ü{i}", i / 2)] * (i % 3), b"%d" % i, [1.5, float(i)], {i: i}) for i in range(50)
    ]
    rows.append((None, None, None, None, None))
    storage = open_storage(f"s3://{BUCKET}/frames")
    context = RelationalContext(spark, storage, "folder")
    given = spark.createDataFrame(rows, text)
    cut = context.materialise(given.repartition(3))
    assert cut.schema == given.schema
    assert sorted(map(repr, cut.collect())) == sorted(map(repr, given.collect()))
    assert context.count(context.materialise(given.limit(0))) == 0
    parts = storage.fs.find(storage.path("folder"))
    assert len(parts) == 3
    context.clear()
    assert storage.list("folder") == []


def test_a_write_that_is_given_up_leaves_no_object(store):
    from pipeline.files.sink import FileSink
    from pipeline.runtime.writer import PartWriter

    storage = open_storage(f"s3://{BUCKET}/given-up")
    for size in (10, 60 << 20):  # the second is past the block that starts a multi-part upload
        sink = FileSink(storage, "shard.tar")
        sink.write([bytes(size)])
        sink.abort()
        del sink
    part = PartWriter(storage, "images", IMAGES, 0, 1)
    part.write(IMAGES.empty())
    part._flush(0)
    part.abort()
    del part
    assert storage.list() == []
    uploads = storage.fs.list_multipart_uploads(BUCKET)
    assert uploads == []
    digest = hashlib.sha256(sample_key("x", 0).encode()).digest()
    storage.write_bytes_atomic("x", digest)
    assert storage.list() == ["x"]
