"""Which processes train a study: seen by each other on a real PostgreSQL, and alone anywhere else."""

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.faults import servers
from pipeline import presence, storage
from pipeline.presence import Presence

STUDY = "presence"


@contextlib.contextmanager
def process(url: str) -> Iterator[Presence]:
    """As a process of its own has it: with connections of its own."""
    with storage.connected(url, STUDY) as opened, presence.shown(opened, url, STUDY) as shown:
        yield shown


def is_alone(one: Presence) -> bool:
    with one.alone() as alone:
        return alone


def test_where_only_one_may_train_it_is_alone_and_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_HOME", str(tmp_path))
    with process("") as one:
        assert is_alone(one)
        assert one.leave()
        assert one.last()


def test_one_of_two_is_the_last_whoever_asks_first(postgresql: servers.Postgresql) -> None:
    url = postgresql.url("optuna")
    with process(url) as one:
        assert is_alone(one)
        with process(url) as other:
            assert not is_alone(one)
            assert not is_alone(other)
            assert not one.leave()
            assert other.leave()
            assert other.leave(), "the last one stays it"


def test_one_that_ends_without_a_word_is_seen_no_more(postgresql: servers.Postgresql) -> None:
    url = postgresql.url("optuna")
    with process(url) as one:
        with process(url):
            assert not is_alone(one)
        assert is_alone(one)


def test_whoever_only_looks_is_not_seen(postgresql: servers.Postgresql) -> None:
    url = postgresql.url("optuna")
    with storage.connected(url, STUDY) as opened:
        looking = presence.looking(opened, url, STUDY)
        assert is_alone(looking)
        with process(url) as one:
            assert is_alone(one)
            assert not is_alone(looking)
            assert is_alone(one)


def test_another_study_s_processes_are_others(postgresql: servers.Postgresql) -> None:
    url = postgresql.url("optuna")
    with (
        process(url) as one,
        storage.connected(url, "another") as opened,
        presence.shown(opened, url, "another") as other,
    ):
        assert is_alone(one)
        assert is_alone(other)


def test_a_server_that_was_away_sees_both_again(postgresql: servers.Postgresql) -> None:
    url = postgresql.url("optuna")
    with ExitStack() as stack:
        one, other = (stack.enter_context(process(url)) for _ in range(2))
        postgresql.stop()
        try:
            assert one.last(), "nobody can tell"
        finally:
            postgresql.start()
        for process_ in (one, other):
            process_.show()
        assert not is_alone(one)
        assert not one.leave()
        assert other.leave()
