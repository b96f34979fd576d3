"""Wrong answers to the exercises on tuning: a linear scale, half a median rule, choices made with the test scores."""

import math
import statistics

import torch
from planting import mistake


def named(name, function):
    function.__name__ = name
    return function


def draw(says, name, function):
    mistake("tuning.log_uniform", says=says)(named(name, function))


def log10(u, low, high):
    return math.log10(low) + u * (math.log10(high) - math.log10(low))


draw("draws on a linear scale", "linear", lambda u, low, high: low + u * (high - low))
draw("takes low for the upper end", "ends_swapped", lambda u, low, high: high * (low / high) ** u)
draw("returns the exponent", "exponent", log10)
draw("returns the logarithm", "logarithm", lambda u, low, high: math.log(low) + u * math.log(high / low))
draw(r"log10 goes back with 10\*\*x", "exp_of_log10", lambda u, low, high: torch.exp(log10(u, low, high)))
draw("log goes back with exp", "power_of_log", lambda u, low, high: 10 ** (math.log(low) + u * math.log(high / low)))
draw("takes low and high for exponents", "ends_as_exponents", lambda u, low, high: 10 ** (low + u * (high - low)))
draw("forgets to start at low", "without_low", lambda u, low, high: (high / low) ** u)
draw("rounds to whole decades", "whole_decades", lambda u, low, high: 10 ** log10(u, low, high).round())
draw("rounds down to whole decades", "decades_below", lambda u, low, high: 10 ** log10(u, low, high).floor())
draw("uniform in 1/x", "reciprocal", lambda u, low, high: 1 / (1 / low + u * (1 / high - 1 / low)))
draw("multiplies u by high − low", "difference_in_the_exponent", lambda u, low, high: low * torch.exp(u * (high - low)))
draw("draws numbers of its own", "own_numbers", lambda u, low, high: low * (high / low) ** torch.rand_like(u))
draw("float32 where torch.float64 is expected", "single", lambda u, low, high: low * (high / low) ** u.float())
draw("not a Tensor", "a_list", lambda u, low, high: [low * (high / low) ** x for x in u.flatten().tolist()])
draw(r"has shape \(15,\)", "flattened", lambda u, low, high: (low * (high / low) ** u).flatten())


@mistake("tuning.log_uniform", says="It changes its input")
def in_place(u, low, high):
    return u.mul_(math.log(high / low)).add_(math.log(low)).exp_()


def stop(
    says, name, *, few=lambda finished, startup, n: len(finished) < startup, early=lambda n, warmup: n <= warmup,
    there=lambda finished, n: [c[n - 1] for c in finished if len(c) >= n], value=max, middle=statistics.median,
    worse=lambda a, b: a < b, nobody=False, answer=lambda stops: stops, defaults=(5, 1),
):  # fmt: skip
    """Plant the median rule with one part of it replaced."""

    def wrong(curve, finished, *, startup=defaults[0], warmup=defaults[1]):
        n = len(curve)
        if few(finished, startup, n) or early(n, warmup):
            return answer(False)
        values = there(finished, n)
        return answer(worse(value(curve), middle(values)) if values else nobody)

    mistake("tuning.should_stop", says=says)(named(name, wrong))


stop("judges the trial by its last value", "last_value", value=lambda curve: curve[-1])
stop("judges the trial by the mean", "mean_value", value=statistics.fmean)
stop("compares with the last values of the finished", "final_values", there=lambda finished, n: [c[-1] for c in finished])
stop("those that came this far; those at", "final_of_long", there=lambda finished, n: [c[-1] for c in finished if len(c) >= n])
stop("compares with the best values", "best_so_far", there=lambda finished, n: [max(c[:n]) for c in finished if len(c) >= n])
stop("takes the last value of a finished trial", "padded", there=lambda finished, n: [c[min(n, len(c)) - 1] for c in finished])
stop("takes the mean of the others", "mean_of_others", middle=statistics.fmean)
stop("as torch.median does", "torchs_median", middle=lambda values: torch.tensor(values).median().item())
stop("takes the upper of the two", "upper_median", middle=statistics.median_high)
stop("compares with the best of the others", "best_of_others", middle=max)
stop("compares with the worst of the others", "worst_of_others", middle=min)
stop("stops a trial that equals the median", "ties_stop", worse=lambda a, b: a <= b)
stop("stops the good trials", "reversed", worse=lambda a, b: a > b)
stop("takes lower for better", "lower_is_better", value=min, worse=lambda a, b: a > b)
stop("answers whether to go on", "goes_on", answer=lambda stops: not stops)
stop("does not wait for `startup`", "no_startup", few=lambda finished, startup, n: False)
stop("one finished trial more", "startup_off_by_one", few=lambda finished, startup, n: len(finished) <= startup)
stop(
    "counts for `startup` only", "startup_of_long_ones",
    few=lambda finished, startup, n: sum(len(c) >= n for c in finished) < startup,
)
stop("stops within the first `warmup`", "no_warmup", early=lambda n, warmup: False)
stop("may stop in epoch `warmup`", "warmup_off_by_one", early=lambda n, warmup: n < warmup)
stop("waits one epoch more", "warmup_too_long", early=lambda n, warmup: n <= warmup + 1)
stop("compares with the epoch before", "epoch_before", there=lambda finished, n: [c[n - 2] for c in finished if len(c) >= n])
stop("when no other came this far", "nobody_there", nobody=True)
stop("never stops", "never", worse=lambda a, b: False)
stop("stops every trial", "always", worse=lambda a, b: True)
stop("Its defaults are not", "other_defaults", defaults=(4, 1))
stop("True .stop. or False", "a_number", answer=float)

