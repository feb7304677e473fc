"""How the source is spoken to: requests, retries, proxies and checked addresses."""
