"""The embedded AWS: ministack, extended in this process; the only room that touches ministack's internals.

One file per seam: `embedding` starts it, `front_door` serves our services, `roles` makes sessions and decides,
`facade` is the `Cloud` that services see. Import nothing of here before `embedding.prepare` has run: ministack
reads its settings when it is imported.
"""
