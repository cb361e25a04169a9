from conftest_registry import call as call
