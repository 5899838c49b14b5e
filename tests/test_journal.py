"""Lines that belong together reach the disk in one write, and Optuna sees them before."""

import os
import resource
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

from pipeline import journal


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.log"


def told(study: optuna.Study, value: float) -> None:
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    trial.set_user_attr("why", [1, {"a": None}])
    study.tell(trial, value)


def values(file: Path) -> list[float | None]:
    """As Optuna's own storage reads the file."""
    study = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(file))))
    return [trial.value for trial in study.trials]


def test_lines_that_belong_together_are_one_write(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = journal.open_journal(file)
    study = optuna.create_study(study_name="s", storage=opened)
    waits, before = [], file.read_bytes()
    monkeypatch.setattr(os, "fsync", waits.append)
    with journal.together(opened):
        told(study, 0.5)
        told(study, 0.25)
        assert [trial.value for trial in study.trials] == [0.5, 0.25], "it is there for whoever asks"
        assert file.read_bytes() == before
    assert len(waits) == 1
    assert values(file) == [0.5, 0.25]
    told(study, 0.75)
    assert values(file) == [0.5, 0.25, 0.75] == [trial.value for trial in study.trials]


def test_a_file_is_the_same_whether_its_lines_were_written_together(tmp_path: Path) -> None:
    for name, is_together in (("one", False), ("two", True)):
        opened = journal.open_journal(tmp_path / name)
        study = optuna.create_study(
            study_name="s", storage=opened, sampler=optuna.samplers.RandomSampler(seed=0)
        )
        for value in (0.5, 0.25):
            if is_together:
                with journal.together(opened), journal.together(opened):
                    told(study, value)
            else:
                told(study, value)
    kinds = [
        [line.split(b",")[0] for line in (tmp_path / name).read_bytes().splitlines()]
        for name in ("one", "two")
    ]
    assert kinds[0] == kinds[1]
    assert values(tmp_path / "one") == values(tmp_path / "two")


def test_what_was_done_in_a_block_that_fails_is_kept(file: Path) -> None:
    opened = journal.open_journal(file)
    study = optuna.create_study(study_name="s", storage=opened)

    def fail() -> None:
        with journal.together(opened):
            told(study, 0.5)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    told(study, 0.25)
    assert values(file) == [0.5, 0.25]


def test_a_disk_that_is_full_breaks_no_line(file: Path) -> None:
    opened = journal.open_journal(file)
    study = optuna.create_study(study_name="s", storage=opened)
    told(study, 0.5)
    size, before = file.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    # As long as a file may be.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"), journal.together(opened):
            told(study, 0.25)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.stat().st_size == size
    told(optuna.load_study(study_name="s", storage=journal.open_journal(file)), 0.75)
    assert values(file) == [0.5, 0.75]


def test_an_entry_that_optuna_refuses_breaks_nothing(file: Path) -> None:
    opened = journal.open_journal(file)
    study = optuna.create_study(study_name="s", storage=opened)
    told(study, 0.5)
    with journal.together(opened):
        with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
            opened.set_trial_user_attr(0, "late", 1)
        told(study, 0.25)
    told(study, 0.75)
    assert values(file) == [0.5, 0.25, 0.75] == [trial.value for trial in study.trials]


def test_lines_of_another_process_meanwhile_are_read_too(file: Path) -> None:
    opened = journal.open_journal(file)
    study = optuna.create_study(study_name="s", storage=opened)
    other = optuna.load_study(study_name="s", storage=journal.open_journal(file))
    with journal.together(opened):
        told(study, 0.5)
    told(other, 0.25)
    assert values(file) == [0.5, 0.25] == [trial.value for trial in study.trials]


def test_a_look_reads_the_new_lines_only(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = journal.open_journal(file)
    study = optuna.create_study(study_name="s", storage=opened)
    places = []
    read = JournalFileBackend.read_logs

    def seen(self: JournalFileBackend, number: int) -> object:
        assert number in self._log_number_offset, "it would begin at the first line"
        places.append(number)
        return read(self, number)

    monkeypatch.setattr(JournalFileBackend, "read_logs", seen)
    for number in range(5):
        with journal.together(opened):
            told(study, number / 10)
        assert study.trials[-1].state == TrialState.COMPLETE
    assert len(set(places)) > 5


def test_another_storage_writes_as_it_does() -> None:
    opened = InMemoryStorage()
    study = optuna.create_study(study_name="s", storage=opened)
    with journal.together(opened):
        told(study, 0.5)
    assert study.best_value == 0.5
