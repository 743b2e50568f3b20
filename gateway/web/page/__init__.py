"""The page at /: static files that browsers load, and the routes that serve them."""
