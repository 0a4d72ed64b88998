"""Asks a Ray cluster's control store (GCS), within seconds, whether it lives, whom it admits, and what nodes it has.

Ray itself retries an address where nobody answers for minutes, and a machine without a node of the cluster for one.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc

from distseq.cluster.ray.address import check_format

SECONDS = 5.0  # for each question, and for the connection: a control store that lives answers within milliseconds
# Ray's own channels ignore http_proxy too: a proxy does not pass gRPC on.
DIRECT = (("grpc.enable_http_proxy", 0),)


def admits(address: str, token: str | None) -> bool:
    """Whether the control store at HOST:PORT answers a client with this token, or without any (None).

    ValueError if there is none.
    """
    host, port = check_format(address)
    # First a plain connection, whose errors say more than those of gRPC.
    connect(host, port, address)
    try:
        with _channel(address) as channel:
            _nodes(channel).CheckAlive(gcs_service_pb2.CheckAliveRequest(), timeout=SECONDS, metadata=_sent(token))
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            return False
        raise ValueError(
            f"what listens at {address} is no Ray cluster's control store ({error.code().name}): its port is 6379 unless "
            "`ray start --port` says otherwise"
        ) from None
    return True


def connect(host: str, port: int, address: str) -> None:
    """ValueError unless something accepts connections at host and port."""
    try:
        socket.create_connection((host, port), SECONDS).close()
    except OSError as error:
        raise ValueError(f"no Ray cluster at {address}: {error.strerror or error}") from None


def nodes(address: str, token: str | None) -> dict[str, str]:
    """Of the cluster's nodes that are alive: id in hexadecimal -> IP address. ValueError if they cannot be listed."""
    request = gcs_service_pb2.GetAllNodeInfoRequest(state_filter=gcs_pb2.GcsNodeInfo.GcsNodeState.ALIVE)
    try:
        with _channel(address) as channel:
            found = _nodes(channel).GetAllNodeInfo(request, timeout=SECONDS, metadata=_sent(token))
    except grpc.RpcError as error:
        raise ValueError(f"cannot list the nodes of the Ray cluster at {address}: {error.code().name}") from None
    return {node.node_id.hex(): node.node_manager_address for node in found.node_info_list}


def _nodes(channel: Any) -> Any:
    return gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)


def _sent(token: str | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else (("authorization", f"Bearer {token}"),)


@contextmanager
def _channel(address: str) -> Iterator[Any]:
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        from ray._common.tls_utils import load_certs_from_env

        chain, key, ca = load_certs_from_env()
        credentials = grpc.ssl_channel_credentials(certificate_chain=chain, private_key=key, root_certificates=ca)
        made = grpc.secure_channel(address, credentials, DIRECT)
    else:
        made = grpc.insecure_channel(address, DIRECT)
    with made as channel:
        yield channel
