"""Wrong answers to the exercises on transfer learning."""

import copy

import torch
from planting import mistake
from torch import nn
from torch.nn import functional as F

HEAD, FREEZE, GROUPS, LOSS = (
    f"transfer.{name}" for name in ("replace_head", "freeze", "layerwise_groups", "distillation_loss")
)


def plant(exercise, says, name, wrong):
    wrong.__name__ = name
    mistake(exercise, says=says)(wrong)


# ---------------------------------------------------------------- a new head


def find(model):
    if hasattr(model, "get_classifier"):
        head = model.get_classifier()
    else:
        head = next(getattr(model, name) for name in ("fc", "classifier", "heads") if hasattr(model, name))
    old = [module for module in head.modules() if isinstance(module, nn.Linear)][-1]
    return next(name for name, module in model.named_modules() if module is old), old


def new_layer(old, k):
    return nn.Linear(old.in_features, k, dtype=old.weight.dtype)


def new_head(new=new_layer, before=lambda model: model, after=lambda model, name: model):
    """The right answer with one part of it replaced."""

    def answer(model, k):
        model = before(model)
        name, old = find(model)
        model.set_submodule(name, new(old, k))
        return after(model, name)

    return answer


@mistake(HEAD, says=r"AttributeError for a Mini module, 3: .*no attribute 'fc'")
def resnets_only(model, k):
    model.fc = nn.Linear(model.fc.in_features, k)
    return model


@mistake(HEAD, says="AttributeError for a Mini module, 3: 'Sequential' object has no attribute 'in_features'")
def asks_the_sequential(model, k):  # P58
    name = next((name for name in ("fc", "classifier", "heads") if hasattr(model, name)), "classif")
    setattr(model, name, nn.Linear(getattr(model, name).in_features, k))
    return model


@mistake(HEAD, says="`classif`, is still the old one")
def a_new_fc_beside_the_timm_head(model, k):
    if hasattr(model, "get_classifier"):
        model.fc = nn.Linear(8, k)
        return model
    return new_head()(model, k)


@mistake(HEAD, says="there is no `classifier.1` any more")
def drops_the_dropout(model, k):
    if hasattr(model, "classifier"):
        model.classifier = new_layer(find(model)[1], k)
        return model
    return new_head()(model, k)


@mistake(HEAD, says=r"cannot be run any more \(RuntimeError: mat1 and mat2")
def fixed_width(model, k):
    return new_head(lambda old, k: nn.Linear(512, k, dtype=old.weight.dtype))(model, k)


@mistake(HEAD, says="`classifier.3`, is still the old one.*MobileNetV3|cannot be run.*MobileNetV3")
def the_first_linear_of_the_classifier(model, k):
    name = "classifier.0"
    if isinstance(getattr(model, "classifier", [None])[0], nn.Linear):
        model.set_submodule(name, new_layer(model.get_submodule(name), k))
        return model
    return new_head()(model, k)


@mistake(HEAD, says="returns the head alone")
def the_head_only(model, k):
    return new_head(after=lambda model, name: model.get_submodule(name))(model, k)


plant(HEAD, "not the model it was given", "a_copy", new_head(before=copy.deepcopy))
plant(HEAD, "It puts a Sequential module at", "stacks_a_layer_on_the_old_head", lambda model, k: new_head(
    lambda old, k: nn.Sequential(old, nn.Linear(old.out_features, k, dtype=old.weight.dtype)))(model, k))  # fmt: skip
plant(HEAD, "has no bias", "no_bias", new_head(lambda old, k: nn.Linear(old.in_features, k, bias=False, dtype=old.weight.dtype)))
plant(HEAD, "keeps the old head's weights", "keeps_the_old_head", new_head(
    lambda old, k: old if k == old.out_features else new_layer(old, k)))  # fmt: skip
plant(HEAD, "The new head is torch.float32 where the rest is torch.float64", "single_precision", new_head(lambda old, k: nn.Linear(old.in_features, k)))
plant(HEAD, r"`\S+` from learning", "freezes_the_rest", new_head(
    after=lambda model, name: [p.requires_grad_(n.startswith(name)) for n, p in model.named_parameters()] and model))  # fmt: skip


def start_anew(model, name):
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


plant(HEAD, "loses the trained weights of the backbone", "starts_anew", new_head(after=start_anew))
plant(HEAD, r"has shape \(2, 5\) where \(2, 3\)", "changes_the_number_only", new_head(
    lambda old, k: (setattr(old, "out_features", k), copy.deepcopy(old))[1]))  # fmt: skip
