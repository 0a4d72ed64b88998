"""What the tests of submitted jobs share."""

from collections.abc import Iterator

import pytest

from tests.cluster.ray.head import Cluster, head


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with head() as found:
        yield found
