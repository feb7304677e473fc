"""HTTP to the source: requests, retries, proxies and checked addresses."""
