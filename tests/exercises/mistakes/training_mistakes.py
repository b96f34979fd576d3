"""Wrong answers to the exercises on training."""

import torch
from planting import mistake


@mistake("training.train_one_epoch", says="never sets the gradients to zero")
def no_zero_grad(model, loader, loss_fn, optimizer):
    model.train()
    total = count = 0
    for x, y in loader:
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        total, count = total + loss.item() * len(y), count + len(y)
    return total / count


@mistake("training.train_one_epoch", says=r"does not call model.train\(\)")
def no_train_mode(model, loader, loss_fn, optimizer):
    total = count = 0
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        total, count = total + loss.item() * len(y), count + len(y)
    return total / count


@mistake("training.train_one_epoch", says="averages the batch means")
def mean_of_means(model, loader, loss_fn, optimizer):
    model.train()
    losses = []
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@mistake("training.train_one_epoch", says=r"never changes the weights")
def step_is_missing(model, loader, loss_fn, optimizer):
    model.train()
    total = count = 0
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        total, count = total + loss.item() * len(y), count + len(y)
    return total / count


@mistake("training.train_one_epoch", says="runs while the gradients are zero")
def zero_grad_after_backward(model, loader, loss_fn, optimizer):
    model.train()
    total = count = 0
    for x, y in loader:
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
        total, count = total + loss.item() * len(y), count + len(y)
    return total / count


@mistake("training.train_one_epoch", says="steps once after the loop: one update")
def step_outside_the_loop(model, loader, loss_fn, optimizer):
    model.train()
    total = count = 0
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        total, count = total + loss.item() * len(y), count + len(y)
    optimizer.step()
    return total / count


@mistake("training.train_one_epoch", says="with its graph attached")
def returns_a_graph(model, loader, loss_fn, optimizer):
    model.train()
    total, count = 0, 0
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        total, count = total + loss * len(y), count + len(y)
    return total / count


@mistake("training.train_one_epoch", says="loss of the last batch")
def last_loss(model, loader, loss_fn, optimizer):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()


@mistake("training.train_one_epoch", says="samples that drop_last left out")
def size_of_the_data_set(model, loader, loss_fn, optimizer):
    model.train()
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(y)
    return total / len(loader.dataset)


@mistake("training.train_one_epoch", says="measures the loss after the update")
def measures_late(model, loader, loss_fn, optimizer):
    model.train()
    total = count = 0
    for x, y in loader:
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()
        total, count = total + loss_fn(model(x), y).item() * len(y), count + len(y)
    return total / count


@mistake("training.train_one_epoch", says="sums the batch losses")
def summed_losses(model, loader, loss_fn, optimizer):
    model.train()
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total


def scores(predicted, targets):
    squares = ((targets - predicted) ** 2).sum() / ((targets - targets.mean()) ** 2).sum()
    return (targets - predicted).abs().mean().item(), 1 - squares.item()


@torch.no_grad()
def predict(model, loader):
    was = model.training
    model.eval()
    pairs = [(model(x).squeeze(1), y) for x, y in loader]
    model.train(was)
    return pairs


def joined(pairs):
    return [torch.cat(parts) for parts in zip(*pairs, strict=True)]


@mistake("training.evaluate_regression", says=r"does not call model.eval\(\)")
def no_eval(model, loader):
    with torch.no_grad():
        return scores(*joined([(model(x).squeeze(1), y) for x, y in loader]))


@mistake("training.evaluate_regression", says="leaves the model in eval mode")
def stays_in_eval(model, loader):
    model.eval()
    with torch.no_grad():
        return scores(*joined([(model(x).squeeze(1), y) for x, y in loader]))


@mistake("training.evaluate_regression", says="leaves the model in train mode")
def always_back_to_train(model, loader):
    result = scores(*joined(predict(model, loader)))
    model.train()
    return result


@mistake("training.evaluate_regression", says="records a graph")
def records(model, loader):
    was = model.training
    model.eval()
    pairs = [(model(x).squeeze(1), y) for x, y in loader]
    model.train(was)
    return scores(*joined(pairs))


@mistake("training.evaluate_regression", says=r"leaves torch\.is_grad_enabled\(\) at False.*use `with torch\.no_grad\(\):`")
def switches_gradients_off(model, loader):
    torch.set_grad_enabled(False)
    return scores(*joined(predict(model, loader)))


