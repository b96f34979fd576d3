"""Studies: one budget in one file, whoever runs the trials; what counts as a trial; what a pruner saves."""

import math
import subprocess
import sys
import textwrap

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from training_helpers import linear_net, loaders, make_trainer

from dlcourse.exercises.tuning import should_stop
from dlcourse.training import EarlyStopping, NonFiniteLoss
from dlcourse.training.tuning import ReportTrial, open_study, run_trials

SPACE = {"lr": FloatDistribution(1e-4, 1.0, log=True), "width": IntDistribution(1, 64)}


def quick(params, report):
    return -abs(math.log10(params["lr"]) + 2) - params["width"] / 100


def study_of(path=None, space=SPACE, **options):
    return open_study(path, space, **{"direction": "maximize", "pruner": "none", **options})


def count(study, state):
    return len(study.get_trials(states=(state,)))


def params_of(study):
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_opened_again_goes_on_like_the_one_left_alone(tmp_path, sampler):
    alone = study_of(sampler=sampler)
    run_trials(alone, quick, SPACE, trials=16)
    for trials in (3, 12, 12, 16):
        called = []
        before = study_of(tmp_path / "study.log", sampler=sampler).trials
        study = study_of(tmp_path / "study.log", sampler=sampler)
        run_trials(study, lambda params, report: called.append(1) or quick(params, report), SPACE, trials=trials)  # noqa: B023
        assert len(called) == trials - len(before)
        assert len(study.trials) == trials
    assert params_of(study) == params_of(alone)
    assert len({trial["lr"] for trial in params_of(study)}) == 16
    assert [trial.value for trial in study.trials] == [trial.value for trial in alone.trials]


def test_the_seed_decides_the_trials():
    seeds = []
    for seed in (0, 0, 1):
        study = study_of(seed=seed)
        run_trials(study, quick, SPACE, trials=12)
        seeds.append(params_of(study))
    assert seeds[0] == seeds[1] != seeds[2]


def test_another_space_or_direction_is_refused(tmp_path):
    path = tmp_path / "new" / "study.log"
    study_of(path)
    wider = {**SPACE, "lr": FloatDistribution(1e-5, 1.0, log=True)}
    with pytest.raises(ValueError, match=r"another search space \(lr: FloatDistribution\(.*low=0.0001.* there, .*low=1e-05"):
        study_of(path, wider)
    with pytest.raises(ValueError, match=r"space \(momentum: absent there, Float.* here; width: IntDistribution.* there, absent"):
        study_of(path, {"lr": SPACE["lr"], "momentum": FloatDistribution(0, 1)})
    with pytest.raises(ValueError, match="holds a study with direction='maximize', not 'minimize'"):
        study_of(path, direction="minimize")
    study_of(path, dict(reversed(SPACE.items())))  # the order does not matter


@pytest.mark.parametrize("text", ["no newline", "lr,accuracy\n0.1,0.8\n", "5\n", '{"lr": 0.1}\n', "\x00\xff"])
def test_a_file_that_is_no_study_is_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "results.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"results.csv is not a study's file \(\w+\); use another path"):
        study_of(path)
    assert path.read_bytes() == text.encode("latin-1")


