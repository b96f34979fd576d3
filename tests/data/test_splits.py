"""Splits: every class keeps its share, no index twice, the same on every machine, and a file that is checked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcourse.data import Split, load_split, save_split, stratified_split

counts = st.lists(st.integers(3, 60), min_size=1, max_size=6)
fractions = st.floats(0.02, 0.48)


@settings(max_examples=120, deadline=None)
@given(counts, fractions, fractions, st.integers(0, 2**32 - 1))
def test_parts_are_disjoint_complete_and_stratified(counts, val, test, seed):
    labels = np.random.RandomState(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    split = stratified_split(labels, val=val, test=test, seed=seed)
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(len(labels)))
    for part, fraction in zip(split, (1 - val - test, val, test), strict=True):
        assert part.dtype == np.int64
        assert np.all(np.diff(part) > 0)
        for label, count in enumerate(counts):
            held = np.count_nonzero(labels[part] == label)
            assert held >= 1
            # one sample a class and part is guaranteed, which may take up to two from the others
            assert abs(held - count * fraction) < (1 + 1e-6 if count * min(val, test) >= 1 else 3)


@given(counts, st.integers(0, 1000))
def test_the_same_seed_gives_the_same_split_for_any_kind_of_label(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    want = stratified_split(labels, seed=seed)
    for same in (labels.tolist(), torch.from_numpy(labels), [f"{label:02}" for label in labels]):
        for a, b in zip(want, stratified_split(same, seed=seed), strict=True):
            assert np.array_equal(a, b)


def test_the_split_is_known_and_depends_on_the_seed():
    labels = ["a"] * 10 + ["b"] * 5
    split = stratified_split(labels, val=0.2, test=0.2, seed=0)
    assert [part.tolist() for part in split] == [[1, 2, 4, 6, 8, 9, 10, 11, 12], [3, 7, 13], [0, 5, 14]]
    assert any(not np.array_equal(split.train, stratified_split(labels, 0.2, 0.2, seed=s).train) for s in (1, 2))


def test_the_defaults_are_a_tenth_and_a_fifth():
    assert [len(part) for part in stratified_split([0] * 100 + [1] * 50)] == [105, 15, 30]


def test_an_exact_share_is_not_lost_to_rounding():
    assert [len(part) for part in stratified_split([0] * 100, val=0.29, test=0.01)] == [70, 29, 1]


@pytest.mark.parametrize("kept", ["val", "test"])
def test_a_part_that_is_not_wanted_is_empty(kept):
    split = stratified_split([0] * 4 + [1] * 2, **{"val": 0, "test": 0, kept: 0.25})
    assert len(getattr(split, kept)) == 2
    assert len({"val": split.test, "test": split.val}[kept]) == 0
    assert len(split.train) == 4


def test_with_no_parts_everything_is_for_training():
    assert stratified_split([0, 1, 1], val=0, test=0).train.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        (["cat"] * 9 + ["newt"], {}, r"class 'newt' has 1 sample\(s\).*train and val and test"),
        ([0] * 9 + [7] * 2, {}, r"class 7 has 2 sample"),
        ([0] * 9 + [7], {"test": 0}, r"class 7 has 1 sample.*train and val:"),
        ([0, 1], {"val": -0.1}, r"val=-0\.1"),
        ([0, 1], {"test": 1.0}, r"test=1\.0"),
        ([0, 1], {"val": float("nan")}, "val=nan"),
        ([0, 1], {"val": 0.5, "test": 0.5}, "leave nothing to train on"),
        ([], {}, "non-empty"),
        ([[0, 1], [1, 0]], {}, r"shape \(2, 2\)"),
    ],
)
def test_what_cannot_be_split_is_said(labels, options, says):
    with pytest.raises(ValueError, match=says):
        stratified_split(labels, **options)


@given(st.integers(3, 80), st.integers(0, 100))
def test_a_saved_split_reads_back_the_same(n, seed):
    import tempfile
    from pathlib import Path

    split = stratified_split([0] * n, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        save_split(Path(folder) / "split.csv", split)
        back = load_split(Path(folder) / "split.csv")
    assert isinstance(back, Split)
    for a, b in zip(split, back, strict=True):
        assert b.dtype == np.int64
        assert np.array_equal(a, b)


def test_the_file_is_plain_and_in_order(tmp_path):
    path = tmp_path / "split.csv"
    save_split(path, Split(np.array([2, 0]), np.array([3]), np.array([1])))
    assert path.read_bytes() == b"index,part\n0,train\n1,test\n2,train\n3,val\n"


def test_a_file_that_a_spreadsheet_saved_in_another_order_reads_the_same(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("part,index\ntrain,9\nval,2\ntrain,4\n", encoding="utf-8-sig")
    assert [part.tolist() for part in load_split(path)] == [[4, 9], [2], []]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("index,part\n0,train\n0,train\n", r"line 3: index 0 stands twice, in train and in train"),
        ("index,part\n0,train\n1,val\n0,test\n", r"line 4: index 0 stands twice, in train and in test"),
        ("index,part\n0,validation\n", r"line 2: part='validation' is not one of train, val, test"),
        ("index,part\n0\n", r"line 2: part=None"),
        ("index,part\n-1,train\n", r"line 2: index='-1' is not a whole number"),
        ("index,part\n1.0,train\n", r"index='1\.0'"),
        ("index,part\n²,train\n", "index='²'"),
        ("id,part\n1,train\n", r"columns \['id', 'part'\]; needs index and part"),
        ("", r"columns \[\]"),
    ],
)
def test_a_file_that_is_no_split_is_refused(tmp_path, text, says):
    path = tmp_path / "split.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        load_split(path)
