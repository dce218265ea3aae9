"""Throughput at the largest batch that fits, latency of a single image; warm-up left out.

Source: SPEC D13; paper section 4.4, Table 6.
"""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

Clock = Callable[[], float]


class Speed(NamedTuple):
    """What was measured, and on what.

    Attributes:
        device: name of the accelerator or processor.
        threads: CPU threads.
        batch: images at once.
        inference: images a second.
        training: images a second, forward, backward and AdamW step.
        latency_median_ms: of one image.
        latency_p95_ms: of one image.
    """

    device: str
    threads: int
    batch: int
    inference: float
    training: float
    latency_median_ms: float
    latency_p95_ms: float


def measure_speed(
    model: nn.Module,
    image_size: int,
    device: torch.device,
    max_batch: int,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> Speed:
    """Measure a model on random images in float32.

    Args:
        model: on the device; a copy of it is measured.
        image_size: side in pixels.
        device: where it is.
        max_batch: largest batch tried; batches double from 1 until one does not fit.
        seconds: to measure each rate for; at least three batches are timed.
        clock: seconds.
    """
    model = copy.deepcopy(model)
    batch = largest_batch(lambda size: _training_step(model, image_size, device, size), max_batch)
    one, many = (torch.zeros((n, 3, image_size, image_size), device=device) for n in (1, batch))
    model.eval()
    with torch.inference_mode():
        latency = 1000 * _times(lambda: model(one), device, seconds, clock)
        inference = batch / float(np.median(_times(lambda: model(many), device, seconds, clock)))
    step = _training_step(model, image_size, device, batch)
    training = batch / float(np.median(_times(step, device, seconds, clock)))
    return Speed(
        device=device_name(device),
        threads=torch.get_num_threads(),
        batch=batch,
        inference=inference,
        training=training,
        latency_median_ms=float(np.median(latency)),
        latency_p95_ms=float(np.quantile(latency, 0.95)),
    )


def largest_batch(step_of: Callable[[int], Callable[[], object]], max_batch: int) -> int:
    """The largest power of two up to ``max_batch`` whose step does not run out of memory.

    Raises:
        torch.OutOfMemoryError: not even one image fits.
    """
    size = 1
    step_of(size)()
    while 2 * size <= max_batch:
        try:
            step_of(2 * size)()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        size *= 2
    return size


def _training_step(
    model: nn.Module, image_size: int, device: torch.device, batch: int
) -> Callable[[], object]:
    """Forward, backward and an update of size zero."""
    images = torch.zeros((batch, 3, image_size, image_size), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)

    def step() -> None:
        model.train()
        torch.autograd.backward(torch.logsumexp(model(images).float(), dim=1).sum())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _times(
    call: Callable[[], object], device: torch.device, seconds: float, clock: Clock
) -> np.ndarray:
    """Seconds of each call, float64; the first calls, a fifth of the time, are thrown away."""
    warm_until = clock() + seconds / 5
    while True:
        _timed(call, device, clock)
        if clock() >= warm_until:
            break
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < seconds:
        taken.append(_timed(call, device, clock))
    return np.array(taken)


def _timed(call: Callable[[], object], device: torch.device, clock: Clock) -> float:
    began = clock()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def device_name(device: torch.device) -> str:
    """Name of the accelerator, or of the processor's architecture."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU {platform.machine()}"
