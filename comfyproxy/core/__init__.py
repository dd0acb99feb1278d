"""Decisions without I/O: everything here is given its octets, its time and its randomness, and returns
values.

`config` is what the proxy is to do, which `configuration` reads; `http` is what it is asked, `balancing`
decides who gets it; `names` is what name servers and the system's files say of addresses.
"""
