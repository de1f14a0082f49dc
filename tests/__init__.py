import pytest

# It is imported by test modules before pytest would look at it.
pytest.register_assert_rewrite("tests.cli_support")
