"""Right answers to the exercises on transfer learning, in other styles than the references'."""

import numpy as np
import torch
from planting import right_answer
from torch import nn
from torch.nn import functional as F

from dlcourse import training


@right_answer("transfer.replace_head")
def package_replace_head(model, num_classes):
    return training.replace_head(model, num_classes)


@right_answer("transfer.replace_head")
def head_family_by_family(model, num_classes):
    if hasattr(model, "fc"):
        model.fc = nn.Linear(model.fc.in_features, num_classes).to(model.fc.weight)
    elif hasattr(model, "classifier"):
        old = model.classifier[-1]
        model.classifier[-1] = nn.Linear(old.in_features, num_classes, dtype=old.weight.dtype)
    elif hasattr(model, "heads"):
        old = model.heads.head
        model.heads.head = nn.Linear(old.in_features, num_classes, dtype=old.weight.dtype)
    else:
        old = model.get_classifier()
        model.classif = nn.Linear(old.in_features, num_classes, dtype=old.weight.dtype)
    return model


@right_answer("transfer.replace_head")
def head_as_the_last_linear_layer(model, num_classes):
    name, old = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    new = nn.Linear(old.in_features, num_classes).to(old.weight.dtype)
    nn.init.zeros_(new.weight)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
    return model


@right_answer("transfer.freeze")
def freeze_by_the_package(model, prefix):
    names = training.finetune.parameters_under(model, prefix)
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad = False
    return names


@right_answer("transfer.freeze")
def freeze_by_lists_of_names(model, prefix):
    path, frozen = prefix.split("."), []
    for name, parameter in model.named_parameters():
        if name.split(".")[: len(path)] == path:
            parameter.requires_grad_(False)
            frozen.append(name)
    if len(frozen) == 0:
        raise ValueError("nothing under " + prefix)
    return frozen


@right_answer("transfer.freeze")
def freeze_in_two_cases(model, prefix):
    chosen = {n: p for n, p in model.named_parameters() if n == prefix or n.startswith(prefix + ".")}
    if not chosen:
        raise ValueError(f"prefix={prefix} matches none of {[n for n, _ in model.named_children()]}")
    for p in chosen.values():
        p.requires_grad = False
    return tuple(chosen)


@right_answer("transfer.layerwise_groups")
def groups_layer_by_layer(model, layers, *, base_lr, decay):
    left, groups, lr = dict(model.named_parameters()), [], base_lr
    for layer in reversed(layers):
        names = [n for n in left if n == layer or n.startswith(layer + ".")]
        groups.insert(0, {"params": [left.pop(n) for n in names], "lr": lr})
        lr = lr * decay
    groups[0]["params"] += list(left.values())
    return groups


@right_answer("transfer.layerwise_groups")
def groups_from_numpy_rates(model, layers, *, base_lr, decay):
    rates = base_lr * np.power(decay, np.arange(len(layers))[::-1])
    where = {}
    for name, parameter in model.named_parameters():
        path = name.split(".")
        found = [i for i, layer in enumerate(layers) if path[: layer.count(".") + 1] == layer.split(".")]
        where.setdefault(found[0] if found else 0, []).append(parameter)
    return tuple({"params": where.get(i, []), "lr": float(rate), "name": layers[i]} for i, rate in enumerate(rates))


@right_answer("transfer.layerwise_groups")
def groups_by_submodules(model, layers, *, base_lr, decay):
    taken = {id(p) for layer in layers for p in model.get_submodule(layer).parameters()}
    groups = [{"params": [p for p in model.parameters() if id(p) not in taken], "lr": 0}]
    for i, layer in enumerate(layers):
        parameters = list(model.get_submodule(layer).parameters())
        if i == 0:
            groups[0]["params"] += parameters
        else:
            groups.append({"params": parameters, "lr": 0})
    for i, group in enumerate(reversed(groups)):
        group["lr"] = base_lr * decay**i
    return groups


@right_answer("transfer.distillation_loss")
def distillation_by_hand(student, teacher, labels, *, temperature=4.0, alpha=0.5):
    with torch.no_grad():
        log_p = torch.log_softmax(teacher / temperature, dim=-1)
    log_q = torch.log_softmax(student / temperature, dim=-1)
    kl = torch.einsum("bk,bk->b", log_p.exp(), log_p - log_q).mean()
    return torch.lerp(nn.CrossEntropyLoss()(student, labels), kl * temperature**2, alpha)


@right_answer("transfer.distillation_loss")
def distillation_with_log_targets(student, teacher, labels, *, temperature=4.0, alpha=0.5):
    kl = nn.KLDivLoss(reduction="batchmean", log_target=True)
    soft = kl(F.log_softmax(student / temperature, 1), F.log_softmax(teacher.detach() / temperature, 1))
    return alpha * temperature * temperature * soft + (1.0 - alpha) * F.nll_loss(student.log_softmax(1), labels)


@right_answer("transfer.distillation_loss")
def distillation_by_cross_entropies(student, teacher, labels, *, temperature=4.0, alpha=0.5):
    p = (teacher.data / temperature).softmax(1)
    soft = F.cross_entropy(student / temperature, p) + (p * p.log()).sum(1).mean()
    return alpha * temperature**2 * soft + (1 - alpha) * F.cross_entropy(student, labels)


@right_answer("transfer.distillation_loss")
def distillation_by_a_loop(student, teacher, labels, *, temperature=4.0, alpha=0.5):
    total = 0.0
    for s, t, label in zip(student, teacher.detach(), labels, strict=True):
        p, log_q = (t / temperature).softmax(0), (s / temperature).log_softmax(0)
        kl = sum(p[k] * (p[k].log() - log_q[k]) for k in range(len(p)))
        total = total + alpha * temperature**2 * kl - (1 - alpha) * s.log_softmax(0)[label]
    return total / len(labels)
