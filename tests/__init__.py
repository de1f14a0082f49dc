import pytest

# They are imported by test modules before pytest would look at them.
pytest.register_assert_rewrite(
    *("tests.support.cli", "tests.support.peer"),
    *("tests.support.gpu.fake_cupy", "tests.support.gpu.fake_gpus"),
)
