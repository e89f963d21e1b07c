"""The gateway: the app reads and writes through Firebase callables.

`protocol` and `app` speak with clients, `auth` says who they are, `messages` and `follow` write,
`routing` picks the source that a read is served from; both sources answer by the same `port`.
"""
