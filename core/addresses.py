"""Addresses that a service may have: of the public network, and of nothing behind it."""

import ipaddress

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 addresses as NAT64 writes them."""


def is_public(address: str) -> bool:
    """Whether an address is one of the public network.

    Those of this machine, of private and local networks, of links, of groups, and what is reserved
    are not; neither is an IPv6 address within which one of these is written.

    Args:
        address: As ``getaddrinfo`` gives it, perhaps with a zone.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        within = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _TRANSLATED:
            within.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if any(inner is not None and not is_public(str(inner)) for inner in within):
            return False
        if ip.ipv4_mapped is not None or ip in _TRANSLATED:
            return True
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine and of no network."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def host_and_port(text: str) -> tuple[str, int]:
    """A host as an allow-list has it: ``api.example.org``, ``localhost:8080``, ``[::1]:8080``.

    Returns:
        The host in small letters, without brackets, and the port; 443 where none is named.

    Raises:
        ValueError: It is something else.
    """
    text = text.strip().lower()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not bracket or not is_ip(host) or (rest and colon != ":"):
            raise ValueError(f"{text!r} is no host")
    else:
        host, colon, port = text.partition(":")
    allowed = "abcdefghijklmnopqrstuvwxyz0123456789.-_" if ":" not in host else "0123456789abcdef:."
    if not host or set(host) - set(allowed) or (colon and not port.isdecimal()):
        raise ValueError(f"{text!r} is no host; write api.example.org or localhost:8080")
    return host, int(port) if colon else 443


def is_ip(text: str) -> bool:
    """Whether a text is an address rather than a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
