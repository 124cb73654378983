"""People's own streams, by the Durable Streams protocol.

In this folder some words have the meaning of that protocol, and not that of docs/protocol.md:

    generation   the number of a wake of a subscription
    worker       a client that handles the wakes of a subscription
    Producer     what a client sends to number its appends, so that a repeat writes nothing
    Entry        the bytes of one append
"""
