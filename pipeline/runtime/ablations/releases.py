"""Releases of the arms: from shared stages, with the same images in all of them.

An arm's release is a version of `write_release` that no pointer names. Where the arms' releases
hold different images, because an image that loses all its labels leaves, each is issued anew
without those that another lacks: arms then differ in labels and in nothing else.

Cost: the stages behind the first difference once for each set of overrides; the keys of all
releases in memory, 40 bytes an image. Ablations are for corpora of up to some tens of millions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pipeline.config.load import with_overrides
from pipeline.config.run import RunConfig
from pipeline.files.storage import Storage
from pipeline.runtime.catalog import Catalog
from pipeline.runtime.funnel import num_labels_in_use
from pipeline.runtime.manifest import StageManifest, folder_of
from pipeline.runtime.sources import source_versions
from pipeline.runtime.variants import Session, variant_stages
from pipeline.stages.chain import build_chain
from pipeline.stages.reissue import key_stems, reissue_release
from pipeline.stages.stage import Stage
from pipeline.train.holdout import image_part
from pipeline.train.release import Release, open_release

HOME = "ablations"
"""Below the root."""


@dataclass(frozen=True)
class ArmRelease:
    """What an arm is trained on.

    Attributes:
        config: the run's configuration as the arm has it.
        uri: folder of the release.
        num_terms: terms that may give a label.
        num_labels: labels that some image has.
        num_images: images of the release, those taken out for the other arms' sake not counted.
        num_own: images that it would have of itself.
        labels_an_image: mean, before images were taken out.
    """

    config: RunConfig
    uri: str
    num_terms: int
    num_labels: int
    num_images: int
    num_own: int
    labels_an_image: float


def arm_releases(
    config: RunConfig,
    storage: Storage,
    session: Session,
    tell: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, ArmRelease]:
    """Make what the arms lack, and name the release of each.

    Args:
        config: the run.
        storage: its root.
        session: called only where a stage is to run.
        tell: progress, ``tell(stages done, stages)``.

    Returns:
        arm -> release, in the configuration's order.
    """
    params = config.ablations
    arms = [with_overrides(config, (*params.base, *arm.overrides)) for arm in params.arms]
    chain = build_chain(config)
    versions = source_versions(config.inputs, storage)
    found = variant_stages(arms, storage, chain, versions, {}, session, tell)
    uris = [_release_uri(storage, chain[-1], stages) for stages in found]
    releases = {uri: open_release(uri) for uri in uris}
    used = _same_images(releases, storage) if params.is_same_images else releases
    return {
        arm.name: _arm_release(changed, storage, stages, releases[uri], used[uri])
        for arm, changed, stages, uri in zip(params.arms, arms, found, uris, strict=True)
    }


def _release_uri(storage: Storage, last: Stage, stages: Mapping[str, StageManifest]) -> str:
    manifest = stages[last.name]
    return f"{storage.uri}/{folder_of(last, manifest.version, manifest.layout)}"


def _arm_release(
    config: RunConfig,
    storage: Storage,
    stages: dict[str, StageManifest],
    own: Release,
    used: Release,
) -> ArmRelease:
    catalog = Catalog(storage, stages)
    training = catalog.tables["training_images"]
    return ArmRelease(
        config=config,
        uri=used.storage.uri,
        num_terms=catalog.tables["visual_terms"].num_rows,
        num_labels=num_labels_in_use(catalog),
        num_images=used.num_samples,
        num_own=own.num_samples,
        labels_an_image=training.totals["label_ids"] / max(training.num_rows, 1),
    )


def _same_images(releases: Mapping[str, Release], storage: Storage) -> dict[str, Release]:
    """Each release, or one issued from it without the images that another lacks."""
    stems = {uri: image_stems(release) for uri, release in releases.items()}
    common = set.intersection(*stems.values())
    if not common:
        raise ValueError(
            f"{storage.uri}: no image has a label in every arm of the ablations. Set "
            "ablations.is_same_images=false to train each arm on the images it has."
        )
    return {
        uri: _reissued(release, storage, stems[uri] - common) for uri, release in releases.items()
    }


def _reissued(release: Release, storage: Storage, surplus: set[str]) -> Release:
    if not surplus:
        return release
    home = storage.child(f"{HOME}/releases/{release.storage.uri.rpartition('/')[2]}")
    names = [f"{stem}-000" for stem in sorted(surplus)]
    assert key_stems(names) == surplus
    return open_release(reissue_release(release.storage, home, names).uri)


def image_stems(release: Release) -> set[str]:
    """The part of every key that names the image."""
    return {image_part(key) for key in keys_of(release)}


def keys_of(release: Release) -> Iterable[str]:
    """Keys of all samples, shard by shard."""
    for shard in range(len(release.shards)):
        yield from release.read_index(shard).keys.to_pylist()
