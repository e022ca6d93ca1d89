"""The likelihood keeps its contract: run `pytest` in this folder."""

from losses import StudentT

from harness.testing import check_likelihood


def test_student_t_is_a_likelihood() -> None:
    for df in (1, 3, 30):
        check_likelihood(StudentT, df=df)
