"""What a search tells its study waits, in order, while the storage does not answer."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy.exc import OperationalError

from pipeline import ledger
from pipeline.errors import RunError
from pipeline.ledger import Ledger

AWAY = OperationalError("update trials", {}, Exception("connection refused"))


class Storage:
    """Takes what it is told while it answers."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.away = False

    def take(self, number: int) -> None:
        if self.away:
            raise AWAY
        self.told.append(number)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def book(said: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setattr(ledger, "_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(ledger, "_END_SECONDS", 0.2)
    return Ledger(said.append)


def test_what_cannot_be_told_is_told_later_in_its_order(
    book: Ledger, storage: Storage, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    book.tell(lambda: storage.take(0))
    storage.away = True
    for number in (1, 2, 3):
        book.tell(lambda number=number: storage.take(number))
    assert storage.told == [0]
    assert book.down
    storage.away = False
    book.tell(lambda: storage.take(4))
    assert storage.told == [0]  # it is too early to ask again
    monkeypatch.setattr(ledger, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(ledger, "_PAUSE_TIMES", 0.0)
    assert not book.down
    book.tell(lambda: storage.take(5))
    assert storage.told == [0, 1, 2, 3, 4, 5]
    assert len(said) == 2
    assert said[0].startswith("the study's storage does not answer (")
    assert said[1].startswith("the study's storage answers again after 0 s")


def test_a_question_that_is_not_answered_ends_its_block_alone(book: Ledger, storage: Storage) -> None:
    storage.away = True
    reached = False
    with book.borne():
        storage.take(0)
        reached = True
    assert not reached
    assert book.down


def test_one_that_does_not_even_refuse_is_asked_less_often(
    book: Ledger, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(ledger.time, "monotonic", lambda: now[0])
    storage.away = True
    with book.borne():
        now[0] += 25
        storage.take(0)
    now[0] += 90
    assert book.down
    now[0] += 11
    assert not book.down


def test_an_outage_in_which_nothing_waits_is_told_once(
    book: Ledger, storage: Storage, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(ledger, "_PAUSE_TIMES", 0.0)
    storage.away = True
    for _ in range(3):
        # As the loop asks for the next trial.
        with book.borne():
            book.write()
            storage.take(0)
    assert len(said) == 1
    storage.away = False
    with book.borne():
        book.write()
        storage.take(0)
    assert len(said) == 2


def test_any_other_error_is_raised(book: Ledger) -> None:
    def wrong() -> None:
        raise ValueError("no outage")

    with pytest.raises(ValueError, match="no outage"):
        book.tell(wrong)


def test_at_the_end_it_is_tried_for_some_seconds(book: Ledger, storage: Storage) -> None:
    storage.away = True
    book.tell(lambda: storage.take(0))
    began = time.monotonic()
    book.close()
    assert time.monotonic() - began > 0.15
    assert storage.told == []


def test_a_storage_that_stays_away_ends_the_search(
    book: Ledger, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.away = True
    book.tell(lambda: storage.take(0))
    monkeypatch.setattr(ledger, "_PATIENCE_SECONDS", 0.05)
    time.sleep(0.1)
    with pytest.raises(RunError, match=r"has not answered for 0 minutes .* the same command goes on"):
        book.write()
