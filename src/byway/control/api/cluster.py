# SPDX-License-Identifier: Apache-2.0
"""What each call of the API about the cluster does: its state, and what all hosts share.

Used by app. Uses membership, bodies. These handlers do wait, for etcd; they touch no engine: what
is kept in the cluster comes to each switch by the way that all of its news take.
"""

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from byway.control.api.bodies import named_body
from byway.control.api.refusals import ApiError
from byway.control.membership import Membership


class ClusterApi:
    """The handlers. ``membership`` None: the switch is in no cluster."""

    def __init__(self, membership: Membership | None) -> None:
        self._membership = membership

    async def cluster(self) -> Response:
        """How the cluster is."""
        return JSONResponse(self._there().status())

    async def put_cluster_network(self, name: str, request: Request) -> Response:
        """Add a network to all hosts, or change it there; "vni": "auto" chooses a free one.

        Pauses no worker."""
        table = await named_body(request, {"name": name})
        return JSONResponse(await self._there().put_network(table))

    async def delete_cluster_network(self, name: str) -> Response:
        """Remove a network from all hosts. Pauses no worker."""
        await self._there().delete_network(name)
        return Response(status_code=204)

    async def put_cluster_port(self, host: str, name: str, request: Request) -> Response:
        """Add a port to a host, or change it there; "ips": "auto" chooses free ones.

        Pauses no worker."""
        table = await named_body(request, {"name": name})
        return JSONResponse(await self._there().put_port(host, table))

    async def delete_cluster_port(self, host: str, name: str) -> Response:
        """Remove a port from a host. Pauses no worker."""
        await self._there().delete_port(host, name)
        return Response(status_code=204)

    def _there(self) -> Membership:
        if self._membership is None:
            raise ApiError(404, "not-found", "the switch is in no cluster",
                           "add [cluster] to its configuration, or --cluster to byway run")
        return self._membership
