"""A Ray cluster of two CPUs on this machine, which one module of tests shares."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cluster_of_two() -> Iterator[str]:
    """Start a cluster, connect this process, and give the cluster's address."""
    import ray

    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield context.address_info["address"]
    finally:
        ray.shutdown()
