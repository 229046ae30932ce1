import gzip

import numpy as np
import pytest

from jaxnas.data import glue as glue_files
from jaxnas.data.dataset import DataError
from jaxnas.data.glue import TASKS, glue

SIZES = {
    "cola": (8_551, 1_043),
    "rte": (2_490, 277),
    "wnli": (635, 71),
    "stsb": (5_749, 1_500),
    "mrpc": (4_076, 1_725),
}


@pytest.fixture
def task(real):
    def load(name):
        layout = glue_files._LAYOUTS[name]
        for file in layout.files:
            real(f"glue/{layout.folder}/{file}.gz")
        return glue(name)

    return load


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_official_ones(task, name):
    loaded = task(name)
    for part, size in zip((loaded.train, loaded.dev), SIZES[name], strict=True):
        assert len(part.first) == len(part.labels) == size
        assert len(part.second) == (0 if name == "cola" else size)
        assert all(part.first)
        assert all(part.second)


@pytest.mark.parametrize("name", ["cola", "rte", "wnli", "mrpc"])
def test_labels_are_two_classes(task, name):
    loaded = task(name)
    assert len(loaded.classes) == 2
    for part in (loaded.train, loaded.dev):
        assert part.labels.dtype == np.int32
        assert set(part.labels.tolist()) == {0, 1}


def test_always_answering_the_larger_class_scores_the_known_accuracies(task):
    """The floors of the tables: WNLI 56.3, RTE 52.7, CoLA 69.1, MRPC (original test) 66.5."""
    for name, share in (("wnli", 56.3), ("rte", 52.7), ("cola", 69.1), ("mrpc", 66.5)):
        labels = task(name).dev.labels
        assert abs(100 * max(labels.mean(), 1 - labels.mean()) - share) < 0.05


def test_the_first_example_of_each_task_reads_as_published(task):
    rte, cola, stsb, mrpc = (task(name) for name in ("rte", "cola", "stsb", "mrpc"))
    assert rte.train.first[0] == "No Weapons of Mass Destruction Found in Iraq Yet."
    assert rte.train.second[0] == "Weapons of Mass Destruction Found in Iraq."
    assert rte.classes[rte.train.labels[0]] == "not_entailment"
    assert cola.train.first[1] == "One more pseudo generalization and I'm giving up."
    assert (stsb.train.second[1], stsb.train.labels[1]) == (
        "A man is playing a flute.",
        np.float32(3.8),
    )
    assert mrpc.train.first[0].startswith(
        'Amrozi accused his brother, whom he called "the witness"'
    )


def test_scores_of_the_regression_span_nought_to_five(task):
    loaded = task("stsb")
    assert loaded.classes == ()
    assert loaded.metric == "spearman"
    assert loaded.train.labels.dtype == np.float32
    assert (loaded.train.labels.min(), loaded.train.labels.max()) == (0, 5)


def test_an_unknown_task_is_refused():
    with pytest.raises(
        ValueError, match="`task` must be one of cola, rte, wnli, stsb, mrpc, but is 'sst'"
    ):
        glue("sst")


@pytest.mark.parametrize("name", TASKS)
def test_an_absent_task_says_how_to_get_it(folder, name):
    with pytest.raises(DataError, match=r"not found in .*gluebenchmark\.com.*JAXNAS_DATA"):
        glue(name)


HEADER = "index\tsentence1\tsentence2\tlabel\n"
LINE = "0\tA.\tB.\t1\n"


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (gzip.compress((HEADER + 635 * LINE).encode())[:-9], "cannot be read whole"),
        (b"\xff\xfe", "it is no text"),
        (b"", "it holds 0 examples, not 635"),
        ((HEADER + 634 * LINE).encode(), "it holds 634 examples, not 635"),
        ((HEADER + LINE + "1\tA.\tB.\n").encode(), "line 3 has 3 columns, not 4"),
        ((HEADER + LINE + "\n" + LINE).encode(), "line 3 has 1 columns, not 4"),
        (
            (HEADER + 634 * LINE + "0\tA.\tB.\t2\n").encode(),
            "the label of line 636 is '2', not one of 0, 1",
        ),
        ((HEADER + 634 * LINE + "0\tA.\tB.\t\n").encode(), "the label of line 636 is ''"),
    ],
)
def test_a_file_that_is_not_the_task_is_refused(folder, raw, cause):
    path = folder / "glue" / "WNLI" / "train.tsv"
    path.parent.mkdir(parents=True)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=rf"WNLI/train\.tsv: .*{cause}"):
        glue("wnli")


@pytest.mark.parametrize("score", ["5.1", "-1", "nan", "x"])
def test_a_score_out_of_range_is_refused(folder, score):
    path = folder / "glue" / "STS-B" / "train.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("h\n" + 5748 * ("a\t" * 9 + "1\n") + "a\t" * 9 + f"{score}\n")
    with pytest.raises(DataError, match=rf"the label of line 5750 is '{score}', not within 0\.\.5"):
        glue("stsb")


def test_line_ends_of_windows_quotes_and_odd_separators_stay_out_of_the_way(folder):
    lines = HEADER + 634 * LINE + '0\tSays "A\u2028and\u0085B.\tB "C.\t0\n'
    path = folder / "glue" / "WNLI" / "train.tsv"
    path.parent.mkdir(parents=True)
    path.write_bytes(lines.replace("\n", "\r\n").encode("utf-8-sig"))
    (path.parent / "dev.tsv.gz").write_bytes(gzip.compress((HEADER + 71 * LINE).encode()))
    train = glue("wnli").train
    assert (train.first[-1], train.second[-1]) == ('Says "A\u2028and\u0085B.', 'B "C.')
    assert train.labels[-2:].tolist() == [1, 0]
