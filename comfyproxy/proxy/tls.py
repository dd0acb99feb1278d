"""TLS towards backends (pyOpenSSL through Twisted)."""

from OpenSSL.SSL import Connection
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from comfyproxy.core.balancing.backend import Backend


def client_tls(backend: Backend) -> IOpenSSLClientConnectionCreator:
    """The client's side of TLS connections to ``backend``.

    Its certificate must be valid for its host and come from an authority that this machine trusts, unless
    its pool was said to be insecure (``--insecure-backends``): then whoever answers is believed.
    """
    host = backend.address.host
    return optionsForClientTLS(host) if backend.verify else _Unverified(host)


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    def __init__(self, host: str) -> None:
        self._context = CertificateOptions(verify=False).getContext()
        self._name = None if host.replace(".", "").isdigit() or ":" in host else host.encode("idna")

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:
        connection = Connection(self._context, None)
        if self._name is not None:
            connection.set_tlsext_host_name(self._name)
        return connection