@mistake("training.evaluate_regression", says=r"subtracts \(B,\) from \(B, 1\)")
def broadcasts(model, loader):
    was, errors, squares, targets = model.training, 0.0, 0.0, []
    model.eval()
    with torch.no_grad():
        for x, y in loader:
            difference = y - model(x)
            errors += difference.abs().mean().item() * len(y)
            squares += (difference**2).sum().item()
            targets.append(y)
    model.train(was)
    y = torch.cat(targets)
    return errors / len(y), 1 - squares / ((y - y.mean()) ** 2).sum().item()


@mistake("training.evaluate_regression", says="averages the R² of the batches")
def mean_r2(model, loader):
    pairs = predict(model, loader)
    return scores(*joined(pairs))[0], sum(scores(*pair)[1] for pair in pairs) / len(pairs)


@mistake("training.evaluate_regression", says="averages the batches' MAE: the small last batch")
def mean_mae(model, loader):
    pairs = predict(model, loader)
    return sum(scores(*pair)[0] for pair in pairs) / len(pairs), scores(*joined(pairs))[1]


@mistake("training.evaluate_regression", says="mean squared error where")
def squared_error(model, loader):
    p, y = joined(predict(model, loader))
    return ((p - y) ** 2).mean().item(), scores(p, y)[1]


@mistake("training.evaluate_regression", says="Σ y² below the line")
def around_zero(model, loader):
    p, y = joined(predict(model, loader))
    return scores(p, y)[0], 1 - (((p - y) ** 2).sum() / (y**2).sum()).item()


@mistake("training.evaluate_regression", says="squared correlation")
def correlation(model, loader):
    p, y = joined(predict(model, loader))
    return scores(p, y)[0], torch.corrcoef(torch.stack([p, y]))[0, 1].item() ** 2


@mistake("training.evaluate_regression", says="unexplained share")
def unexplained(model, loader):
    p, y = joined(predict(model, loader))
    return scores(p, y)[0], 1 - scores(p, y)[1]


def right_epoch(model, loader, loss_fn, optimizer):
    model.train()
    total = count = 0
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        total, count = total + loss.item() * len(y), count + len(y)
    return total / count


@mistake("training.train_one_epoch", says="optimizer of its own")
def own_optimizer(model, loader, loss_fn, optimizer):
    return right_epoch(model, loader, loss_fn, torch.optim.SGD(model.parameters(), lr=0.1))


@mistake("training.train_one_epoch", says="loss of its own")
def own_loss(model, loader, loss_fn, optimizer):
    return right_epoch(model, loader, torch.nn.functional.mse_loss, optimizer)


@mistake("training.train_one_epoch", says="the predictions come first")
def swapped_arguments(model, loader, loss_fn, optimizer):
    return right_epoch(model, loader, lambda predicted, targets: loss_fn(targets, predicted), optimizer)


@mistake("training.train_one_epoch", says="first batch alone")
def first_batch(model, loader, loss_fn, optimizer):
    return right_epoch(model, [next(iter(loader))], loss_fn, optimizer)


@mistake("training.evaluate_regression", says="sums the absolute errors")
def summed_errors(model, loader):
    p, y = joined(predict(model, loader))
    return (p - y).abs().sum().item(), scores(p, y)[1]


@mistake("training.evaluate_regression", says="n − 1")
def unbiased_variance(model, loader):
    p, y = joined(predict(model, loader))
    return scores(p, y)[0], 1 - (((p - y) ** 2).mean() / y.var()).item()


@mistake("training.evaluate_regression", says=r"squeeze\(\) takes the batch axis away too")
@torch.no_grad()
def squeezes_too_much(model, loader):
    was = model.training
    model.eval()
    pairs = [(model(x).squeeze(), y) for x, y in loader]
    model.train(was)
    return scores(*joined(pairs))


@mistake("training.evaluate_regression", says="leaves the model frozen")
def freezes(model, loader):
    model.requires_grad_(False)
    return scores(*joined(predict(model, loader)))


@mistake("training.evaluate_regression", says="changes the model's weights")
def changes_the_weights(model, loader):
    with torch.no_grad():
        model.linear.weight += 1
    return scores(*joined(predict(model, loader)))