plant(HEAD, r"where \(2, 1\) is expected", "two_outputs_at_least", new_head(lambda old, k: new_layer(old, max(2, k))))


@mistake(HEAD, says="returns None")
def nothing_returned(model, k):
    new_head()(model, k)


# ---------------------------------------------------------------- freezing


def freezing(
    matches=lambda name, prefix: f"{name}.".startswith(f"{prefix}."),
    stop=lambda model, names: [model.get_parameter(name).requires_grad_(False) for name in names],
    result=lambda names: names,
    complain=True,
):
    """The right answer with one part of it replaced."""

    def answer(model, prefix):
        names = [name for name, _ in model.named_parameters() if matches(name, prefix)]
        if not names and complain:
            raise ValueError(f"nothing lies under {prefix!r}")
        stop(model, names)
        return result(names)

    return answer


plant(FREEZE, r"compares letters \(`in`", "substring", freezing(lambda name, prefix: prefix in name))  # P60
plant(FREEZE, "startswith without a dot", "without_the_dot", freezing(lambda name, prefix: name.startswith(prefix)))  # P60
plant(FREEZE, "finds nothing in a small ViT and the prefix 'cls_token'", "needs_a_dot", freezing(lambda name, prefix: name.startswith(f"{prefix}.")))
plant(FREEZE, "matches the end or the middle of a path", "anywhere_in_the_path", freezing(
    lambda name, prefix: f".{prefix}." in f".{name}."))  # fmt: skip
plant(FREEZE, "compares the first name of the path alone", "first_name", freezing(
    lambda name, prefix: name.split(".")[0] == prefix.split(".")[0]))  # fmt: skip
plant(FREEZE, "Parameters of the modules inside count too", "own_parameters", freezing(
    lambda name, prefix: prefix in (name, name.rpartition(".")[0])))  # fmt: skip
plant(FREEZE, "It raises no error for a small ViT and the prefix 'layer1'", "silent_on_nothing", freezing(complain=False))  # P60
plant(FREEZE, "It freezes nothing: assigning", "sets_it_on_the_module", freezing(
    stop=lambda model, names: [setattr(model.get_submodule(n.rpartition(".")[0]), "requires_grad", False) for n in names]))  # fmt: skip
plant(FREEZE, "freezes every parameter", "everything", freezing(stop=lambda model, names: model.requires_grad_(False)))
plant(FREEZE, "freezes the wrong side", "the_others", freezing(
    stop=lambda model, names: [p.requires_grad_(False) for n, p in model.named_parameters() if n not in names]))  # fmt: skip
plant(FREEZE, "lets learn again what was frozen before", "unfreezes_the_rest", freezing(
    stop=lambda model, names: [p.requires_grad_(n not in names) for n, p in model.named_parameters()]))  # fmt: skip
plant(FREEZE, "forgets the biases", "weights_only", freezing(
    stop=lambda model, names: [model.get_parameter(n).requires_grad_(False) for n in names if not n.endswith("bias")]))  # fmt: skip
plant(FREEZE, "returns 2 for a small ResNet", "counts", freezing(result=len))
plant(FREEZE, r"has 3 elements where 2 are|has 1 elements? where 2 are", "drops_the_first_name", freezing(result=lambda names: names[1:]))
plant(FREEZE, r"at \[0\] is 'fc' where", "names_of_modules", freezing(result=lambda names: [n.rpartition(".")[0] for n in names]))


def zeroes(model, names):
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).requires_grad_(False).zero_()


plant(FREEZE, "changes the weights", "zeroes", freezing(stop=zeroes))


@mistake(FREEZE, says="takes parameters out of the model")
def makes_buffers(model, prefix):
    names = [name for name, _ in model.named_parameters() if f"{name}.".startswith(f"{prefix}.")]
    for name in names:
        parent, _, last = name.rpartition(".")
        owner = model.get_submodule(parent)
        tensor = getattr(owner, last).detach()
        delattr(owner, last)
        owner.register_buffer(last, tensor)
    return names


@mistake(FREEZE, says=r"It raises AttributeError for a small ViT and the prefix 'layer1'; a ValueError")
def asks_for_the_submodule(model, prefix):
    names = freezing(complain=False)(model, prefix)
    if not names:
        model.get_submodule(prefix)
    return names


