"""OpenRouter's API: `api` routes, `turn` is one chat request on its way, `delivery` answers it, `failures` fails it,
`wire` and `catalogue` are the bodies.

Another provider's API gets a package of its own, with a class that has `handles(path)` and `handle(exchange, path)`,
and stands in `app.App`.
"""