def test_a_broken_line_within_a_study_is_refused(tmp_path):
    path = tmp_path / "study.log"
    run_trials(study_of(path), quick, SPACE, trials=2)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], "half a line\n", *lines[3:]]))
    with pytest.raises(ValueError, match="is not a study's file"):
        study_of(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "radom"}, "sampler='radom' is unknown; did you mean 'random'"),
        ({"sampler": "xyz"}, "sampler='xyz' is unknown; did you mean 'tpe' or 'random' or 'grid'"),
        ({"pruner": "medain"}, "pruner='medain' is unknown; did you mean 'median'"),
        ({"direction": "maximise"}, "direction='maximise' is unknown; did you mean 'maximize'"),
        ({"sampler": "grid"}, "needs grid=.* values of each of lr, width"),
        ({"sampler": "grid", "grid": {"lr": [0.1]}}, "needs grid="),
        ({"sampler": "grid", "grid": {"lr": [0.1, 2.0], "width": [1]}}, "grid: lr=2.0 lies outside FloatDistribution"),
        ({"grid": {"lr": [0.1], "width": [1]}}, "is for sampler='grid', not for sampler='tpe'"),
    ],
)
def test_wrong_options_leave_no_file(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        study_of(tmp_path / "study.log", **options)
    assert list(tmp_path.iterdir()) == []


def test_trials_must_be_positive():
    with pytest.raises(ValueError, match="trials=0 must be at least 1"):
        run_trials(study_of(), quick, SPACE, trials=0)


def test_a_grid_runs_each_combination_once_and_then_ends(tmp_path):
    grid = {"lr": [0.001, 0.01, 0.1], "width": [8, 16]}
    study = study_of(tmp_path / "study.log", sampler="grid", grid=grid)
    run_trials(study, quick, SPACE, trials=4)
    assert len(study.trials) == 4
    again = study_of(tmp_path / "study.log", sampler="grid", grid=grid, seed=5)  # the order is not the seed's
    for trials in (100, 101):
        run_trials(again, quick, SPACE, trials=trials)
        tried = [(trial["lr"], trial["width"]) for trial in params_of(again)]
        assert sorted(tried) == [(lr, width) for lr in grid["lr"] for width in grid["width"]]


def test_a_grid_of_categories():
    space = {"norm": CategoricalDistribution(["batch", "layer", None])}
    study = study_of(space=space, sampler="grid", grid={"norm": ["batch", None]})
    run_trials(study, lambda params, report: 0.0, space, trials=9)
    assert {trial["norm"] for trial in params_of(study)} == {"batch", None}
    assert len(study.trials) == 2


def test_a_diverging_training_is_a_failed_trial_and_the_study_goes_on():
    def objective(params, report):
        if report.trial.number == 1:
            raise NonFiniteLoss("the loss is NaN at epoch 1, step 3")
        return math.nan if report.trial.number == 2 else 0.5

    study = study_of()
    run_trials(study, objective, SPACE, trials=5)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    errors = [trial.user_attrs.get("error") for trial in study.trials]
    assert errors == [None, "the loss is NaN at epoch 1, step 3", "the objective returned NaN", None, None]


def test_a_training_that_diverges_for_real():
    def objective(params, report):
        trainer = make_trainer(callbacks=[report], net=linear_net, monitor="val_accuracy", schedule=False)
        trainer.optimizer.param_groups[0]["lr"] = 1e38
        return max(trainer.fit(*loaders())["val_accuracy"])

    study = study_of()
    run_trials(study, objective, SPACE, trials=2)
    assert count(study, TrialState.FAIL) == 2
    assert "at epoch 1, step" in study.trials[0].user_attrs["error"]


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_any_other_error_is_raised_and_its_trial_does_not_count(sampler):
    grid = {"lr": [0.1, 0.2, 0.3], "width": [1]} if sampler == "grid" else None
    study, broken = study_of(sampler=sampler, grid=grid), [True]

    def objective(params, report):
        if broken[0] and report.trial.number == 1:
            raise KeyError("a mistake in the objective")
        return 0.5

    with pytest.raises(KeyError, match="a mistake in the objective"):
        run_trials(study, objective, SPACE, trials=3)
    broken[0] = False
    run_trials(study, objective, SPACE, trials=3)
    assert count(study, TrialState.COMPLETE) == 3
    if grid:  # the combination of the broken trial too
        assert {t.params["lr"] for t in study.get_trials(states=(TrialState.COMPLETE,))} == set(grid["lr"])
    with pytest.raises(TypeError, match="NoneType"):
        run_trials(study_of(), lambda params, report: None, SPACE, trials=1)


def training(params, report, epochs=4, callbacks=None):
    """A training that learns for a large rate and stands still for a small one."""
    callbacks = [report] if callbacks is None else callbacks
    trainer = make_trainer(callbacks=callbacks, net=linear_net, monitor="val_accuracy", schedule=False, epochs=epochs)
    trainer.optimizer.param_groups[0]["lr"] = params["lr"]
    history = trainer.fit(*loaders())
    report.trial.set_user_attr("epochs", len(history.epochs))
    return max(history["val_accuracy"])


def test_ctrl_c_in_a_training_ends_the_study_and_the_trial_does_not_count(capsys):
    def objective(params, report):
        trainer = make_trainer(callbacks=[report], monitor="val_accuracy", net=linear_net)
        report.on_step_end = lambda trainer: (_ for _ in ()).throw(KeyboardInterrupt)
        return len(trainer.fit(*loaders()).epochs)

    study = study_of()
    with pytest.raises(KeyboardInterrupt):
        run_trials(study, objective, SPACE, trials=3)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    assert "Interrupted in epoch 1" in capsys.readouterr().out


@pytest.mark.parametrize(("pruner", "first"), [("median", 2), ("halving", 1)])
def test_pruned_trials_ran_fewer_epochs(pruner, first):
    study = study_of(pruner=pruner, sampler="random")
    run_trials(study, training, SPACE, trials=20)
    pruned = study.get_trials(states=(TrialState.PRUNED,))
    assert 3 <= len(pruned) < 20
    assert {min(t.intermediate_values) for t in study.trials} == {1}
    assert all(first <= t.last_step < 4 for t in pruned)
    assert all(t.last_step == t.user_attrs["epochs"] == 4 for t in study.get_trials(states=(TrialState.COMPLETE,)))
    assert min(t.last_step for t in pruned) == first


def test_a_pruner_without_reports_prunes_nothing():
    study = study_of(pruner="median", sampler="random")
    run_trials(study, lambda params, report: training(params, report, callbacks=[]), SPACE, trials=20)
    assert count(study, TrialState.COMPLETE) == 20


def test_the_last_epoch_prunes_nothing():
    study = study_of(pruner="halving")
    run_trials(study, lambda params, report: training(params, report, epochs=1), SPACE, trials=9)
    assert count(study, TrialState.COMPLETE) == 9


def test_with_early_stopping_the_trial_is_complete():
    def objective(params, report):
        trainer = make_trainer(
            callbacks=[EarlyStopping(1, min_delta=9, mode="max"), report], epochs=5, monitor="val_accuracy", net=linear_net
        )
        return max(trainer.fit(*loaders())["val_accuracy"])

    study = study_of()
    run_trials(study, objective, SPACE, trials=2)
    assert [(t.state, t.last_step) for t in study.trials] == [(TrialState.COMPLETE, 2)] * 2


@pytest.mark.parametrize(
    ("direction", "monitor", "message"),
    [
        ("minimize", "val_accuracy", "val_accuracy is better the higher it is: open the study with direction='maximize'"),
        ("maximize", "val_loss", "val_loss is better the lower it is: open the study with direction='minimize'"),
        ("maximize", "val_f1", "monitor='val_f1' is not measured; choose one of epoch, train_loss"),
    ],
)
def test_a_metric_that_does_not_fit(direction, monitor, message):
    def objective(params, report):
        return training(params, ReportTrial(report.trial, monitor=monitor))

    with pytest.raises(ValueError, match=message):
        run_trials(study_of(direction=direction), objective, SPACE, trials=1)
    with pytest.raises(ValueError, match="val_loss is better the lower"):  # the Trainer's own, when none is named
        run_trials(study_of(), lambda p, report: make_trainer(callbacks=[report]).fit(*loaders()), SPACE, trials=1)


def test_the_rule_of_the_exercise_is_the_median_pruners():
    pruned = []
    study = study_of(pruner="median", sampler="random")

    def objective(params, report):
        finished = [list(t.intermediate_values.values()) for t in study.get_trials(states=(TrialState.COMPLETE,))]
        rate, curve = math.log10(params["lr"]), []
        for epoch in range(1, 6):
            curve.append(rate * math.cos(epoch * params["width"]))
            report.trial.report(curve[-1], step=epoch)
            assert should_stop(curve, finished, startup=5, warmup=1) == report.trial.should_prune()
            if report.trial.should_prune():
                pruned.append(epoch)
                raise optuna.TrialPruned
        return curve[-1]

    run_trials(study, objective, SPACE, trials=40)
    assert len(pruned) > 8
    assert min(pruned) == 2


WORKER = """
import os, sys, time
from pathlib import Path
from optuna.distributions import FloatDistribution
from dlcourse.training.tuning import open_study, run_trials

space = {"lr": FloatDistribution(1e-4, 1.0, log=True)}
path, me, others, die_at = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(), int(sys.argv[4])
path.with_name(f"ready-{me}").touch()
while not all(path.with_name(f"ready-{other}").exists() for other in others):
    time.sleep(0.01)

def objective(params, report):
    report.trial.set_user_attr("worker", me)
    if report.trial.number == die_at:
        os._exit(9)
    time.sleep(0.05)
    return params["lr"]

run_trials(open_study(path, space, direction="minimize", sampler="random"), objective, space, trials=16)
"""


def workers(tmp_path, *names, die_at=-1):
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    started = [
        subprocess.Popen([sys.executable, script, tmp_path / "study.log", name, " ".join(names), str(die_at)], text=True)
        for name in names
    ]
    return [process.wait(timeout=120) for process in started]


def test_two_processes_on_one_file_share_the_budget(tmp_path):
    assert workers(tmp_path, "one", "two") == [0, 0]
    space = {"lr": FloatDistribution(1e-4, 1.0, log=True)}
    study = study_of(tmp_path / "study.log", space, direction="minimize")
    assert [trial.number for trial in study.trials] == list(range(len(study.trials)))
    assert 16 <= count(study, TrialState.COMPLETE) == len(study.trials) <= 17
    assert {trial.user_attrs["worker"] for trial in study.trials} == {"one", "two"}
    assert len({trial.params["lr"] for trial in study.trials}) == len(study.trials)  # one seed, and no value twice


def test_a_killed_trial_does_not_count(tmp_path):
    assert workers(tmp_path, "one", die_at=3) == [9]
    space = {"lr": FloatDistribution(1e-4, 1.0, log=True)}
    study = study_of(tmp_path / "study.log", space, direction="minimize")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3 + ["RUNNING"]
    assert workers(tmp_path, "one") == [0]
    assert count(study, TrialState.COMPLETE) == 16
    assert count(study, TrialState.RUNNING) == 1