@mistake(FREEZE, says="ValueError for .* does not name 'layer1'")
def says_nothing_of_the_prefix(model, prefix):
    if names := freezing(complain=False)(model, prefix):
        return names
    raise ValueError("nothing matches")


# ---------------------------------------------------------------- layer-wise rates


def under(name, layer):
    return f"{name}.".startswith(f"{layer}.")


def groups(
    matches=under,
    rate=lambda base_lr, decay, i, n: base_lr * decay ** (n - 1 - i),
    left_in=0,
    takes=lambda name, parameter: [parameter],
    result=lambda groups: groups,
):
    """The right answer with one part of it replaced."""

    def answer(model, layers, *, base_lr, decay):
        n = len(layers)
        made = [{"params": [], "lr": rate(base_lr, decay, i, n)} for i in range(n)]
        for name, parameter in model.named_parameters():
            layer = next((i for i, prefix in enumerate(layers) if matches(name, prefix)), left_in)
            if layer is not None:
                made[layer]["params"] += takes(name, parameter)
        return result(made)

    return answer


plant(GROUPS, r"`stem\.0\.weight` is in no group. It would never be trained", "forgets_the_stem", groups(left_in=None))  # P11
plant(GROUPS, "belongs to the first group", "leftovers_at_the_top", groups(left_in=-1))
plant(GROUPS, "blocks.1 takes blocks.10 too", "without_the_dot", groups(lambda name, layer: name.startswith(layer)))
plant(GROUPS, "decays the wrong way", "upside_down", groups(rate=lambda base_lr, decay, i, n: base_lr * decay**i))
plant(GROUPS, "one power too far", "head_decays_too", groups(rate=lambda base_lr, decay, i, n: base_lr * decay ** (n - i)))
plant(GROUPS, "gives every layer the same rate", "one_rate", groups(rate=lambda base_lr, decay, i, n: base_lr))
plant(GROUPS, "every layer below the head the same", "two_rates", groups(
    rate=lambda base_lr, decay, i, n: base_lr * (decay if i < n - 1 else 1)))  # fmt: skip
plant(GROUPS, "divides by decay", "divides", groups(rate=lambda base_lr, decay, i, n: base_lr / decay ** (n - 1 - i)))
plant(GROUPS, "lowers the rate by equal steps", "linear", groups(
    rate=lambda base_lr, decay, i, n: base_lr * (1 - (1 - decay) * (n - 1 - i))))  # fmt: skip
plant(GROUPS, "forgets base_lr", "no_base", groups(rate=lambda base_lr, decay, i, n: decay ** (n - 1 - i)))
plant(GROUPS, "frozen now, and could never be unfrozen", "trainable_only", groups(
    takes=lambda name, p: [p] if p.requires_grad else []))  # fmt: skip
plant(GROUPS, "something that is not a parameter", "names", groups(takes=lambda name, p: [name]))
plant(GROUPS, "come in another order than the layers", "head_first", groups(result=lambda made: made[::-1]))
plant(GROUPS, r"a list of dicts with \"params\" and \"lr\"", "a_dict", groups(result=lambda made: {g["lr"]: g["params"] for g in made}))
plant(GROUPS, "make it a list, which can be read more than once", "generators", groups(
    result=lambda made: [{**g, "params": (p for p in g["params"])} for g in made]))  # fmt: skip
plant(GROUPS, "2 are expected, one a layer", "a_group_a_parameter", groups(
    result=lambda made: [{"params": [p], "lr": g["lr"]} for g in made for p in g["params"]]))  # fmt: skip
plant(GROUPS, r"`\S+` is in more than one group", "everything_and_the_head", groups(
    result=lambda made: [{**made[0], "params": made[0]["params"] + made[-1]["params"]}, *made[1:]]))  # fmt: skip
plant(GROUPS, "It freezes parameters", "freezes_below_the_head", groups(
    result=lambda made: [p.requires_grad_(False) for p in made[0]["params"]] and made))  # fmt: skip


# ---------------------------------------------------------------- distillation


def distilling(
    factor=lambda t: t**2,
    student=lambda s, t: (s / t).log_softmax(1),
    teacher=lambda s, t: (s.detach() / t).softmax(1),
    soft=lambda q, p: F.kl_div(q, p, reduction="batchmean"),
    hard=lambda s, labels, t: F.cross_entropy(s, labels),
    weights=lambda alpha: (alpha, 1 - alpha),
):
    """The right answer with one part of it replaced."""

    def answer(s, t, labels, *, temperature=4.0, alpha=0.5):
        a, b = weights(alpha)
        return a * factor(temperature) * soft(student(s, temperature), teacher(t, temperature)) + b * hard(s, labels, temperature)

    return answer


