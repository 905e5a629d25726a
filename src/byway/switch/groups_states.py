# SPDX-License-Identifier: Apache-2.0
"""The states of connections: what a frame makes of one, and how long each lasts.

Used by groups.py (the stage), connections.py (timeouts, by number) and control (names). Uses
connections.py for the layout of a state word.

Theory of operation
-------------------
A state word's low bits are a state and flags. ``after`` says what it is after a frame, or BAD where
the frame does not fit, or REOPEN where it begins a new connection in the old one's place.

TCP follows the states of RFC 9293, 3.3.2, seen from between the two ends: one for both, by the
flags of segments alone. Sequence numbers are not tracked (what Linux calls "liberal"): a segment
outside the window is the receiver's business, which knows its window. Two cares make up for that:
a RST does not end an entry at once (the side that it went to may go on, and the entry with it, as
RFC 5961 wants of a receiver that does not believe it), and a SYN into a connection does not change
it (the peer answers it with a challenge ACK).

    SYN -> SYN_SENT -> SYN_RECEIVED -> ESTABLISHED -> FIN_WAIT -> TIME_WAIT
                        (any) RST -> CLOSED       PICKED_UP: joined in the middle

The *opener* is who sent the first frame. Everything else has two states: one way, and both ways.

A connection is *assured* when both sides have taken part (TCP: when its handshake is complete).
Others make way where a port has too many.
"""

from enum import IntEnum

from byway.machine.jit import kernel
from byway.packet.layers import TCP, UDP
from byway.switch.connections import STATE, STATE_BITS


class State(IntEnum):
    """What a connection is in. ``seconds``: how long after its last frame it is forgotten."""

    seconds: float

    def __new__(cls, value: int, seconds: float = 0) -> "State":
        made = int.__new__(cls, value)
        made._value_ = value
        made.seconds = seconds
        return made

    UDP_ONE_WAY = 1, 60
    UDP = 2, 180  # not less than two minutes: RFC 4787, 4.3
    SYN_SENT = 3, 60
    SYN_RECEIVED = 4, 60
    ESTABLISHED = 5, 7440  # two hours and four minutes: RFC 5382, 5
    FIN_WAIT = 6, 240  # one side has closed
    TIME_WAIT = 7, 60  # both have
    CLOSED = 8, 10  # by RST
    PICKED_UP = 9, 300  # joined in the middle; the other side was not heard yet
    FRAGMENTS = 10, 30  # a datagram in pieces, of which the first one passed
    LAST_FRAGMENT = 11, 1  # its last piece was seen
    ICMP = 12, 60  # a query: RFC 5508, 3.2
    OTHER_ONE_WAY = 13, 60
    OTHER = 14, 600


TIMEOUTS = {int(state): state.seconds for state in State}

_UDP_ONE_WAY, _UDP = int(State.UDP_ONE_WAY), int(State.UDP)
_SYN_SENT, _SYN_RECEIVED = int(State.SYN_SENT), int(State.SYN_RECEIVED)
_ESTABLISHED, _FIN_WAIT = int(State.ESTABLISHED), int(State.FIN_WAIT)
_TIME_WAIT, _CLOSED = int(State.TIME_WAIT), int(State.CLOSED)
_PICKED_UP, _ICMP = int(State.PICKED_UP), int(State.ICMP)
_OTHER_ONE_WAY, _OTHER = int(State.OTHER_ONE_WAY), int(State.OTHER)
_ASSURED = 1 << _UDP | 1 << _ESTABLISHED | 1 << _FIN_WAIT | 1 << _OTHER

# Flags of a state word. BY_REMOTE: the remote side is the opener. BY_MEMBER: allowed because the
# remote address is a member of a group. FIN_*, RST_*: who sent that. CROSSED: both sent a SYN.
BY_REMOTE, BY_MEMBER, CROSSED = (1 << STATE_BITS + k for k in range(3))
FIN_GUEST, FIN_REMOTE, RST_GUEST, RST_REMOTE = (1 << STATE_BITS + k for k in range(3, 7))

BAD, REOPEN = -1, -2

# Kinds of TCP segments (RFC 9293, 3.1), by the flags that make connections.
FIN, SYN, RST, ACK = 1, 2, 4, 16
K_BAD, K_SYN, K_SYN_ACK, K_ACK, K_FIN, K_RST = range(6)


