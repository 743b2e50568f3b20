"""The OpenAPI description of the APIs: what each route says of itself, and the document made of that."""
