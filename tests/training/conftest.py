import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Two threads of OpenMP on a busy machine wait for each other longer than they work."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield
