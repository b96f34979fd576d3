"""Early stopping, the printed line, and what TensorBoard gets."""

import math

import pytest
from torch.utils.tensorboard import SummaryWriter
from training_helpers import loaders, make_trainer

from dlcourse.training import EarlyStopping, TensorBoard


@pytest.mark.parametrize(
    ("options", "values", "stops_at"),
    [
        ({"patience": 2}, [3, 2, 2, 2, 1], 4),
        ({"patience": 2}, [3, 4, 2, 3, 4], 5),
        ({"patience": 1}, [1, 1], 2),
        ({"patience": 2, "min_delta": 0.5}, [3, 2.6, 2.5, 1], 3),
        ({"patience": 2, "mode": "max"}, [1, 2, 2, 2], 4),
        ({"patience": 2, "mode": "max"}, [1, 2, 3, 4], None),
        ({"patience": 3}, [1, 2, 3], None),
    ],
)
def test_early_stopping(options, values, stops_at):
    stopping = EarlyStopping(**options)
    answers = [stopping.update(value) for value in values]
    assert (answers.index(True) + 1 if any(answers) else None) == stops_at


@pytest.mark.parametrize("values", [[math.nan], [1.0, math.nan]])
def test_nan_is_an_error_of_its_own(values):
    stopping = EarlyStopping(patience=5)
    for value in values[:-1]:
        stopping.update(value)
    with pytest.raises(ValueError, match="is NaN: the run is broken"):
        stopping.update(values[-1])


def test_a_mode_that_does_not_fit_the_metric():
    with pytest.raises(ValueError, match="mode='max' does not fit monitor='val_loss'; use mode='min'"):
        EarlyStopping(3, mode="max", monitor="val_loss")
    for mode, monitor in (("max", "val_loss"), ("min", "val_accuracy")):
        trainer = make_trainer(monitor=monitor, callbacks=[EarlyStopping(3, mode=mode)])
        with pytest.raises(ValueError, match=f"mode='{mode}' does not fit monitor='{monitor}'"):
            trainer.fit(*loaders())
    with pytest.raises(ValueError, match="monitor='val_f1' is not measured"):
        make_trainer(callbacks=[EarlyStopping(3, monitor="val_f1")]).fit(*loaders())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience=0 must be"),
        ({"patience": 1.5}, "patience=1.5 must be"),
        ({"patience": 1, "min_delta": -1.0}, "min_delta=-1.0 must be"),
        ({"patience": 1, "min_delta": math.nan}, "min_delta=nan must be"),
        ({"patience": 1, "mode": "auto"}, "mode='auto' is unknown; choose one of min, max"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**options)


def test_early_stopping_ends_the_run_and_a_resumed_run_stays_stopped(tmp_path):
    history = make_trainer(tmp_path, epochs=9, callbacks=[EarlyStopping(2, min_delta=10.0)]).fit(*loaders())
    assert len(history.epochs) == 3
    resumed = make_trainer(tmp_path, epochs=9, callbacks=[EarlyStopping(2, min_delta=10.0)])
    assert len(resumed.resume(tmp_path / "last.pt").fit(*loaders()).epochs) == 3


def test_a_line_an_epoch_only_when_asked_for(capsys):
    make_trainer(epochs=2).fit(*loaders())
    assert capsys.readouterr() == ("", "")
    history = make_trainer(epochs=2, verbose=True).fit(*loaders())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert f"val_loss {history['val_loss'][0]:.4g}" in lines[0]
    assert "(best so far)" in lines[0]


def test_tensorboard(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    purged = []

    class Writer(SummaryWriter):
        def __init__(self, log_dir, purge_step):
            purged.append(purge_step)
            super().__init__(log_dir, purge_step=purge_step)

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", Writer)
    history = make_trainer(tmp_path / "run", epochs=2, callbacks=[TensorBoard(tmp_path / "log")]).fit(*loaders())
    more = make_trainer(tmp_path / "run", epochs=3, callbacks=[TensorBoard(tmp_path / "log")])
    more.resume(tmp_path / "run" / "last.pt").fit(*loaders())
    assert purged == [None, 3]
    events = EventAccumulator(str(tmp_path / "log")).Reload()
    assert set(events.Tags()["scalars"]) == {
        "loss/train", "loss/val", "accuracy/train", "accuracy/val", "learning_rate"
    }  # fmt: skip
    logged = [(event.step, event.value) for event in events.Scalars("loss/val")]
    assert [step for step, _ in logged] == [1, 2, 3]
    assert [value for _, value in logged[:2]] == pytest.approx(history["val_loss"])


def test_tensorboard_without_a_run_closes_quietly(tmp_path):
    TensorBoard(tmp_path).on_fit_end(make_trainer())
