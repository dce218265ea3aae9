from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from pipeline.runtime.logs import HIDDEN, KeyValueFormatter, event, key_values, redact
from pipeline.runtime.progress import Progress, _short


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the project's loggers print."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(KeyValueFormatter())
    logger = logging.getLogger("pipeline")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_time_left_follows_the_expected_seconds() -> None:
    clock = Clock()
    progress = Progress(["a", "b", "c"], {"a": 10, "b": 30, "c": 20}, is_live=False, clock=clock)
    progress.start("a")
    assert progress.seconds_left() is None
    clock.now += 20  # twice what was expected
    progress.finish("a")
    assert progress.seconds_left() == pytest.approx(100)
    progress.start("b")
    clock.now += 30
    progress.update("b", 1, 2)
    # 50 s for weight 10 + 15; left are 15 + 20.
    assert progress.seconds_left() == pytest.approx(50 / 25 * 35)
    progress.finish("b")
    progress.finish("c", "current")
    assert progress.seconds_left() == 0
    assert progress.seconds == {"a": 20, "b": 30}


def test_a_stage_nobody_timed_gets_the_mean() -> None:
    clock = Clock()
    progress = Progress(["a", "b", "new"], {"a": 10, "b": 30}, is_live=False, clock=clock)
    progress.start("a")
    clock.now += 10
    progress.finish("a")
    assert progress.seconds_left() == pytest.approx(30 + 20)


def test_current_stages_are_no_measure_of_speed() -> None:
    clock = Clock()
    progress = Progress(["a", "b", "c"], is_live=False, clock=clock)
    progress.finish("a", "current")
    assert progress.seconds_left() is None
    progress.start("b")
    clock.now += 7
    progress.finish("b")
    assert progress.seconds_left() == pytest.approx(7)


def test_a_long_stage_tells_its_share_once_a_minute(lines: io.StringIO) -> None:
    clock = Clock()
    with Progress(["a"], is_live=False, clock=clock) as progress:
        progress.start("a")
        for done in range(1, 11):
            clock.now += 25
            progress.update("a", done, 20)
    told = [line for line in lines.getvalue().splitlines() if "event=stage_running" in line]
    assert [line.partition("share=")[2] for line in told] == [
        "0.15 seconds_left=425",
        "0.3 seconds_left=350",
        "0.45 seconds_left=275",
    ]


def test_away_from_a_terminal_there_are_lines(lines: io.StringIO) -> None:
    clock = Clock()
    with Progress(["a", "b"], is_live=False, clock=clock) as progress:
        progress.start("a")
        clock.now += 2
        progress.finish("a", note="3 images")
        progress.finish("b", "current")
    got = [line.split(" ", 3)[3] for line in lines.getvalue().splitlines()]
    assert got == [
        "event=stage_started stage=a position=1/2",
        'event=stage_done stage=a position=1/2 seconds=2 note="3 images" seconds_left=2',
        "event=stage_current stage=b position=2/2 seconds=0 seconds_left=0",
    ]


def test_a_stage_that_raises_is_shown_as_failed(lines: io.StringIO) -> None:
    def fail() -> None:
        with Progress(["a"], is_live=False) as progress:
            progress.start("a")
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert "event=stage_failed stage=a" in lines.getvalue()


def test_on_a_terminal_there_is_one_view(lines: io.StringIO) -> None:
    stream = io.StringIO()
    with Progress(["first_stage", "second_stage"], stream=stream, is_live=True) as progress:
        progress.start("first_stage")
        progress.finish("first_stage", note="3 images")
        progress.finish("second_stage", "current")
    for words in ("first_stage", "3 images", "second_stage", "up to date", "so far"):
        assert words in stream.getvalue()
    assert lines.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (65, "1 min 05 s"), (12000, "3 h 20 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert _short(seconds) == text


def test_key_values_quote_only_what_needs_it() -> None:
    fields: dict[str, object] = {"a": 1, "b": "two words", "c": True, "d": 0.5, "e": "", "f": 'q"x'}
    assert key_values(fields) == 'a=1 b="two words" c=true d=0.5 e="" f="q\\"x"'


def test_an_exception_stays_on_its_line(lines: io.StringIO) -> None:
    logger = logging.getLogger("pipeline.test")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("went wrong")
    (line,) = lines.getvalue().splitlines()
    assert 'message="went wrong"' in line
    assert "two\nlines" in json.loads(line.split("exception=", 1)[1])


def test_secrets_never_reach_a_line(lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "FwoGZXIvYXdzEXAMPLE")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    logger = logging.getLogger("pipeline.test")
    event(logger, "opened", root="s3://bucket", key="wJalrXUtnFEMI/K7MDENG", region="eu-west-1")
    logger.info("with %s and %s", "FwoGZXIvYXdzEXAMPLE", "AKIAIOSFODNN7EXAMPLE")
    logger.info("options {'secret': 'abc', 'client_kwargs': 1} https://me:pw123@host/x")
    told = lines.getvalue()
    for secret in ("wJalr", "FwoGZ", "AKIA", "abc", "pw123"):
        assert secret not in told
    for kept in ("root=s3://bucket", "region=eu-west-1", "client_kwargs", "host/x"):
        assert kept in told


def test_redact_leaves_ordinary_words_alone() -> None:
    plain = "num_tokens=12 tokens: 5 keys=3 access=granted s3://bucket/path?x=1"
    assert redact(plain) == plain
    assert redact("api_key=12345 password: x") == f"api_key={HIDDEN} password: {HIDDEN}"
