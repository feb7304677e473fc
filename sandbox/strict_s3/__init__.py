"""An S3 that behaves like Amazon where it hurts, on loopback, for tests and trials.

* `server`: `StrictS3`, the S3 for the length of a `with` block; it is also the proxy that leads Amazon's names to it.
* `http`: sockets, TLS and CONNECT. `certificates`: the private CA behind them.
* `messages`: a request and its answer. `addresses`: what a host's name says. `errors`: Amazon's codes.
* `xml`: Amazon's bodies.
* `signatures`: SigV4. `payload`: what the request says of its body. `demands`: what a bucket's policy asks for.
* `objects`: what is stored. `bucket_calls`, `object_calls`, `upload_calls`: what is answered.
* `identity`: where credentials come from: STS, SSO, instance and container metadata.

Signatures are compared with botocore's own signer. Nothing here knows the product. Presigned URLs, signed chunks and
copies are answered 501: the archive does not use them.
"""

from sandbox.strict_s3.demands import Demands
from sandbox.strict_s3.identity import Identity
from sandbox.strict_s3.server import StrictS3

__all__ = ["Demands", "Identity", "StrictS3"]