@mistake("tuning.should_stop", says="raises StatisticsError")
def nobody_there_forgotten(curve, finished, *, startup=5, warmup=1):
    if len(finished) < startup or len(curve) <= warmup:
        return False
    return max(curve) < statistics.median(other[len(curve) - 1] for other in finished if len(other) >= len(curve))


@mistake("tuning.should_stop", says="raises IndexError")
def shorter_trials_forgotten(curve, finished, *, startup=5, warmup=1):
    if len(finished) < startup or len(curve) <= warmup:
        return False
    return max(curve) < statistics.median([other[len(curve) - 1] for other in finished])


def select(says, name, *, choose=lambda val, test: int(val.mean(1).argmax()), mean=lambda val, test, i: test[i].mean(),
           half=lambda val, test, i, t: t * test[i].std() / test.shape[1] ** 0.5, give=lambda *three: three):  # fmt: skip
    """Plant the choice and the report with one part replaced."""

    def wrong(val, test, *, t):
        i = choose(val, test)
        return give(i, float(mean(val, test, i)), float(half(val, test, i, t)))

    mistake("tuning.select_and_report", says=says)(named(name, wrong))


def root(test):
    return test.shape[1] ** 0.5


select("chooses by the test scores", "by_test", choose=lambda val, test: int(test.mean(1).argmax()))
select("best single seed", "by_best_seed", choose=lambda val, test: int(val.argmax()) // val.shape[1])
select("best worst seed", "by_worst_seed", choose=lambda val, test: int(val.amin(1).argmax()))
select("by the first seed alone", "by_first_seed", choose=lambda val, test: int(val[:, 0].argmax()))
select("chooses the worst", "lowest", choose=lambda val, test: int(val.mean(1).argmin()))
select("validation and test together", "by_both", choose=lambda val, test: int((val + test).mean(1).argmax()))
select("a row is a configuration", "over_rows", choose=lambda val, test: min(int(val.mean(0).argmax()), len(val) - 1))
select("reports the validation scores", "val_reported", mean=lambda val, test, i: val[i].mean())
select("reports the test score of the best seed", "best_test", mean=lambda val, test, i: test[i].max())
select("the seed that was best in validation", "one_seed", mean=lambda val, test, i: test[i, val[i].argmax()])
select("the mean over all configurations", "mean_of_all", mean=lambda val, test, i: test.mean())
select("the best mean of any configuration", "best_on_test", mean=lambda val, test, i: test.mean(1).max())
select("reports the median", "median", mean=lambda val, test, i: test[i].quantile(0.5))
select("forgets to divide by √S", "no_root", half=lambda val, test, i, t: t * test[i].std())
select("divides by S instead of √S", "by_s", half=lambda val, test, i, t: t * test[i].std() / test.shape[1])
select("forgets t", "no_t", half=lambda val, test, i, t: test[i].std() / root(test))
select("uses 1.96", "normal", half=lambda val, test, i, t: 1.96 * test[i].std() / root(test))
select("divides the squares by S;", "biased", half=lambda val, test, i, t: t * test[i].std(correction=0) / root(test))
select("takes the variance", "variance", half=lambda val, test, i, t: t * test[i].var() / root(test))
select("the spread of the validation scores", "spread_of_val", half=lambda val, test, i, t: t * val[i].std() / root(test))
select("the spread over all configurations", "spread_of_all", half=lambda val, test, i, t: t * test.std() / root(test))
select(
    "root of the number of configurations", "root_of_rows", half=lambda val, test, i, t: t * test[i].std() / len(test) ** 0.5
)
select("gives the whole width", "whole_width", half=lambda val, test, i, t: 2 * t * test[i].std() / root(test))
select("three things are asked for", "mean_only", give=lambda index, mean, half: (index, mean))
select("three numbers are asked for", "as_text", give=lambda index, mean, half: (index, f"{mean:.2f}", f"± {half:.2f}"))
