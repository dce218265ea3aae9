"""The chain of stages, in running order, as a configuration needs it."""

from __future__ import annotations

from pipeline.config.inputs import Inputs
from pipeline.config.run import RunConfig
from pipeline.stages import (
    assign_shards,
    calibrate_threshold,
    certify_validation,
    choose_pair_model,
    classify_images,
    classify_terms,
    cluster_terms,
    count_labels,
    count_term_documents,
    drop_near_duplicates,
    embed_image_texts,
    embed_images,
    embed_terms,
    embed_validation_images,
    find_near_duplicates,
    find_validation_overlaps,
    fingerprint_images,
    fingerprint_validation_images,
    fit_annotator,
    freeze_labels,
    group_near_duplicates,
    ingest_annotations,
    ingest_blocked_images,
    ingest_embeddings,
    ingest_images,
    ingest_interests,
    ingest_terms,
    ingest_validation_images,
    label_images,
    predict_annotations,
    report_resampling,
    resample_images,
    sample_concreteness,
    score_concreteness,
    select_annotations,
    select_visual_terms,
    sweep_concreteness,
    train_cells,
    train_image_classifier,
    train_term_classifier,
    verify_near_duplicates,
    write_release,
)
from pipeline.stages.stage import Stage


def build_chain(config: RunConfig) -> list[Stage]:
    """Stages of a run: given tables are ingested, missing ones computed, unasked ones left out.

    Args:
        config: the run; only ``inputs`` decides.

    Returns:
        stages such that each one's inputs are made by an earlier one, given, or optional.
    """
    inputs = config.inputs
    return [
        *_texts(inputs),
        *_annotations(inputs),
        *_embeddings(inputs),
        *_interests(inputs),
        *_labels(inputs),
        *_near_duplicates(inputs),
        freeze_labels.STAGE,
        count_labels.STAGE,
        resample_images.STAGE,
        report_resampling.STAGE,
        assign_shards.STAGE,
        write_release.STAGE,
    ]


def _texts(inputs: Inputs) -> list[Stage]:
    """Images, dictionary, taxonomy, and text embeddings."""
    given = inputs.term_embeddings is not None
    stages: list[Stage] = [
        ingest_terms.STAGE,
        ingest_images.STAGE,
        ingest_interests.TAXONOMY_STAGE,
        ingest_interests.SEEDS_STAGE,
        ingest_embeddings.TERMS_STAGE if given else embed_terms.STAGE,
    ]
    if inputs.image_interests is None or _reads_annotations_from_text(inputs):
        stages.append(embed_image_texts.STAGE)
    return stages


def _reads_annotations_from_text(inputs: Inputs) -> bool:
    return inputs.annotations_long is None and inputs.annotations_nested is None


def _annotations(inputs: Inputs) -> list[Stage]:
    if _reads_annotations_from_text(inputs):
        return [count_term_documents.STAGE, fit_annotator.STAGE, predict_annotations.STAGE]
    is_long = inputs.annotations_long is not None
    return [ingest_annotations.LONG if is_long else ingest_annotations.NESTED]


def _embeddings(inputs: Inputs) -> list[Stage]:
    """Visual embeddings of the corpus and of validation images, by one encoder."""
    given = inputs.image_embeddings is not None
    stages: list[Stage] = [ingest_embeddings.IMAGES_STAGE if given else embed_images.STAGE]
    if inputs.validation_images is not None:
        stages.append(ingest_validation_images.STAGE)
        is_theirs = embed_validation_images.GIVEN_STAGE if given else embed_validation_images.STAGE
        stages.append(is_theirs)
    if inputs.blocked_images is not None:
        stages.append(ingest_blocked_images.STAGE)
    return stages


def _interests(inputs: Inputs) -> list[Stage]:
    stages: list[Stage] = [train_term_classifier.STAGE, classify_terms.STAGE]
    if inputs.term_interests is not None:
        stages = [ingest_interests.TERM_INTERESTS_STAGE]
    if inputs.image_interests is not None:
        return [*stages, ingest_interests.IMAGE_INTERESTS_STAGE]
    if inputs.image_interest_seeds is not None:
        stages.append(ingest_interests.IMAGE_SEEDS_STAGE)
    if inputs.image_interactions is not None:
        stages.append(ingest_interests.INTERACTIONS_STAGE)
    return [*stages, train_image_classifier.STAGE, classify_images.STAGE]


def _labels(inputs: Inputs) -> list[Stage]:
    calibrated = [calibrate_threshold.STAGE] if inputs.labelled_annotations is not None else []
    return [
        *calibrated,
        select_annotations.STAGE,
        sample_concreteness.STAGE,
        score_concreteness.STAGE,
        sweep_concreteness.STAGE,
        select_visual_terms.STAGE,
        cluster_terms.STAGE,
        label_images.STAGE,
    ]


def _near_duplicates(inputs: Inputs) -> list[Stage]:
    has_validation = inputs.validation_images is not None
    is_given = inputs.image_embeddings is not None
    stages: list[Stage] = [
        fingerprint_images.STAGE,
        train_cells.STAGE,
        find_near_duplicates.STAGE,
        choose_pair_model.GIVEN_STAGE if is_given else choose_pair_model.STAGE,
        verify_near_duplicates.STAGE,
    ]
    if has_validation:
        stages += [fingerprint_validation_images.STAGE, find_validation_overlaps.STAGE]
    stages += [group_near_duplicates.STAGE, drop_near_duplicates.STAGE]
    return [*stages, certify_validation.STAGE] if has_validation else stages