@kernel(inline=True)
def segment_kind(flags):
    """Which kind of segment the flags make; K_BAD: no TCP sends such."""
    control = flags & (FIN | SYN | RST | ACK)
    if control == ACK:
        return K_ACK
    if control == SYN:
        return K_SYN
    if control == SYN | ACK:
        return K_SYN_ACK
    if control == FIN | ACK:
        return K_FIN
    if control == RST or control == RST | ACK:
        return K_RST
    return K_BAD


@kernel
def assured(state):
    """Have both sides of a connection taken part?"""
    return _ASSURED >> (state & STATE) & 1 != 0


@kernel(inline=True)
def with_state(word, state):
    """A state word in another state."""
    return word & ~STATE | state


@kernel
def first_state(protocol, kind, icmp):
    """The state that a first frame begins: ``kind`` of segment where it is TCP, ``icmp`` for an
    ICMP query; BAD where it begins none."""
    if protocol == TCP:
        if kind == K_SYN:
            return _SYN_SENT
        return _PICKED_UP if kind == K_ACK else BAD
    if protocol == UDP:
        return _UDP_ONE_WAY
    return _ICMP if icmp else _OTHER_ONE_WAY


@kernel
def after_syn(word, kind, opener):
    """As ``after_segment``, for SYN and SYN-ACK."""
    state = word & STATE
    crossed = word & CROSSED != 0
    if kind == K_SYN:
        if state == _TIME_WAIT or state == _CLOSED:
            return REOPEN
        if opener or (crossed and state == _SYN_RECEIVED):
            return word
        if state == _SYN_SENT:  # both open at the same time: RFC 9293, 3.5, figure 7
            return with_state(word, _SYN_RECEIVED) | CROSSED
        return BAD
    if opener and not crossed:
        return BAD
    if state == _SYN_SENT:
        return with_state(word, _SYN_RECEIVED)
    if state == _SYN_RECEIVED and opener:
        return with_state(word, _ESTABLISHED)
    return word


@kernel
def after_fin(word, by_guest):
    """As ``after_segment``, for a FIN in a connection that may be closed."""
    word |= FIN_GUEST if by_guest else FIN_REMOTE
    both = FIN_GUEST | FIN_REMOTE
    return with_state(word, _TIME_WAIT if word & both == both else _FIN_WAIT)


@kernel
def after_segment(word, kind, by_guest):
    """A TCP connection's state word after a segment of a ``kind``, BAD, or REOPEN."""
    state = word & STATE
    opener = by_guest == (word & BY_REMOTE == 0)
    if kind == K_BAD:
        return BAD
    if kind == K_SYN or kind == K_SYN_ACK:
        return after_syn(word, kind, opener)
    if kind == K_RST:
        return with_state(word, _CLOSED) | (RST_GUEST if by_guest else RST_REMOTE)
    if state == _SYN_SENT:
        # The peer may still have an older connection: RFC 9293, 3.5.1. The opener must wait.
        return word if kind == K_ACK and not opener else BAD
    if state == _CLOSED:
        believed = word & (RST_GUEST if by_guest else RST_REMOTE) != 0
        return word if believed else with_state(word & ~(RST_GUEST | RST_REMOTE), _PICKED_UP)
    if kind == K_FIN:
        return after_fin(word, by_guest)
    if state == _SYN_RECEIVED and (opener or word & CROSSED != 0):
        return with_state(word, _ESTABLISHED)
    if state == _PICKED_UP and not opener:
        return with_state(word, _ESTABLISHED)
    return word


@kernel(inline=True)
def after(word, protocol, kind, by_guest):
    """A connection's state word after a frame of the guest's, or to it; BAD, or REOPEN."""
    if protocol == TCP:
        state = word & STATE
        if state == _ESTABLISHED and kind == K_ACK:
            return word
        return after_segment(word, kind, by_guest)
    if by_guest == (word & BY_REMOTE == 0):
        return word
    state = word & STATE
    if state == _UDP_ONE_WAY:
        return with_state(word, _UDP)
    if state == _OTHER_ONE_WAY:
        return with_state(word, _OTHER)
    return word
