"""TLS towards backends (pyOpenSSL through Twisted)."""

from OpenSSL.SSL import Connection
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from comfyproxy.core.backend import Backend


def verified(backend: Backend, host: str) -> IOpenSSLClientConnectionCreator:
    """Connections whose certificate must be valid for ``host`` and come from an authority this machine trusts."""
    return optionsForClientTLS(host)


def unverified(backend: Backend, host: str) -> IOpenSSLClientConnectionCreator:
    """Connections that are encrypted and no more (``--insecure-backends``): whoever answers is believed."""
    return _Unverified(host)


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
