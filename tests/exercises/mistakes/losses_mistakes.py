"""Wrong answers to the exercises on losses."""

import torch
import torch.nn.functional as F
from planting import mistake


@mistake("losses.cross_entropy", says="takes the softmax twice")
def softmax_before_cross_entropy(logits, labels):
    return F.cross_entropy(logits.softmax(1), labels)


@mistake("losses.cross_entropy", says=r"overflows.*Subtract each row's maximum")
def exponentials_as_in_the_textbook(logits, labels):
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -p[torch.arange(len(labels)), labels].log().mean()


@mistake("losses.cross_entropy", says="clips the probability")
def epsilon_in_the_logarithm(logits, labels):
    p = logits.softmax(1)[torch.arange(len(labels)), labels]
    return -(p + 1e-8).log().mean()


@mistake("losses.cross_entropy", says=r"normalises over the batch \(dim 0\)")
def wrong_dimension(logits, labels):
    return F.nll_loss(logits.log_softmax(0), labels)


@mistake("losses.cross_entropy", says="sums over the batch")
def sums(logits, labels):
    return F.cross_entropy(logits, labels, reduction="sum")


@mistake("losses.cross_entropy", says=r"divides by N·K")
def averages_over_one_hot_products(logits, labels):
    return -(F.one_hot(labels, logits.shape[1]) * logits.log_softmax(1)).mean()


@mistake("losses.cross_entropy", says="forgets the minus sign")
def no_minus(logits, labels):
    return logits.log_softmax(1)[torch.arange(len(labels)), labels].mean()


@mistake("losses.cross_entropy", says=r"picks \[:, labels\]")
def picks_a_table(logits, labels):
    return -logits.log_softmax(1)[:, labels].mean()


@mistake("losses.cross_entropy", says="without the logarithm")
def probabilities_into_nll(logits, labels):
    return F.nll_loss(logits.softmax(1), labels)


@mistake("losses.cross_entropy", says="treats the logits as log-probabilities")
def logits_into_nll(logits, labels):
    return F.nll_loss(logits, labels)


@mistake("losses.cross_entropy", says="cuts the graph")
def through_numpy(logits, labels):
    return F.cross_entropy(torch.from_numpy(logits.detach().numpy()), labels)


@mistake("losses.cross_entropy", says="one loss a sample")
def no_reduction(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")


@mistake("losses.kl_divergence", says=r"averages over all N·K entries")
def default_reduction(log_q, p):
    return (torch.xlogy(p, p) - p * log_q).mean()


@mistake("losses.kl_divergence", says="sums over the batch")
def summed(log_q, p):
    return (torch.xlogy(p, p) - p * log_q).sum()


@mistake("losses.kl_divergence", says=r"swaps the two distributions")
def swapped(log_q, p):
    return (log_q.exp() * (log_q - p.log())).sum(1).mean()


@mistake("losses.kl_divergence", says="sign wrong")
def negative(log_q, p):
    return (p * log_q - torch.xlogy(p, p)).sum(1).mean()


@mistake("losses.kl_divergence", says="this is the cross-entropy")
def only_the_cross_entropy(log_q, p):
    return -(p * log_q).sum(1).mean()


@mistake("losses.kl_divergence", says="logarithm of log_q once more")
def log_of_log(log_q, p):
    return (p * (p.log() - log_q.log())).sum(1).mean()


@mistake("losses.kl_divergence", says="nan where a target probability is 0")
def nan_at_zero(log_q, p):
    return (p * (p.log() - log_q)).sum(1).mean()


@mistake("losses.kl_divergence", says="applies the exponential")
def difference_of_log_and_probability(log_q, p):
    return (p * (p.log() - log_q.exp())).sum(1).mean()


@mistake("losses.kl_divergence", says="one value a sample")
def per_sample(log_q, p):
    return (torch.xlogy(p, p) - p * log_q).sum(1)


@mistake("losses.kl_divergence", says="cuts the graph")
def detached(log_q, p):
    return F.kl_div(log_q.detach(), p, reduction="batchmean")


@mistake("losses.cross_entropy", says="has dtype torch.float32 where torch.float64")
def always_single_precision(logits, labels):
    return F.cross_entropy(logits.float(), labels)


@mistake("losses.cross_entropy", says=r"overflows\. Given tensor \[\[1000\.0, 0\.0\], \[2\.0, 0\.0\]\]")
def subtracts_the_maximum_of_the_batch(logits, labels):
    shifted = logits - logits.max()
    return -(shifted - shifted.exp().sum(1, keepdim=True).log())[torch.arange(len(labels)), labels].mean()


@mistake("losses.cross_entropy", says="divides by K")
def divides_by_the_classes(logits, labels):
    return F.cross_entropy(logits, labels, reduction="sum") / logits.shape[1]


@mistake("losses.cross_entropy", says=r"the gradient for the logits is")
def right_value_wrong_gradient(logits, labels):
    return F.cross_entropy(2 * logits - logits.detach(), labels)


@mistake("losses.kl_divergence", says="leaves out the whole row")
def drops_rows(log_q, p):
    rows = (p > 0).all(1) if bool((p > 0).all(1).any()) else slice(None)
    return F.kl_div(log_q[rows], p[rows], reduction="batchmean")


@mistake("losses.kl_divergence", says=r"adds 0\.001 inside the logarithm")
def visible_constant(log_q, p):
    return (p * ((p + 1e-3).log() - log_q)).sum(1).mean()


@mistake("losses.kl_divergence", says=r"adds 1e-06 inside the logarithm.*the result is 0\.6142346 where 0\.6142316")
def small_constant(log_q, p):
    return (p * ((p + 1e-6).log() - log_q)).sum(1).mean()


@mistake("losses.kl_divergence", says="averages over the classes: it is the other way round")
def the_other_way_round(log_q, p):
    return (torch.xlogy(p, p) - p * log_q).sum(0).mean()
