"""Requests that are meant for Amazon, answered by a server of the tests."""

from __future__ import annotations

import http.client
import io
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3 import HTTPHeaderDict


@dataclass
class Detour:
    """Takes to moto what would go to Amazon; notes methods and headers, and changes the answers' headers."""

    port: int
    methods: list[str]
    changed: dict[str, str]
    sent: list[dict[str, str]] = field(default_factory=list)

    def redirect(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        target = urlsplit(request.url)
        path = f"/{target.netloc.partition('.')[0]}{target.path}" + (f"?{target.query}" if target.query else "")
        headers = {
            name.lower(): value.decode() if isinstance(value, bytes) else value
            for name, value in request.headers.items()
        }
        self.methods.append(request.method)
        self.sent.append(headers)
        upstream = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        upstream.request(request.method, path, body=request.body, headers=headers)
        answer = upstream.getresponse()
        raw = urllib3.HTTPResponse(io.BytesIO(answer.read()), preload_content=False)
        answered = {"x-amz-request-id": "1"} | dict(answer.getheaders()) | self.changed
        return AWSResponse(request.url, answer.status, HTTPHeaderDict(answered), raw)
