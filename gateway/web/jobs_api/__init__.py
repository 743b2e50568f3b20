"""The jobs API: for people, pages and tools that want more than the published APIs give."""