plant(LOSS, "forgets the factor T²", "no_factor", distilling(factor=lambda t: 1))
plant(LOSS, "multiplies by T where", "factor_t", distilling(factor=lambda t: t))
plant(LOSS, "divides by T² instead", "divided", distilling(factor=lambda t: t**-2))
plant(LOSS, "swaps the two distributions", "swapped", distilling(soft=lambda q, p: F.kl_div(p.log(), q.exp(), reduction="batchmean")))
plant(LOSS, "averages over all B·K entries", "mean", distilling(soft=lambda q, p: F.kl_div(q, p, reduction="mean")))
plant(LOSS, "sums over the batch instead", "summed", distilling(soft=lambda q, p: F.kl_div(q, p, reduction="sum")))
plant(LOSS, "without the teacher's own entropy", "soft_cross_entropy", distilling(soft=lambda q, p: -(p * q).sum(1).mean()))
plant(LOSS, "softens the student alone", "hard_teacher", distilling(teacher=lambda s, t: s.detach().softmax(1)))
plant(LOSS, "softens the teacher alone", "hard_student", distilling(student=lambda s, t: s.log_softmax(1)))
plant(LOSS, "does not soften at all", "no_temperature", distilling(
    student=lambda s, t: s.log_softmax(1), teacher=lambda s, t: s.detach().softmax(1)))  # fmt: skip
plant(LOSS, "multiplies the logits by T", "sharpened", distilling(
    student=lambda s, t: (s * t).log_softmax(1), teacher=lambda s, t: (s.detach() * t).softmax(1)))  # fmt: skip
plant(LOSS, "the hard loss is taken at T = 1", "soft_labels_too", distilling(hard=lambda s, labels, t: F.cross_entropy(s / t, labels)))
plant(LOSS, "swaps the weights", "alpha_reversed", distilling(weights=lambda alpha: (1 - alpha, alpha)))
plant(LOSS, "without the weights", "unweighted", distilling(weights=lambda alpha: (1, 1)))
plant(LOSS, "leaves out the labels", "teacher_only", distilling(weights=lambda alpha: (alpha, 0)))
plant(LOSS, "takes the softmax of the student", "probabilities", distilling(student=lambda s, t: (s / t).softmax(1)))
plant(LOSS, "squared difference", "mse_of_logits", lambda s, t, labels, *, temperature=4.0, alpha=0.5: (
    alpha * temperature**2 * F.mse_loss(s, t.detach()) + (1 - alpha) * F.cross_entropy(s, labels)))  # fmt: skip
plant(LOSS, "A gradient flows into the teacher", "trains_the_teacher", distilling(teacher=lambda s, t: (s / t).softmax(1)))
plant(LOSS, "cuts the gradient of the student", "no_gradient", lambda s, t, labels, **options: (
    distilling()(s.detach(), t, labels, **options)))  # fmt: skip
plant(LOSS, "the gradient of the student's logits", "half_the_gradient", lambda s, t, labels, **options: (
    distilling()((s + s.detach()) / 2, t, labels, **options)))  # fmt: skip
plant(LOSS, "not finite for logits in the hundreds", "log_of_softmax", distilling(student=lambda s, t: (s / t).softmax(1).log()))
plant(LOSS, "temperature=4 and alpha=0.5", "other_defaults", lambda s, t, labels, *, temperature=2.0, alpha=0.5: (
    distilling()(s, t, labels, temperature=temperature, alpha=alpha)))  # fmt: skip
plant(LOSS, "dtype torch.float32 where torch.float64", "single_precision_loss", lambda s, t, labels, **options: (
    distilling()(s.float(), t.float(), labels, **options)))  # fmt: skip
plant(LOSS, r"normalises over the batch \(dim 0\)", "wrong_dimension", distilling(
    student=lambda s, t: (s / t).log_softmax(0), teacher=lambda s, t: (s.detach() / t).softmax(0)))  # fmt: skip


def other_activation(model, name):
    if name == "classifier.3":
        model.classifier[1] = nn.ReLU()
    return model


plant(HEAD, "the model has other modules than before", "another_activation", new_head(after=other_activation))
